/* The table of HTTP filters. See filter.h. */
#include "proxy/filter.h"

#include "envoy/route.pb-c.h"
#include "google/any.pb-c.h"
#include "proxy/ext.h"

static const struct http_filter *const filters[] = {
        &http_filter_router,     &http_filter_fault,         &http_filter_cors,        &http_filter_grpc_stats,
        &http_filter_istio_alpn, &http_filter_peer_metadata, &http_filter_istio_stats,
};

const struct http_filter *http_filter_find(struct str type)
{
        for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
                if (str_eqc(type, filters[i]->type))
                        return filters[i];
        return NULL;
}

static const struct http_filter *find_route_type(struct str type)
{
        for (size_t i = 0; i < sizeof(filters) / sizeof(filters[0]); i++)
                if (filters[i]->route_type && str_eqc(type, filters[i]->route_type))
                        return filters[i];
        return NULL;
}

bool http_filter_route_config(struct server *s, struct config_mem *m, const struct Gp__Any *any, struct route_filter_config *out,
                              const struct diag_at *at, struct diags *d)
{
        struct ext e;
        bool optional = false;

        if (!ext_read(any, &m->scratch, at, d, &e))
                return false;
        if (str_eqc(e.type, "envoy.config.route.v3.FilterConfig")) {
                const struct Xds__FilterConfig *w = (const struct Xds__FilterConfig *)e.msg;

                optional = w->is_optional;
                out->disabled = w->disabled;
                if (!w->config)
                        return w->disabled;
                if (!ext_read(w->config, &m->scratch, at, d, &e))
                        return false;
        }
        out->filter = find_route_type(e.type);
        if (!out->filter) {
                diag_add(d, optional ? DIAG_WARNING : DIAG_ERROR, NULL, at,
                         "route configuration for HTTP filter \"" STR_FMT "\" is not supported", STR_ARG(e.type));
                return false;
        }
        out->config = out->filter->build_route(s, m, e.msg, at, d);
        return out->config != NULL;
}
