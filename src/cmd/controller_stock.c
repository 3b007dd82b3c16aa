/* A stock Envoy does not have Istio's own filters (peer metadata, ALPN override, telemetry) and refuses a configuration that names one. It
 * says in its node which extensions it has, so for a client that lists them and has none of Istio's, those filters are left out: it routes
 * as the others do, and what it lacks is their telemetry. */
#include "base/mem.h"
#include "cmd/controller.h"
#include "envoy/cluster.pb-c.h"
#include "envoy/hcm.pb-c.h"
#include "envoy/listener.pb-c.h"
#include "pb/pb.h"

#include <stdlib.h>

static bool istio_name(const char *name)
{
        return name && strncmp(name, "istio.", 6) == 0;
}

bool controller_is_stock(const Xds__Node *node)
{
        for (size_t i = 0; i < node->n_extensions; i++)
                if (istio_name(node->extensions[i]->name))
                        return false;
        return node->n_extensions > 0;
}

static bool strip_http(Gp__Any *any, struct arena *a, struct buf *packed)
{
        static const char hcm_type[] =
                "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
        size_t n = 0;

        if (!any || !any->type_url || strcmp(any->type_url, hcm_type) != 0)
                return false;
        Xds__HttpConnectionManager *m = (Xds__HttpConnectionManager *)pb_unpack(pb_type_url(str_of(hcm_type)), any->value.data,
                                                                                any->value.len, a, NULL);
        if (!m)
                return false;
        for (size_t i = 0; i < m->n_http_filters; i++)
                if (!istio_name(m->http_filters[i]->name))
                        m->http_filters[n++] = m->http_filters[i];
        m->n_http_filters = n;
        packed->n = 0;
        pb_pack(&m->base, packed);
        any->value.data = arena_dup(a, packed->p, packed->n);
        any->value.len = packed->n;
        return true;
}

static void strip_chain(Xds__FilterChain *c, struct arena *a, struct buf *scratch)
{
        size_t n = 0;

        for (size_t i = 0; c && i < c->n_filters; i++) {
                if (istio_name(c->filters[i]->name))
                        continue;
                strip_http(c->filters[i]->typed_config, a, scratch);
                c->filters[n++] = c->filters[i];
        }
        if (c)
                c->n_filters = n;
}

static const ProtobufCMessage *strip(enum xds_type t, struct str bytes, struct arena *a, struct buf *scratch)
{
        ProtobufCMessage *m = pb_unpack(pb_type_url(str_of(xds_type_url(t))), bytes.p, bytes.n, a, NULL);

        if (m && t == XDS_CDS) {
                Xds__Cluster *c = (Xds__Cluster *)m;
                size_t n = 0;

                for (size_t i = 0; i < c->n_filters; i++)
                        if (!istio_name(c->filters[i]->name))
                                c->filters[n++] = c->filters[i];
                c->n_filters = n;
        } else if (m && t == XDS_LDS) {
                Xds__Listener *l = (Xds__Listener *)m;

                for (size_t i = 0; i < l->n_filter_chains; i++)
                        strip_chain(l->filter_chains[i], a, scratch);
                strip_chain(l->default_filter_chain, a, scratch);
        }
        return m;
}

void controller_strip(enum xds_type t, struct xds_item *i, struct arena *keep)
{
        struct buf out = BUF_INIT, scratch = BUF_INIT;
        struct arena a;

        if (t != XDS_CDS && t != XDS_LDS)
                return;
        arena_init(&a, 16384);
        const ProtobufCMessage *m = strip(t, i->bytes, &a, &scratch);
        if (m) {
                pb_pack(m, &out);
                i->bytes = arena_str(keep, buf_view(&out)); /* the hash still changes with the content */
        }
        arena_fini(&a);
        buf_fini(&out);
        buf_fini(&scratch);
}
