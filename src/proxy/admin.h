/* The admin interface: HTTP on the bootstrap's admin.address, in Envoy's shapes. And Istio's two ports. Main thread. */
#ifndef PROXY_ADMIN_H
#define PROXY_ADMIN_H

#include "base/diag.h"
#include "proxy/server.h"

struct admin;

/* NULL with a diagnostic when a port cannot be had. A server without an admin address has no admin interface. */
struct admin *admin_new(struct server *s, struct diags *d);
void admin_free(struct admin *a);

#endif
