/* Virtual addresses of Services: an nftables table in the node's namespace that maps (ClusterIP, protocol, port) to a ready endpoint. The
 * whole table is replaced in one transaction; connections under way keep the endpoint they have (conntrack). */
#ifndef NODE_SERVICE_H
#define NODE_SERVICE_H

#include "base/buf.h"
#include "net/addr.h"

struct service_port {
        struct addr vip; /* IPv4; its port is the Service's */
        bool udp;
        bool client_ip;               /* sessionAffinity: ClientIP: an endpoint by the hash of the client's address */
        const struct addr *endpoints; /* IPv4, with port */
        size_t nendpoints;            /* 0: connections are refused */
};

/* Appends the script. `dns` is the one address of `range` that the node itself answers on. Any other address of the range that no port
 * claims is refused as well, at once instead of by a time-out. */
void service_script(const struct service_port *v, size_t n, const struct cidr *range, const struct addr *dns, struct buf *script);
int service_apply(const char *netns, const struct service_port *v, size_t n, const struct cidr *range, const struct addr *dns,
                  struct buf *error);

#endif
