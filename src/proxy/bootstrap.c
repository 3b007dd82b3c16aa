#include "proxy/bootstrap.h"

#include "base/mem.h"
#include "pb/pb.h"
#include "proxy/ext.h"
#include "proxy/support.h"

#include "envoy/bootstrap.pb-c.h"
#include "envoy/core.pb-c.h"
#include "google/any.pb-c.h"

#include <stdlib.h>

enum { BOOTSTRAP_MAX_BYTES = 256 << 20 };

static struct pb_node *parse(struct str text, struct str name, struct arena *a, struct diags *d)
{
        struct pb_node **docs = NULL, *root = NULL;
        size_t n = 0;
        struct diag_at at = { .file = name };

        if (str_ends(name, STR(".json"))) {
                if (!pb_parse_json(text, name, a, &root, d))
                        return NULL;
        } else {
                if (!pb_parse_yaml(text, name, a, &docs, &n, d))
                        return NULL;
                if (n > 1) {
                        diag_add(d, DIAG_ERROR, NULL, &at, "holds %zu documents; a bootstrap is one", n);
                        return NULL;
                }
                root = n ? docs[0] : NULL;
        }
        if (!root || root->kind != PB_MAP) {
                diag_add(d, DIAG_ERROR, NULL, &at, "is not a bootstrap: a map is wanted");
                return NULL;
        }
        return root;
}

/* Protobuf's merge, on nodes: maps merge, lists grow, everything else is replaced. */
static void merge(struct arena *a, struct pb_node *into, const struct pb_node *from)
{
        for (size_t i = 0; i < from->n; i++) {
                struct pb_node *had = NULL;

                for (size_t k = 0; k < into->n; k++)
                        if (str_eq(into->keys[k], from->keys[i]))
                                had = into->v[k];
                if (had && had->kind == PB_MAP && from->v[i]->kind == PB_MAP)
                        merge(a, had, from->v[i]);
                else if (had && had->kind == PB_LIST && from->v[i]->kind == PB_LIST)
                        for (size_t k = 0; k < from->v[i]->n; k++)
                                pb_push(a, had, from->v[i]->v[k]);
                else
                        pb_put(a, into, from->keys[i], from->v[i]);
        }
}

static char *own(struct arena *a, struct str s)
{
        return arena_cstr(a, s);
}

static void identity(Xds__Bootstrap *b, const struct server_opts *o, struct arena *a)
{
        if (!b->node) {
                b->node = arena_zalloc(a, sizeof(*b->node));
                xds__node__init(b->node);
        }
        if (o->service_node.n)
                b->node->id = own(a, o->service_node);
        if (o->service_cluster.n)
                b->node->cluster = own(a, o->service_cluster);
        if (o->service_zone.n) {
                if (!b->node->locality) {
                        b->node->locality = arena_zalloc(a, sizeof(*b->node->locality));
                        xds__locality__init(b->node->locality);
                }
                b->node->locality->zone = own(a, o->service_zone);
        }
        if (!b->node->user_agent_name)
                b->node->user_agent_name = own(a, STR("postern"));
        if (!b->node->user_agent_version_type_case) {
                b->node->user_agent_version_type_case = XDS__NODE__USER_AGENT_VERSION_TYPE_USER_AGENT_VERSION;
                b->node->user_agent_version = own(a, STR(POSTERN_VERSION));
        }
}

struct Xds__Bootstrap *bootstrap_load(const struct server_opts *o, struct arena *a, struct diags *d)
{
        struct pb_node *root = NULL, *over = NULL;
        struct str name = o->config_name.n ? o->config_name : o->config_path;
        struct buf text = BUF_INIT;
        struct diag_at at = { .file = name };
        Xds__Bootstrap *b;

        if (o->config_path.n) {
                int rc = buf_read_file(&text, arena_cstr(a, o->config_path), BOOTSTRAP_MAX_BYTES);

                if (rc) {
                        diag_add(d, DIAG_ERROR, NULL, &at, "cannot read: %s", strerror(-rc));
                        return NULL;
                }
                root = parse(arena_str(a, buf_view(&text)), o->config_path, a, d);
                buf_fini(&text);
                if (!root)
                        return NULL;
        }
        if (o->config_yaml.n) {
                over = parse(o->config_yaml, o->config_name.n ? o->config_name : STR("--config-yaml"), a, d);
                if (!over)
                        return NULL;
        }
        if (root && over)
                merge(a, root, over);
        else if (over)
                root = over;
        if (!root) {
                diag_add(d, DIAG_ERROR, NULL, &at, "no configuration: give -c FILE or --config-yaml TEXT");
                return NULL;
        }
        b = (Xds__Bootstrap *)pb_from_node(&xds__bootstrap__descriptor, root, 0, &at, a, d);
        if (!b || !support_check(&b->base, &at, a, d))
                return NULL;
        identity(b, o, a);
        return b;
}
