/* See peer_info.h. */
#include "proxy/peer_info.h"

#include "base/base64.h"
#include "base/mem.h"
#include "envoy/core.pb-c.h"
#include "google/struct.pb-c.h"
#include "pb/pb.h"
#include "proxy/ext.h"
#include "proxy/server.h"

enum { PEER_METADATA_MAX = 16384 };

/* What Istio's proxies exchange, in the order of the encoding. */
static const char *const exchanged[] = {
        "APP_CONTAINERS", "CLUSTER_ID", "INSTANCE_IPS", "ISTIO_VERSION", "LABELS", "MESH_ID", "NAME", "NAMESPACE", "OWNER", "WORKLOAD_NAME",
};

static struct str encode(struct str s, struct arena *a)
{
        struct buf b = BUF_INIT;

        base64_print(&b, s.p, s.n);
        struct str out = arena_str(a, buf_view(&b));

        buf_fini(&b);
        return out;
}

static bool decode(struct str s, struct arena *a, struct str *out)
{
        char *p = arena_alloc(a, s.n / 4 * 3 + 4);

        while (s.n && s.p[s.n - 1] == '=')
                s.n--;
        out->p = p;
        return base64_decode(s, BASE64_STANDARD, p, &out->n);
}

struct str peer_metadata_encode(const struct server *s, struct arena *a)
{
        const struct Gp__Struct *all = s->node ? s->node->metadata : NULL;
        struct Gp__Struct__FieldsEntry *fields[ARRAY_LEN(exchanged)];
        struct Gp__Struct some = GP__STRUCT__INIT;
        struct buf packed = BUF_INIT;
        struct str v;

        if (!all)
                return str_make("", 0);
        some.fields = fields;
        for (size_t i = 0; i < ARRAY_LEN(exchanged); i++)
                for (size_t k = 0; k < all->n_fields; k++)
                        if (all->fields[k]->key && strcmp(all->fields[k]->key, exchanged[i]) == 0) {
                                fields[some.n_fields++] = all->fields[k];
                                break;
                        }
        if (!some.n_fields)
                return str_make("", 0);
        pb_pack(&some.base, &packed);
        v = encode(buf_view(&packed), a);
        buf_fini(&packed);
        return v;
}

static struct str label(const struct Gp__Struct *labels, const char *key)
{
        return labels ? struct_str(labels, key) : str_make("", 0);
}

static struct peer_info *info_of(const struct Gp__Struct *s, struct arena *a)
{
        struct peer_info *p = ARENA_NEW(a, struct peer_info);
        const struct Gp__Value *v = struct_value(s, STR("LABELS"));
        const struct Gp__Struct *labels = v && v->kind_case == GP__VALUE__KIND_STRUCT_VALUE ? v->struct_value : NULL;

        p->workload = struct_str(s, "WORKLOAD_NAME");
        p->namespace = struct_str(s, "NAMESPACE");
        p->cluster = struct_str(s, "CLUSTER_ID");
        p->canonical_name = label(labels, "service.istio.io/canonical-name");
        p->canonical_revision = label(labels, "service.istio.io/canonical-revision");
        p->app = label(labels, "app");
        p->version = label(labels, "version");
        if (!p->canonical_name.n)
                p->canonical_name = p->app.n ? p->app : p->workload;
        if (!p->canonical_revision.n)
                p->canonical_revision = p->version.n ? p->version : STR("latest");
        return p;
}

struct peer_info *peer_metadata_decode(struct str base64, struct arena *a)
{
        ProtobufCMessage *m;
        struct str bytes;

        if (base64.n > PEER_METADATA_MAX || !decode(base64, a, &bytes))
                return NULL;
        m = pb_unpack(&gp__struct__descriptor, bytes.p, bytes.n, a, NULL);
        return m ? info_of((const struct Gp__Struct *)m, a) : NULL;
}

struct peer_info *peer_info_self(const struct server *s, struct arena *a)
{
        static const struct Gp__Struct none = GP__STRUCT__INIT;

        return info_of(s->node && s->node->metadata ? s->node->metadata : &none, a);
}
