/* Paths, queries and errors. A path's segments are decoded one by one, after splitting: an encoded slash can never make a new segment,
 * and is refused, since no Kubernetes name holds one. */
#include "kube/request.h"

#include "base/mem.h"

static int hex(char c)
{
        if (c >= '0' && c <= '9')
                return c - '0';
        c = ascii_lower(c);
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool kube_unescape(struct str in, bool plus, struct arena *a, struct str *out)
{
        if ((!in.n || !memchr(in.p, '%', in.n)) && (!plus || !in.n || !memchr(in.p, '+', in.n))) {
                *out = in.p ? in : STR("");
                return !in.n || !memchr(in.p, 0, in.n);
        }
        char *p = arena_alloc(a, in.n + 1);
        size_t n = 0;

        for (size_t i = 0; i < in.n; i++) {
                char c = in.p[i];

                if (c == '%') {
                        if (i + 2 >= in.n || hex(in.p[i + 1]) < 0 || hex(in.p[i + 2]) < 0)
                                return false;
                        c = (char)(hex(in.p[i + 1]) << 4 | hex(in.p[i + 2]));
                        i += 2;
                } else if (c == '+' && plus) {
                        c = ' ';
                }
                if (!c)
                        return false;
                p[n++] = c;
        }
        p[n] = 0;
        *out = str_make(p, n);
        return true;
}

bool kube_query_parse(struct str text, struct arena *a, struct kube_query *q)
{
        struct str rest = text, part;

        q->n = 0;
        q->raw = text;
        while (str_next(&rest, '&', &part)) {
                if (!part.n)
                        continue;
                if (q->n == KUBE_QUERY_MAX)
                        return false;
                ptrdiff_t eq = str_chr(part, '=');
                struct str k = eq < 0 ? part : str_sub(part, 0, (size_t)eq);
                struct str v = eq < 0 ? STR("") : str_sub(part, (size_t)eq + 1, part.n);

                if (!kube_unescape(k, true, a, &q->v[q->n].key) || !kube_unescape(v, true, a, &q->v[q->n].value))
                        return false;
                q->n++;
        }
        return true;
}

struct str kube_query_get(const struct kube_query *q, const char *key)
{
        for (unsigned i = 0; i < q->n; i++)
                if (str_eqc(q->v[i].key, key))
                        return q->v[i].value;
        return (struct str){ NULL, 0 };
}

bool kube_query_bool(const struct kube_query *q, const char *key)
{
        struct str v = kube_query_get(q, key);

        return v.p && !str_eq(v, STR("0")) && !str_eq(v, STR("false")) && !str_eq(v, STR("False"));
}

static bool segment_ok(struct str s)
{
        return s.n && !str_eq(s, STR(".")) && !str_eq(s, STR("..")) && str_chr(s, '/') < 0 && str_chr(s, '%') < 0;
}

bool kube_path_parse(struct str path, struct arena *a, struct kube_path *p)
{
        struct str rest = path, part;

        memset(p, 0, sizeof(*p));
        if (!path.n || path.p[0] != '/' || path.n > KUBE_PATH_MAX_BYTES)
                return false;
        rest = str_sub(path, 1, path.n);
        if (str_ends(rest, STR("/")))
                rest.n--;
        while (rest.n && str_next(&rest, '/', &part)) {
                if (p->nseg == ARRAY_LEN(p->seg) || !kube_unescape(part, false, a, &p->seg[p->nseg]) || !segment_ok(p->seg[p->nseg]))
                        return false;
                p->nseg++;
        }

        unsigned i;
        if (p->nseg >= 3 && str_eqc(p->seg[0], "api")) {
                p->group = STR("");
                p->version = p->seg[1];
                i = 2;
        } else if (p->nseg >= 4 && str_eqc(p->seg[0], "apis")) {
                p->group = p->seg[1];
                p->version = p->seg[2];
                i = 3;
        } else {
                return true;
        }
        p->resource_path = true;
        unsigned left = p->nseg - i;
        if (str_eqc(p->seg[i], "namespaces") && !p->group.n && left <= 2) {
                p->resource = p->seg[i++]; /* the namespaces themselves */
        } else if (str_eqc(p->seg[i], "namespaces") && !p->group.n && left == 3 &&
                   (str_eqc(p->seg[i + 2], "status") || str_eqc(p->seg[i + 2], "finalize"))) {
                p->resource = p->seg[i++];
        } else if (str_eqc(p->seg[i], "namespaces") && left >= 3) {
                p->has_ns = true;
                p->ns = p->seg[i + 1];
                p->resource = p->seg[i + 2];
                i += 3;
        } else {
                p->resource = p->seg[i++];
        }
        if (i < p->nseg)
                p->name = p->seg[i++];
        if (i < p->nseg)
                p->sub = p->seg[i++];
        return i == p->nseg;
}

void kube_error_set(struct kube_error *e, struct arena *a, int code, const char *reason, const char *fmt, ...)
{
        va_list ap;

        e->code = code;
        e->reason = reason;
        va_start(ap, fmt);
        e->message = arena_vprintf(a, fmt, ap);
        va_end(ap);
}

void kube_error_cause(struct kube_error *e, struct arena *a, const char *reason, struct str field, struct str message)
{
        if (e->ncauses == e->cap_causes) {
                size_t cap = e->cap_causes ? e->cap_causes * 2 : 8;
                struct kube_cause *v = arena_alloc(a, cap * sizeof(*v));

                if (e->ncauses)
                        memcpy(v, e->causes, e->ncauses * sizeof(*v));
                e->causes = v;
                e->cap_causes = cap;
        }
        e->causes[e->ncauses++] = (struct kube_cause){ str_of(reason), arena_str(a, message), arena_str(a, field) };
}

static void put(struct buf *b, const char *key, struct str v, bool *first)
{
        if (!v.n)
                return;
        buf_printf(b, "%s\"%s\":", *first ? "" : ",", key);
        buf_json(b, v);
        *first = false;
}

static void causes_json(const struct kube_error *e, struct buf *out, bool *first)
{
        if (!e->ncauses)
                return;
        buf_printf(out, "%s\"causes\":[", *first ? "" : ",");
        *first = false;
        for (size_t i = 0; i < e->ncauses; i++) {
                bool f = true;

                buf_cstr(out, i ? ",{" : "{");
                put(out, "reason", e->causes[i].reason, &f);
                put(out, "message", e->causes[i].message, &f);
                put(out, "field", e->causes[i].field, &f);
                buf_char(out, '}');
        }
        buf_char(out, ']');
}

void kube_error_json(const struct kube_error *e, struct buf *out)
{
        bool first = true;

        buf_cstr(out, "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\",\"message\":");
        buf_json(out, e->message);
        if (e->reason && *e->reason)
                buf_printf(out, ",\"reason\":\"%s\"", e->reason);
        buf_cstr(out, ",\"details\":{");
        put(out, "name", e->name, &first);
        put(out, "group", e->group, &first);
        put(out, "kind", e->kind, &first);
        put(out, "uid", e->uid, &first);
        causes_json(e, out, &first);
        if (e->retry_after_s)
                buf_printf(out, "%s\"retryAfterSeconds\":%u", first ? "" : ",", e->retry_after_s);
        buf_printf(out, "},\"code\":%d}\n", e->code);
}

void kube_success_json(struct str name, struct str group, struct str kind, struct str uid, struct buf *out)
{
        bool first = true;

        buf_cstr(out, "{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Success\",\"details\":{");
        put(out, "name", name, &first);
        put(out, "group", group, &first);
        put(out, "kind", kind, &first);
        put(out, "uid", uid, &first);
        buf_cstr(out, "}}\n");
}
