/* From the model to Envoy's API: what one proxy must be told. Pure: the same snapshot and the same proxy give the same bytes. Names and
 * contents follow Istio's, field by field. Added on purpose:
 *
 * - metadata.filter_metadata["postern"].reason, a sentence with access-log operators, wherever traffic ends for want of configuration: the
 *   route of `block_all`, the chains that lead to BlackHoleCluster, that cluster itself, and clusters whose DestinationRule asks for TLS
 * that cannot be done (they have no hosts). A stock Envoy ignores it; our proxy puts it into the response and the log.
 * - With meshConfig.enableTracing, HttpConnectionManager.tracing.provider: Zipkin's, in its mode for B3 and W3C, collecting into
 *   BlackHoleCluster. It means: make and pass on trace context. Without it there is no provider, as in Istio without one.
 *
 * A translator keeps what it has made: a cluster, a virtual host, a filter chain is made once per content and shared by all proxies
 * that see it; an object that changed costs its own parts, not the rest. One thread uses it, with snapshots of one mesh. */
#ifndef TRANSLATE_TRANSLATE_H
#define TRANSLATE_TRANSLATE_H

#include "envoy/core.pb-c.h"
#include "mesh/mesh.h"

enum translate_type { /* in the order in which they must reach a proxy */
                      TRANSLATE_CLUSTERS,
                      TRANSLATE_ENDPOINTS,
                      TRANSLATE_LISTENERS,
                      TRANSLATE_ROUTES,
                      TRANSLATE_TYPES,
};

extern const char *const translate_type_url[TRANSLATE_TYPES]; /* "type.googleapis.com/envoy.config.cluster.v3.Cluster", … */
int translate_type_of(struct str type_url);                   /* enum translate_type, or -1 */

enum translate_role { TRANSLATE_SIDECAR, TRANSLATE_ROUTER };

/* Who asks. From the node of its first request, or made by hand. */
struct translate_proxy {
        enum translate_role role;
        struct str id; /* "curl.curl": the pod's name and namespace */
        struct str ip; /* the first address; decides which Services are its own */
        struct str ns;
        struct str domain; /* "curl.svc.cluster.local" */
        struct str service_account, cluster_id, mesh_id;
        struct mesh_labels labels;
        bool ipv4, ipv6; /* families of its addresses */
};

/* Reads "sidecar~10.244.0.8~curl.curl~curl.svc.cluster.local" and the metadata that Istio's agents send (NAMESPACE, LABELS,
 * SERVICE_ACCOUNT, CLUSTER_ID, MESH_ID, INSTANCE_IPS). Strings are copied into `a`. False with a diagnostic when the id is not of that
 * form. */
bool translate_proxy_parse(const Xds__Node *node, struct arena *a, struct translate_proxy *out, struct diags *d);

/* One resource as it goes over the wire. Immutable and shared; keep it with translate_resource_ref(). */
struct translate_resource {
        unsigned refs;
        struct str name;
        struct str bytes; /* the packed message, without the Any around it */
        uint64_t hash;    /* of `bytes`: the version of this resource */
};

struct translate_resource *translate_resource_ref(struct translate_resource *r);
void translate_resource_unref(struct translate_resource *r);

/* Everything for one proxy. Immutable, reference-counted, independent of the translator once made. */
struct translate_config {
        unsigned refs;
        struct {
                struct translate_resource **v; /* by name */
                size_t n;
                uint64_t hash; /* over all of them: unchanged means that nothing needs to be sent */
        } of[TRANSLATE_TYPES];
};

struct translator;

struct translator *translator_new(void);
void translator_free(struct translator *t);
/* The resources for `p` under `s`. Never fails: what cannot be translated is left out and reported in `d` (may be NULL) as a warning with
 * the object and field it comes from. Release with translate_config_unref(). */
struct translate_config *translate_build(struct translator *t, struct mesh_snapshot *s, const struct translate_proxy *p, struct diags *d);
void translate_config_unref(struct translate_config *c);
struct translate_resource *translate_find(const struct translate_config *c, enum translate_type type,
                                          struct str name); /* borrowed, or NULL */
/* Forgets parts that no configuration uses any more, and what no proxy asked for in the last few rounds. After a round of translate_build()
 * for all proxies. */
void translator_sweep(struct translator *t);

struct translator_stats {
        uint64_t parts_made, parts_reused, bytes_made;
        size_t parts_kept;
};
void translator_get_stats(const struct translator *t, struct translator_stats *out);

#endif
