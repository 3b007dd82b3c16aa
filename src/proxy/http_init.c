/* Ties the HTTP room to the proxy's frame. */
#include "proxy/hcm.h"

void proxy_http_init(struct server *s)
{
        s->cluster_http = &cluster_http_hooks;
}
