/* The cluster DNS: UDP and TCP on the tenth address of the service range, inside the node's namespace; forwards what it does not know to
 * the host's resolvers, from the host's namespace (not --offline). */
#ifndef NODE_DNSSERVER_H
#define NODE_DNSSERVER_H

#include "base/diag.h"
#include "node/pod.h"

struct dns_server *dns_server_new(struct node *n, struct diags *d);
void dns_server_free(struct dns_server *s); /* NULL: nothing */

#endif
