/* How an object looks to the client that asks: whole, as a row of a Table, or as metadata only. */
#include "kube/api.h"

#include "base/clock.h"
#include "base/mem.h"

/* ---- Accept ---- */

static struct str param(struct str range, const char *name)
{
        struct str rest = range, part;

        while (str_next(&rest, ';', &part)) {
                ptrdiff_t eq = str_chr(part, '=');

                if (eq > 0 && str_eqc(str_trim(str_sub(part, 0, (size_t)eq)), name))
                        return str_trim(str_sub(part, (size_t)eq + 1, part.n));
        }
        return STR("");
}

/* One media range: can we write that? */
static bool try_range(struct kube_req *r, struct str range)
{
        struct str rest = range, type, as = param(range, "as"), version = param(range, "v");

        str_next(&rest, ';', &type);
        type = str_trim(type);
        if (!str_eqc(type, "application/json") && !str_eqc(type, "*/*") && !str_eqc(type, "application/*"))
                return false;
        if (!as.n) {
                r->view.format = KUBE_FMT_JSON;
                return true;
        }
        if (!str_eqc(param(range, "g"), "meta.k8s.io") || (!str_eqc(version, "v1") && !str_eqc(version, "v1beta1")))
                return false;
        r->view.table_v1beta1 = str_eqc(version, "v1beta1");
        if (str_eqc(as, "Table"))
                r->view.format = KUBE_FMT_TABLE;
        else if (str_eqc(as, "PartialObjectMetadata") || str_eqc(as, "PartialObjectMetadataList"))
                r->view.format = KUBE_FMT_PARTIAL;
        else
                return false;
        return true;
}

bool kube_view_parse_accept(struct kube_req *r)
{
        struct str rest = r->accept, range, include = kube_query_get(r->query, "includeObject");

        r->view.include = str_eqc(include, "Object") ? KUBE_ROW_OBJECT : str_eqc(include, "None") ? KUBE_ROW_NONE : KUBE_ROW_METADATA;
        if (!r->accept.n || kube_req_is_proxy(r))
                return true;
        while (str_next(&rest, ',', &range))
                if (try_range(r, str_trim(range)))
                        return true;
        return kube_req_error(r, 406, "NotAcceptable", "only the following media types are accepted: application/json");
}

/* ---- events.k8s.io: the same events under other names ---- */

static void move_key(struct arena *a, struct pb_node *o, const char *from, const char *to)
{
        struct pb_node *v = pb_get(o, from);

        if (v) {
                pb_del(o, from);
                pb_put(a, o, str_of(to), v);
        }
}

static void event_v1_json(const struct kobj *o, const struct kube_resource *res, struct buf *out)
{
        struct arena a;

        arena_init(&a, 4096);
        struct pb_node *n = pb_clone(&a, o->node);
        pb_put_str(&a, n, "apiVersion", str_of(kube_api_version(res)));
        move_key(&a, n, "involvedObject", "regarding");
        move_key(&a, n, "message", "note");
        move_key(&a, n, "source", "deprecatedSource");
        move_key(&a, n, "firstTimestamp", "deprecatedFirstTimestamp");
        move_key(&a, n, "lastTimestamp", "deprecatedLastTimestamp");
        move_key(&a, n, "count", "deprecatedCount");
        move_key(&a, n, "reportingComponent", "reportingController");
        pb_node_json(n, out);
        arena_fini(&a);
}

static void object_json(const struct kube_view_opts *v, const struct kobj *o, struct buf *out)
{
        if (o->bucket == kube_b.events && !strcmp(v->res->group, "events.k8s.io"))
                event_v1_json(o, v->res, out);
        else
                kobj_json(o, v->res, out);
}

static void partial_json(const struct kube_view_opts *v, const struct kobj *o, struct buf *out)
{
        buf_printf(out, "{\"kind\":\"PartialObjectMetadata\",\"apiVersion\":\"meta.k8s.io/%s\",\"metadata\":",
                   v->table_v1beta1 ? "v1beta1" : "v1");
        pb_node_json(pb_get(o->node, "metadata"), out);
        buf_char(out, '}');
}

void kube_view_object(const struct kube_view_opts *v, struct kube_api *api, const struct kobj *o, struct buf *out)
{
        if (v->format == KUBE_FMT_TABLE)
                kube_table_one(v, api, o, out);
        else if (v->format == KUBE_FMT_PARTIAL)
                partial_json(v, o, out);
        else
                object_json(v, o, out);
}

void kube_view_list(const struct kube_req *r, struct kobj *const *v, size_t n, struct str list_meta_json, struct buf *out)
{
        bool partial = r->view.format == KUBE_FMT_PARTIAL;

        if (r->view.format == KUBE_FMT_TABLE) {
                kube_table_list(r, v, n, list_meta_json, out);
                return;
        }
        if (partial)
                buf_printf(out, "{\"kind\":\"PartialObjectMetadataList\",\"apiVersion\":\"meta.k8s.io/%s\"",
                           r->view.table_v1beta1 ? "v1beta1" : "v1");
        else
                buf_printf(out, "{\"kind\":\"%sList\",\"apiVersion\":\"%s\"", r->res->kind, kube_api_version(r->res));
        buf_printf(out, ",\"metadata\":" STR_FMT ",\"items\":[", STR_ARG(list_meta_json));
        for (size_t i = 0; i < n; i++) {
                if (i)
                        buf_char(out, ',');
                if (partial)
                        partial_json(&r->view, v[i], out);
                else
                        object_json(&r->view, v[i], out);
        }
        buf_cstr(out, "]}\n");
}
