#include "xds/xds.h"

#include <assert.h>

static const struct {
        const char *url, *name;
        bool wildcard;
} types[XDS_TYPES] = {
        [XDS_CDS] = { "type.googleapis.com/envoy.config.cluster.v3.Cluster", "CDS", true },
        [XDS_EDS] = { "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment", "EDS", false },
        [XDS_LDS] = { "type.googleapis.com/envoy.config.listener.v3.Listener", "LDS", true },
        [XDS_RDS] = { "type.googleapis.com/envoy.config.route.v3.RouteConfiguration", "RDS", false },
        [XDS_SDS] = { "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "SDS", false },
};

const char *xds_type_url(enum xds_type t)
{
        return types[t].url;
}

const char *xds_type_name(enum xds_type t)
{
        return types[t].name;
}

int xds_type_of(struct str type_url)
{
        for (int i = 0; i < XDS_TYPES; i++)
                if (str_eqc(type_url, types[i].url))
                        return i;
        return -1;
}

bool xds_type_wildcard(enum xds_type t)
{
        return types[t].wildcard;
}

struct xds_config *xds_config_ref(struct xds_config *c)
{
        c->refs++;
        return c;
}

void xds_config_unref(struct xds_config *c)
{
        if (!c)
                return;
        assert(c->refs > 0);
        if (--c->refs == 0)
                c->free_fn(c);
}
