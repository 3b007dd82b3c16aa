/* The names that this cluster knows: Services, endpoints and pods below the cluster's domain, and, offline, the small Internet. */
#ifndef NODE_DNSZONE_H
#define NODE_DNSZONE_H

#include "node/dnsanswer.h"
#include "node/pod.h"

enum dns_lookup dnszone_lookup(void *node, struct str name, enum dns_kind kind, struct dns_found *found);

#endif
