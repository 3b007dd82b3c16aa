/* Between the discovery client (src/xds) and what it feeds: clusters, endpoints, listeners, routes. Main thread. */
#ifndef PROXY_XDS_LINK_H
#define PROXY_XDS_LINK_H

#include "proxy/server.h"
#include "xds/xds.h"

struct xds_link;

/* Reads dynamic_resources. NULL with diagnostics on error. A bootstrap without dynamic resources gives a link that does nothing. */
struct xds_link *xds_link_new(struct server *s, struct diags *d);
void xds_link_free(struct xds_link *x);
/* Starts to ask: clusters first; listeners once those are initialised (xds_link_clusters_ready()). */
void xds_link_start(struct xds_link *x);
void xds_link_clusters_ready(struct xds_link *x);
/* The first CDS and LDS answers are in (or nothing is dynamic). */
bool xds_link_ready(const struct xds_link *x);
const struct xds_client *xds_link_client(const struct xds_link *x); /* NULL: no ADS */
/* Version texts of the last accepted CDS and LDS, for dumps. */
struct str xds_link_version(const struct xds_link *x, enum xds_type t);

#endif
