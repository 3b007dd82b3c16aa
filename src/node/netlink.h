/* rtnetlink, the little of it that a node needs: links, addresses, routes. A struct nl belongs to the network namespace it was opened
 * in, wherever the thread goes afterwards. Every call is one request and its acknowledgement; errors are -errno. */
#ifndef NODE_NETLINK_H
#define NODE_NETLINK_H

#include "net/addr.h"

struct nl {
        int fd;
        uint32_t seq;
};

int nl_open(struct nl *n); /* in the calling thread's namespace */
void nl_close(struct nl *n);

int nl_link_index(struct nl *n, const char *name); /* > 0, or -errno (-ENODEV: none of that name) */
/* A pair: `name` here, `peer` in the namespace that peer_ns_fd is open on (-1: here too). */
int nl_link_add_veth(struct nl *n, const char *name, const char *peer, int peer_ns_fd);
int nl_link_del(struct nl *n, const char *name); /* deleting one end of a pair deletes both */
int nl_link_up(struct nl *n, const char *name);

int nl_addr_add(struct nl *n, const char *dev, const struct addr *ip, unsigned bits); /* present already: 0 */
/* `via` NULL: directly on the link; `source` NULL: the kernel chooses our address. Replaces a route to the same prefix. */
int nl_route_set(struct nl *n, const struct cidr *to, const struct addr *via, const char *dev, const struct addr *source);
/* What no longer route covers is unreachable, at once, instead of following the default route. */
int nl_route_unreachable(struct nl *n, const struct cidr *to);
/* The index of the device that packets to `to` leave by, or -errno. */
int nl_route_dev(struct nl *n, const struct addr *to);

#endif
