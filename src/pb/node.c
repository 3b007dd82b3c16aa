/* Trees of nodes: what a text says before anybody knows its type. */
#include "base/hash.h"
#include "base/mem.h"
#include "pb/internal.h"

#include <stdlib.h>

struct pb_node *pb_new(struct arena *a, enum pb_kind kind, struct str text)
{
        struct pb_node *n = ARENA_NEW(a, struct pb_node);

        n->kind = kind;
        n->quoted = true;
        n->text = text.p ? arena_str(a, text) : text;
        return n;
}

static ptrdiff_t find(const struct pb_node *map, struct str key)
{
        if (!map || map->kind != PB_MAP)
                return -1;
        for (size_t i = 0; i < map->n; i++)
                if (str_eq(map->keys[i], key))
                        return (ptrdiff_t)i;
        return -1;
}

struct pb_node *pb_get(const struct pb_node *map, const char *key)
{
        ptrdiff_t i = find(map, str_of(key));

        return i < 0 ? NULL : map->v[i];
}

struct pb_node *pb_get_path(const struct pb_node *map, const char *dotted)
{
        struct str rest = str_of(dotted), part;
        const struct pb_node *n = map;

        while (n && str_next(&rest, '.', &part)) {
                ptrdiff_t i = find(n, part);

                n = i < 0 ? NULL : n->v[i];
        }
        return (struct pb_node *)n;
}

struct str pb_get_str(const struct pb_node *map, const char *dotted, struct str otherwise)
{
        const struct pb_node *n = pb_get_path(map, dotted);

        return n && (n->kind == PB_STRING || n->kind == PB_NUMBER || n->kind == PB_BOOL) ? n->text : otherwise;
}

static void *grown(struct arena *a, void *v, size_t n, size_t size)
{
        char *more = arena_alloc(a, pb_node_cap(n + 1) * size);

        if (n)
                memcpy(more, v, n * size);
        return more;
}

static void room_for_one(struct arena *a, struct pb_node *n)
{
        if (n->n && pb_node_cap(n->n) > n->n)
                return;
        n->v = grown(a, n->v, n->n, sizeof(*n->v));
        if (n->kind != PB_MAP)
                return;
        n->keys = grown(a, n->keys, n->n, sizeof(*n->keys));
        n->key_at = grown(a, n->key_at, n->n, sizeof(*n->key_at));
}

void pb_put(struct arena *a, struct pb_node *map, struct str key, struct pb_node *value)
{
        ptrdiff_t i = find(map, key);

        if (i >= 0) {
                map->v[i] = value;
                return;
        }
        room_for_one(a, map);
        map->keys[map->n] = arena_str(a, key);
        map->key_at[map->n] = (struct pb_node){ .kind = PB_STRING, .line = value->line, .column = value->column };
        map->v[map->n++] = value;
}

void pb_put_str(struct arena *a, struct pb_node *map, const char *key, struct str value)
{
        pb_put(a, map, str_of(key), pb_new(a, PB_STRING, value.p ? value : STR("")));
}

bool pb_del(struct pb_node *map, const char *key)
{
        ptrdiff_t i = find(map, str_of(key));

        if (i < 0)
                return false;
        size_t behind = map->n - (size_t)i - 1;

        memmove(map->v + i, map->v + i + 1, behind * sizeof(*map->v));
        memmove(map->keys + i, map->keys + i + 1, behind * sizeof(*map->keys));
        memmove(map->key_at + i, map->key_at + i + 1, behind * sizeof(*map->key_at));
        map->n--;
        return true;
}

void pb_push(struct arena *a, struct pb_node *list, struct pb_node *value)
{
        room_for_one(a, list);
        list->v[list->n++] = value;
}

struct pb_node *pb_clone(struct arena *a, const struct pb_node *n)
{
        if (!n)
                return NULL;
        struct pb_node *c = arena_dup(a, n, sizeof(*n));
        size_t cap = pb_node_cap(n->n);

        if (n->text.p)
                c->text = arena_str(a, n->text);
        if (n->kind != PB_LIST && n->kind != PB_MAP)
                return c;
        c->v = arena_alloc(a, cap * sizeof(*c->v));
        for (size_t i = 0; i < n->n; i++)
                c->v[i] = pb_clone(a, n->v[i]);
        if (n->kind == PB_LIST)
                return c;
        c->keys = arena_alloc(a, cap * sizeof(*c->keys));
        c->key_at = arena_alloc(a, cap * sizeof(*c->key_at));
        for (size_t i = 0; i < n->n; i++) {
                c->keys[i] = arena_str(a, n->keys[i]);
                c->key_at[i] = n->key_at[i];
        }
        return c;
}

static bool scalar_eq(const struct pb_node *a, const struct pb_node *b)
{
        int64_t i, j;
        double x, y;
        bool p, q;

        if (str_eq(a->text, b->text))
                return true;
        if (a->kind == PB_BOOL)
                return pb_text_bool(a->text, &p) && pb_text_bool(b->text, &q) && p == q;
        if (a->kind != PB_NUMBER)
                return false;
        if (pb_text_i64(a->text, &i) && pb_text_i64(b->text, &j))
                return i == j;
        return pb_text_double(a->text, &x) && pb_text_double(b->text, &y) && (x == y || (x != x && y != y));
}

/* A map of any size against another: by position first, which is how most equal maps lie; else through a hash. */
static bool map_eq(const struct pb_node *a, const struct pb_node *b)
{
        struct strmap at = STRMAP_INIT;
        bool same = true;

        for (size_t i = 0; same && i < a->n; i++) {
                const struct pb_node *other = NULL;

                if (str_eq(a->keys[i], b->keys[i])) {
                        other = b->v[i];
                } else if (a->n <= 16) {
                        ptrdiff_t j = find(b, a->keys[i]);

                        other = j < 0 ? NULL : b->v[j];
                } else {
                        for (size_t j = at.n ? b->n : 0; j < b->n; j++)
                                strmap_set(&at, b->keys[j], b->v[j]);
                        other = strmap_get(&at, a->keys[i]);
                }
                same = other && pb_node_eq(a->v[i], other);
        }
        strmap_fini(&at);
        return same;
}

bool pb_node_eq(const struct pb_node *a, const struct pb_node *b)
{
        if (a == b)
                return true;
        if (!a || !b || a->kind != b->kind || a->n != b->n)
                return false;
        switch (a->kind) {
        case PB_NULL:
                return true;
        case PB_LIST:
                for (size_t i = 0; i < a->n; i++)
                        if (!pb_node_eq(a->v[i], b->v[i]))
                                return false;
                return true;
        case PB_MAP:
                return map_eq(a, b);
        default:
                return scalar_eq(a, b);
        }
}

static int str_ptr_cmp(const void *a, const void *b)
{
        return str_cmp(**(const struct str *const *)a, **(const struct str *const *)b);
}

bool pb_keys_unique(const struct str *keys, size_t n, size_t *dup)
{
        if (n <= 12) {
                for (size_t i = 1; i < n; i++)
                        for (size_t j = 0; j < i; j++)
                                if (str_eq(keys[i], keys[j])) {
                                        *dup = i;
                                        return false;
                                }
                return true;
        }
        const struct str **v = mem_calloc(n, sizeof(*v));
        bool unique = true;

        for (size_t i = 0; i < n; i++)
                v[i] = &keys[i];
        qsort(v, n, sizeof(*v), str_ptr_cmp);
        for (size_t i = 1; i < n; i++)
                if (str_eq(*v[i - 1], *v[i])) {
                        size_t later = (size_t)((v[i] > v[i - 1] ? v[i] : v[i - 1]) - keys);

                        if (unique || later < *dup)
                                *dup = later;
                        unique = false;
                }
        free(v);
        return unique;
}

void pb_merge(struct arena *a, struct pb_node *into, const struct pb_node *from)
{
        for (size_t i = 0; from && i < from->n; i++) {
                struct pb_node *have = pb_get(into, arena_cstr(a, from->keys[i]));

                if (have && have->kind == PB_MAP && from->v[i]->kind == PB_MAP)
                        pb_merge(a, have, from->v[i]);
                else
                        pb_put(a, into, from->keys[i], from->v[i]);
        }
}

struct str pb_node_json_str(const struct pb_node *n, struct arena *a)
{
        struct buf b = BUF_INIT;

        pb_node_json(n, &b);
        struct str s = arena_str(a, buf_view(&b));

        buf_fini(&b);
        return s;
}
