/* Validation: first the shape, by the descriptors (unknown fields, wrong types), then metadata, then what each kind means. */
#include "kube/validate.h"

#include "base/mem.h"
#include "net/addr.h"

#include <stdio.h>

/* ---- field errors ---- */

static void cause(struct check *c, const char *reason, const char *path, struct str message)
{
        if (c->e->ncauses < 100)
                kube_error_cause(c->e, c->a, reason, str_of(path), message);
}

void check_required(struct check *c, const char *path, const char *detail)
{
        cause(c, "FieldValueRequired", path, arena_printf(c->a, "Required value%s%s", *detail ? ": " : "", detail));
}

void check_invalid(struct check *c, const char *path, const struct pb_node *value, const char *detail)
{
        struct buf b = BUF_INIT;

        if (value)
                pb_node_json(value, &b);
        else
                buf_cstr(&b, "null");
        struct str v = arena_str(c->a, str_sub(buf_view(&b), 0, 500));
        buf_fini(&b);
        cause(c, "FieldValueInvalid", path, arena_printf(c->a, "Invalid value: " STR_FMT ": %s", STR_ARG(v), detail));
}

static struct str quoted(struct check *c, struct str v)
{
        struct buf b = BUF_INIT;

        buf_json(&b, str_sub(v, 0, 500));
        struct str out = arena_str(c->a, buf_view(&b));
        buf_fini(&b);
        return out;
}

void check_invalid_text(struct check *c, const char *path, struct str value, const char *detail)
{
        cause(c, "FieldValueInvalid", path, arena_printf(c->a, "Invalid value: " STR_FMT ": %s", STR_ARG(quoted(c, value)), detail));
}

void check_unsupported(struct check *c, const char *path, struct str value, const char *allowed)
{
        struct buf b = BUF_INIT;
        struct str rest = str_of(allowed), part;

        buf_printf(&b, "Unsupported value: " STR_FMT ": supported values: ", STR_ARG(quoted(c, value)));
        for (bool first = true; str_next(&rest, ' ', &part); first = false)
                buf_printf(&b, "%s\"" STR_FMT "\"", first ? "" : ", ", STR_ARG(part));
        cause(c, "FieldValueNotSupported", path, buf_view(&b));
        buf_fini(&b);
}

void check_duplicate(struct check *c, const char *path, struct str value)
{
        cause(c, "FieldValueDuplicate", path, arena_printf(c->a, "Duplicate value: " STR_FMT, STR_ARG(quoted(c, value))));
}

void check_forbidden(struct check *c, const char *path, const char *detail)
{
        cause(c, "FieldValueForbidden", path, arena_printf(c->a, "Forbidden: %s", detail));
}

void check_not_found(struct check *c, const char *path, struct str value)
{
        cause(c, "FieldValueNotFound", path, arena_printf(c->a, "Not found: " STR_FMT, STR_ARG(quoted(c, value))));
}

void check_too_long(struct check *c, const char *path, size_t max)
{
        cause(c, "FieldValueTooLong", path, arena_printf(c->a, "Too long: may not be more than %zu bytes", max));
}

void kube_invalid(struct kube_error *e, const struct kube_resource *res, struct str name, struct arena *a)
{
        struct buf b = BUF_INIT;

        buf_printf(&b, "%s%s%s \"" STR_FMT "\" is invalid: %s", res->kind, *res->group ? "." : "", res->group, STR_ARG(name),
                   e->ncauses > 1 ? "[" : "");
        for (size_t i = 0; i < e->ncauses; i++)
                buf_printf(&b, "%s" STR_FMT ": " STR_FMT, i ? ", " : "", STR_ARG(e->causes[i].field), STR_ARG(e->causes[i].message));
        if (e->ncauses > 1)
                buf_char(&b, ']');
        e->code = 422;
        e->reason = "Invalid";
        e->message = arena_str(a, buf_view(&b));
        e->name = arena_str(a, name);
        e->group = str_of(res->group);
        e->kind = str_of(res->kind);
        buf_fini(&b);
}

/* ---- common shapes ---- */

const struct pb_node *check_list(const struct pb_node *map, const char *key)
{
        const struct pb_node *l = pb_get(map, key);

        return l && l->kind == PB_LIST ? l : NULL;
}

static const struct pb_node *present(const struct pb_node *map, const char *key)
{
        const struct pb_node *n = pb_get(map, key);

        return n && n->kind != PB_NULL ? n : NULL;
}

static bool in_words(struct str v, const char *words)
{
        struct str rest = str_of(words), part;

        while (str_next(&rest, ' ', &part))
                if (str_eq(part, v))
                        return true;
        return false;
}

void check_enum(struct check *c, const struct pb_node *map, const char *base, const char *key, const char *allowed)
{
        const struct pb_node *n = present(map, key);

        if (n && !in_words(n->text, allowed))
                check_unsupported(c, base ? PATH(c, "%s.%s", base, key) : key, n->text, allowed);
}

static bool port_ok(const struct pb_node *n)
{
        int64_t v;

        return str_i64(n->text, &v) && v >= 1 && v <= 65535;
}

void check_port(struct check *c, const struct pb_node *map, const char *base, const char *key, bool required)
{
        const struct pb_node *n = present(map, key);

        if (!n && required)
                check_required(c, PATH(c, "%s.%s", base, key), "");
        else if (n && !port_ok(n))
                check_invalid(c, PATH(c, "%s.%s", base, key), n, "must be between 1 and 65535, inclusive");
}

const char *check_port_name(struct str s)
{
        bool letter = false;

        if (s.n > 15)
                return "must be no more than 15 characters";
        if (!s.n)
                return "must contain at least one letter (a-z)";
        for (size_t i = 0; i < s.n; i++) {
                char ch = s.p[i];

                if (ch == '-' && i && s.p[i - 1] == '-')
                        return "must not contain consecutive hyphens";
                if (!((ch >= 'a' && ch <= 'z') || (ch >= '0' && ch <= '9') || ch == '-'))
                        return "must contain only alpha-numeric characters (a-z, 0-9), and hyphens (-)";
                letter |= ch >= 'a' && ch <= 'z';
        }
        if (!letter)
                return "must contain at least one letter (a-z)";
        return s.p[0] == '-' || s.p[s.n - 1] == '-' ? "must not begin or end with hyphens" : NULL;
}

void check_port_or_name(struct check *c, const struct pb_node *map, const char *base, const char *key, bool required)
{
        const struct pb_node *n = present(map, key);

        if (!n || n->kind != PB_STRING) {
                check_port(c, map, base, key, required);
                return;
        }
        const char *bad = check_port_name(n->text);
        if (bad)
                check_invalid(c, PATH(c, "%s.%s", base, key), n, bad);
}

void check_not_negative(struct check *c, const struct pb_node *map, const char *base, const char *key)
{
        const struct pb_node *n = present(map, key);
        int64_t v;

        if (n && str_i64(n->text, &v) && v < 0)
                check_invalid(c, PATH(c, "%s.%s", base, key), n, "must be greater than or equal to 0");
}

void check_string(struct check *c, const struct pb_node *map, const char *base, const char *key, const char *(*shape)(struct str),
                  bool required)
{
        const struct pb_node *n = present(map, key);

        if (!n || !n->text.n) {
                if (required)
                        check_required(c, PATH(c, "%s.%s", base, key), "");
                return;
        }
        const char *bad = shape ? shape(n->text) : NULL;
        if (bad)
                check_invalid(c, PATH(c, "%s.%s", base, key), n, bad);
}

void check_labels(struct check *c, const struct pb_node *labels, const char *path)
{
        for (size_t i = 0; labels && labels->kind == PB_MAP && i < labels->n; i++) {
                const char *bad = kube_check_qualified_name(labels->keys[i]);

                if (bad)
                        check_invalid_text(c, path, labels->keys[i], bad);
                bad = kube_check_label_value(labels->v[i]->text);
                if (bad)
                        check_invalid_text(c, path, labels->v[i]->text, bad);
        }
}

bool check_is_ip(struct str s)
{
        struct addr ad;

        return s.n && s.p[0] != '[' && addr_parse_ip(&ad, s, 0);
}

/* ---- metadata ---- */

static const char *name_shape(const struct kube_resource *res, struct str name)
{
        if (res->bucket_id == kube_b.services)
                return kube_check_dns1035_label(name);
        if (res->bucket_id == kube_b.namespaces)
                return kube_check_dns_label(name);
        return kube_check_dns_subdomain(name);
}

static void owner_refs(struct check *c, const struct pb_node *refs)
{
        static const char *const needed[] = { "apiVersion", "kind", "name", "uid" };

        for (size_t i = 0; refs && i < refs->n; i++)
                for (size_t k = 0; k < ARRAY_LEN(needed); k++)
                        if (!pb_get_str(refs->v[i], needed[k], STR("")).n)
                                check_invalid_text(c, PATH(c, "metadata.ownerReferences[%zu].%s", i, needed[k]), STR(""),
                                                   "must not be empty");
}

static void annotations(struct check *c, const struct pb_node *map)
{
        size_t total = 0;

        for (size_t i = 0; map && map->kind == PB_MAP && i < map->n; i++) {
                const char *bad = kube_check_qualified_name(map->keys[i]);

                if (bad)
                        check_invalid_text(c, "metadata.annotations", map->keys[i], bad);
                total += map->keys[i].n + map->v[i]->text.n;
        }
        if (total > 256 * 1024)
                check_too_long(c, "metadata.annotations", 256 * 1024);
}

static void metadata(struct check *c, const struct kube_resource *res, const struct pb_node *o, const struct pb_node *old)
{
        const struct pb_node *meta = pb_get(o, "metadata");
        struct str name = pb_get_str(meta, "name", STR(""));

        if (!name.n)
                check_required(c, "metadata.name", "name or generateName is required");
        else if (!old && name_shape(res, name))
                check_invalid_text(c, "metadata.name", name, name_shape(res, name));
        check_labels(c, pb_get(meta, "labels"), "metadata.labels");
        annotations(c, pb_get(meta, "annotations"));
        owner_refs(c, check_list(meta, "ownerReferences"));
        const struct pb_node *fin = check_list(meta, "finalizers");
        for (size_t i = 0; fin && i < fin->n; i++)
                if (kube_check_qualified_name(fin->v[i]->text))
                        check_invalid_text(c, PATH(c, "metadata.finalizers[%zu]", i), fin->v[i]->text,
                                           kube_check_qualified_name(fin->v[i]->text));
        if (old && !str_eq(name, pb_get_str(old, "metadata.name", STR(""))))
                check_invalid_text(c, "metadata.name", name, "field is immutable");
}

bool kube_validate(struct kube_api *api, const struct kube_resource *res, const struct pb_node *o, const struct pb_node *old,
                   struct arena *a, struct kube_error *e)
{
        struct check c = { api, a, e };

        metadata(&c, res, o, old);
        if (res->bucket_id == kube_b.pods) {
                validate_pod_spec(&c, pb_get(o, "spec"), "spec");
                if (old)
                        validate_pod_update(&c, o, old);
        } else if (res->bucket_id == kube_b.services) {
                validate_service(&c, o, old);
        } else if (res->bucket_id == kube_b.deployments || res->bucket_id == kube_b.replicasets) {
                validate_workload(&c, o, old, res->bucket_id == kube_b.deployments);
        } else if (res->bucket_id == kube_b.configmaps || res->bucket_id == kube_b.secrets) {
                validate_config(&c, o, old, res->bucket_id == kube_b.secrets);
        } else if (res->bucket_id == kube_b.endpoints) {
                validate_endpoints(&c, o);
        } else if (res->bucket_id == kube_b.endpointslices) {
                validate_endpointslice(&c, o, old);
        }
        if (!e->ncauses)
                return true;
        kube_invalid(e, res, pb_get_str(o, "metadata.name", STR("")), a);
        return false;
}

/* ---- shape ---- */

/* The object without apiVersion and kind, which are not in the messages. Shares everything else. */
static struct pb_node body_of(const struct pb_node *o, struct arena *a)
{
        struct pb_node b = *o;

        b.keys = arena_alloc(a, (o->n + 1) * sizeof(*b.keys));
        b.v = arena_alloc(a, (o->n + 1) * sizeof(*b.v));
        b.key_at = o->key_at ? arena_alloc(a, (o->n + 1) * sizeof(*b.key_at)) : NULL;
        b.n = 0;
        for (size_t i = 0; i < o->n; i++) {
                if (str_eqc(o->keys[i], "apiVersion") || str_eqc(o->keys[i], "kind"))
                        continue;
                b.keys[b.n] = o->keys[i];
                if (b.key_at)
                        b.key_at[b.n] = o->key_at[i];
                b.v[b.n++] = o->v[i];
        }
        return b;
}

static void custom_shape(const struct kube_resource *res, struct pb_node *o, struct arena *a, struct diags *d)
{
        const ProtobufCMessageDescriptor *meta = pb_type(STR("k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta"));

        for (size_t i = 0; i < o->n; i++) {
                struct diag_at at = { .path = o->keys[i] };

                if (str_eqc(o->keys[i], "spec"))
                        pb_from_node(res->desc, o->v[i], PB_UNKNOWN_WARN, &at, a, d);
                else if (str_eqc(o->keys[i], "metadata"))
                        pb_from_node(meta, o->v[i], PB_UNKNOWN_WARN, &at, a, d);
                else if (!str_eqc(o->keys[i], "apiVersion") && !str_eqc(o->keys[i], "kind") && !str_eqc(o->keys[i], "status"))
                        diag_add(d, DIAG_WARNING, NULL, &at, "unknown field");
        }
}

/* Kubernetes' words, and behind them what was probably meant. */
static struct str unknown_field(const struct diag *g, struct arena *a)
{
        ptrdiff_t hint = str_find(g->text, STR(" (did you mean"));

        return arena_printf(a, "unknown field \"" STR_FMT "\"" STR_FMT, STR_ARG(g->path),
                            STR_ARG(hint < 0 ? STR("") : str_sub(g->text, (size_t)hint, g->text.n)));
}

static void strict_error(struct kube_req *r, const struct diags *d)
{
        struct buf b = BUF_INIT;

        for (size_t i = 0; i < d->n; i++)
                if (d->v[i].severity == DIAG_WARNING)
                        buf_printf(&b, "%s" STR_FMT, b.n ? ", " : "", STR_ARG(unknown_field(&d->v[i], r->a)));
        kube_req_error(r, 400, "BadRequest", "strict decoding error: " STR_FMT, STR_ARG(buf_view(&b)));
        buf_fini(&b);
}

static bool type_errors(struct kube_req *r, const struct kube_resource *res, struct pb_node *o, const struct diags *d)
{
        struct buf b = BUF_INIT;

        for (size_t i = 0; i < d->n; i++) {
                const struct diag *g = &d->v[i];

                if (g->severity != DIAG_ERROR)
                        continue;
                if (res->shape == KUBE_CUSTOM)
                        kube_error_cause(&r->err, r->a, "FieldValueTypeInvalid", g->path,
                                         arena_printf(r->a, "Invalid value: " STR_FMT, STR_ARG(g->text)));
                buf_printf(&b, "%s" STR_FMT ": " STR_FMT, b.n ? "; " : "", STR_ARG(g->path), STR_ARG(g->text));
        }
        if (res->shape == KUBE_CUSTOM)
                kube_invalid(&r->err, res, pb_get_str(o, "metadata.name", STR("")), r->a);
        else
                kube_req_error(r, 400, "BadRequest", "%s in version \"%s\" cannot be handled as a %s: " STR_FMT, res->kind, res->version,
                               res->kind, STR_ARG(buf_view(&b)));
        buf_fini(&b);
        return false;
}

/* A value of a wrong type is an error whatever the client says; an unknown field is as strict as fieldValidation asks (by default a
 * warning, as in Kubernetes) and is dropped then. */
bool kube_validate_shape(struct kube_req *r, const struct kube_resource *res, struct pb_node *o)
{
        struct str how = kube_query_get(r->query, "fieldValidation");
        struct diags d;
        bool ok = true;

        if (how.p && how.n && !str_eqc(how, "Strict") && !str_eqc(how, "Warn") && !str_eqc(how, "Ignore"))
                return kube_req_error(r, 422, "Invalid",
                                      "fieldValidation: Unsupported value: \"" STR_FMT
                                      "\": supported values: \"Ignore\", \"Strict\", \"Warn\"",
                                      STR_ARG(how));
        diags_init(&d);
        if (res->shape == KUBE_BUILTIN) {
                struct pb_node body = body_of(o, r->a);
                struct diag_at at = { 0 };

                pb_from_node(res->desc, &body, PB_UNKNOWN_WARN, &at, r->a, &d);
        } else {
                custom_shape(res, o, r->a, &d);
        }
        bool unknown = d.n > d.errors;
        if (d.errors) {
                ok = type_errors(r, res, o, &d);
        } else if (unknown && str_eqc(how, "Strict")) {
                strict_error(r, &d);
                ok = false;
        } else if (unknown) {
                for (size_t i = 0; i < d.n; i++)
                        if (!str_eqc(how, "Ignore"))
                                kube_req_warn(r, STR_FMT, STR_ARG(unknown_field(&d.v[i], r->a)));
                kube_prune(o, res);
        }
        diags_fini(&d);
        return ok;
}
