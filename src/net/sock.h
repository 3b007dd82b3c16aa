/* Sockets: the calls, with the options that proxies set. All non-blocking and close-on-exec. */
#ifndef NET_SOCK_H
#define NET_SOCK_H

#include "net/addr.h"

struct sock_keepalive {
        bool on;
        unsigned time_s, interval_s, probes; /* 0: the kernel's */
};

struct sock_listen_opts {
        int backlog; /* 0: SOMAXCONN */
        bool reuse_port;
        bool transparent; /* IP_TRANSPARENT */
        bool v6_only;
        bool freebind;
        unsigned unix_mode; /* for Unix sockets; 0: leave */
};

/* The fd, or -errno. A stale Unix socket file that nobody listens on is removed first. */
int sock_listen(const struct addr *a, const struct sock_listen_opts *o);
/* The fd, or -errno (-EAGAIN: no more). Accepted sockets get TCP_NODELAY. */
int sock_accept(int lfd, struct addr *peer);
/* Starts to connect: the fd, connected or in progress, or -errno. `source` may be NULL. */
int sock_connect(const struct addr *a, const struct addr *source, unsigned mark);
int sock_error(int fd); /* SO_ERROR, as a positive errno or 0 */
bool sock_local(int fd, struct addr *a);
bool sock_peer(int fd, struct addr *a);
/* The destination before nftables/iptables REDIRECT (SO_ORIGINAL_DST, IP6T_SO_ORIGINAL_DST). */
bool sock_original_dst(int fd, struct addr *a);
void sock_keepalive(int fd, const struct sock_keepalive *k);
void sock_nodelay(int fd);
void sock_linger_reset(int fd); /* close() sends RST */

/* Runs fn in another network namespace (a path such as /run/netns/x or /proc/N/ns/net) on the calling thread, then returns to the
 * thread's own. fn's return value, or -errno when the namespace cannot be entered. Aborts when there is no way back. */
int sock_in_netns(const char *ns_path, int (*fn)(void *arg), void *arg);

#endif
