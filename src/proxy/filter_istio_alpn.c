/* Istio's ALPN filter: which application protocols a TLS connection to the upstream offers, by the request's protocol. It matters where a
 * proxy originates TLS; connections in clear text take no notice. The lists are kept with the configuration. */
#include "envoy/istio_alpn.pb-c.h"
#include "proxy/hcm.h"

struct alpn {
        struct str *offer[3]; /* by protocol: HTTP/1.0, HTTP/1.1, HTTP/2 */
        size_t n[3];
};

static void *alpn_build(struct server *s, struct config_mem *m, const ProtobufCMessage *config, const struct diag_at *at, struct diags *d)
{
        const struct XdsAlpn__FilterConfig *p = (const struct XdsAlpn__FilterConfig *)config;
        struct alpn *a = ARENA_NEW(&m->arena, struct alpn);

        for (size_t i = 0; i < p->n_alpn_override; i++) {
                const struct XdsAlpn__FilterConfig__AlpnOverride *o = p->alpn_override[i];
                unsigned k = (unsigned)o->upstream_protocol;

                if (k > 2) {
                        diag_add(d, DIAG_ERROR, NULL, at, "alpn_override[%zu].upstream_protocol is none of HTTP10, HTTP11, HTTP2", i);
                        return NULL;
                }
                a->n[k] = o->n_alpn_override;
                a->offer[k] = arena_zalloc(&m->arena, (o->n_alpn_override + 1) * sizeof(struct str));
                for (size_t j = 0; j < o->n_alpn_override; j++)
                        a->offer[k][j] = arena_str(&m->arena, str_of(o->alpn_override[j]));
        }
        return a;
}

const struct http_filter http_filter_istio_alpn = {
        .type = "istio.envoy.config.filter.http.alpn.v2alpha1.FilterConfig",
        .build = alpn_build,
};
