/* The small readers. See read.h. */
#include "mesh/read.h"

#include "base/mem.h"

#include <stdlib.h>

const struct pb_node *read_field(const struct pb_node *map, const char *camel)
{
        char snake[64];
        size_t n = 0;
        bool differs = false;
        const struct pb_node *v;

        if (!map || map->kind != PB_MAP)
                return NULL;
        v = pb_get(map, camel);
        if (v)
                return v->kind == PB_NULL ? NULL : v;
        for (const char *c = camel; *c && n + 2 < sizeof(snake); c++) {
                if (*c >= 'A' && *c <= 'Z') {
                        snake[n++] = '_';
                        snake[n++] = (char)(*c + 32);
                        differs = true;
                } else {
                        snake[n++] = *c;
                }
        }
        snake[n] = 0;
        v = differs ? pb_get(map, snake) : NULL;
        return v && v->kind != PB_NULL ? v : NULL;
}

static bool scalar(const struct pb_node *n)
{
        return n && (n->kind == PB_STRING || n->kind == PB_NUMBER || n->kind == PB_BOOL);
}

struct str read_str(struct arena *a, const struct pb_node *map, const char *field)
{
        const struct pb_node *n = read_field(map, field);

        return scalar(n) ? arena_str(a, n->text) : (struct str){ 0 };
}

int64_t read_i64(const struct pb_node *map, const char *field, int64_t otherwise)
{
        const struct pb_node *n = read_field(map, field);
        int64_t v;

        return scalar(n) && str_i64(n->text, &v) ? v : otherwise;
}

uint32_t read_u32(const struct pb_node *map, const char *field)
{
        int64_t v = read_i64(map, field, 0);

        return v < 0 || v > UINT32_MAX ? 0 : (uint32_t)v;
}

int read_bool(const struct pb_node *map, const char *field)
{
        const struct pb_node *n = read_field(map, field);

        if (!scalar(n))
                return -1;
        return str_eqc(n->text, "true") ? 1 : str_eqc(n->text, "false") ? 0 : -1;
}

double read_double(const struct pb_node *map, const char *field, double otherwise)
{
        const struct pb_node *n = read_field(map, field);
        char text[40], *end;
        double v;

        if (!scalar(n) || n->text.n == 0 || n->text.n >= sizeof(text))
                return otherwise;
        memcpy(text, n->text.p, n->text.n);
        text[n->text.n] = 0;
        v = strtod(text, &end);
        return *end ? otherwise : v;
}

static const struct {
        const char *unit;
        double us;
} units[] = { { "h", 3600e6 }, { "ms", 1e3 }, { "m", 60e6 }, { "s", 1e6 }, { "us", 1 }, { "ns", 1e-3 } };

bool read_duration_parse(struct str s, int64_t *us)
{
        double total = 0;
        bool negative = false, any = false;

        if (s.n && (s.p[0] == '-' || s.p[0] == '+')) {
                negative = s.p[0] == '-';
                s = str_sub(s, 1, s.n);
        }
        if (str_eqc(s, "0")) {
                *us = 0;
                return true;
        }
        while (s.n) {
                double v = 0, scale = 1;
                bool digits = false, point = false;
                size_t i = 0, u;

                for (; i < s.n && ((s.p[i] >= '0' && s.p[i] <= '9') || (s.p[i] == '.' && !point)); i++) {
                        if (s.p[i] == '.') {
                                point = true;
                        } else {
                                digits = true;
                                v = v * 10 + (s.p[i] - '0');
                                scale *= point ? 10 : 1;
                        }
                }
                s = str_sub(s, i, s.n);
                for (u = 0; u < ARRAY_LEN(units); u++)
                        if (str_starts(s, str_of(units[u].unit)))
                                break;
                if (!digits || u == ARRAY_LEN(units))
                        return false;
                s = str_sub(s, strlen(units[u].unit), s.n);
                total += v / scale * units[u].us;
                any = true;
        }
        if (!any)
                return false;
        if (total > 9e18)
                total = 9e18; /* the caller says that it is too long */
        *us = (int64_t)(negative ? -total - 0.5 : total + 0.5);
        return true;
}

int64_t read_duration_us(const struct pb_node *map, const char *field, int64_t otherwise)
{
        const struct pb_node *n = read_field(map, field);
        int64_t us;

        return scalar(n) && read_duration_parse(n->text, &us) ? us : otherwise;
}

size_t read_list(const struct pb_node *map, const char *field, struct pb_node ***v)
{
        const struct pb_node *n = read_field(map, field);

        if (!n || n->kind != PB_LIST)
                return 0;
        *v = n->v;
        return n->n;
}

struct str *read_strs(struct arena *a, const struct pb_node *map, const char *field, size_t *n)
{
        struct pb_node **v = NULL;
        size_t k = read_list(map, field, &v);
        struct str *out = k ? arena_alloc(a, k * sizeof(*out)) : NULL;

        *n = 0;
        for (size_t i = 0; i < k; i++)
                if (scalar(v[i]))
                        out[(*n)++] = arena_str(a, v[i]->text);
        return out;
}

static int by_key(const void *x, const void *y)
{
        return str_cmp(((const struct mesh_label *)x)->key, ((const struct mesh_label *)y)->key);
}

struct mesh_label *read_pairs(struct arena *a, const struct pb_node *map, size_t *n)
{
        struct mesh_label *out;

        *n = 0;
        if (!map || map->kind != PB_MAP || map->n == 0)
                return NULL;
        out = arena_alloc(a, map->n * sizeof(*out));
        for (size_t i = 0; i < map->n; i++)
                if (scalar(map->v[i]))
                        out[(*n)++] = (struct mesh_label){ arena_str(a, map->keys[i]), arena_str(a, map->v[i]->text) };
        qsort(out, *n, sizeof(*out), by_key);
        return out;
}

struct mesh_labels read_labels(struct arena *a, const struct pb_node *map)
{
        struct mesh_labels l;

        l.v = read_pairs(a, map, &l.n);
        return l;
}

struct mesh_export read_export_list(struct arena *a, struct str *v, size_t n)
{
        struct mesh_export e = { .everyone = n == 0 };

        for (size_t i = 0; i < n; i++) {
                if (str_eqc(v[i], "*"))
                        e.everyone = true;
                else if (str_eqc(v[i], "."))
                        e.own = true;
                else if (str_eqc(v[i], "~"))
                        e.nobody = true;
                else
                        v[e.n++] = v[i];
        }
        e.v = v;
        return e;
}

struct mesh_export read_export(struct arena *a, const struct pb_node *spec)
{
        size_t n;
        struct str *v = read_strs(a, spec, "exportTo", &n);

        return read_export_list(a, v, n);
}

struct mesh_port read_port(struct arena *a, const struct pb_node *port)
{
        struct mesh_port p = { 0 };

        p.number = read_u32(port, "number");
        p.target = read_u32(port, "targetPort");
        p.name = read_str(a, port, "name");
        p.protocol = mesh_protocol_parse(read_str(a, port, "protocol"));
        return p;
}
