/* Socket calls. Every socket made here is non-blocking and close-on-exec from birth, so no other thread's fork() can leak it. */
#include "net/sock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/netfilter_ipv4.h>
#include <netinet/tcp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#ifndef IP6T_SO_ORIGINAL_DST
#define IP6T_SO_ORIGINAL_DST 80 /* linux/netfilter_ipv6/ip6_tables.h clashes with libc's headers */
#endif

static int set_int(int fd, int level, int name, int v)
{
        return setsockopt(fd, level, name, &v, sizeof(v)) < 0 ? -errno : 0;
}

/* A path that refuses connections is left over from a process that died. */
static void remove_stale_unix(const struct addr *a)
{
        struct stat st;

        if (a->sa.sa_family != AF_UNIX || a->un.sun_path[0] == '\0' || lstat(a->un.sun_path, &st) < 0 || !S_ISSOCK(st.st_mode))
                return;
        int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return;
        if (connect(fd, &a->sa, a->len) < 0 && errno == ECONNREFUSED)
                unlink(a->un.sun_path);
        close(fd);
}

static int listen_options(int fd, const struct addr *a, const struct sock_listen_opts *o)
{
        bool v6 = a->sa.sa_family == AF_INET6;
        int r = 0;

        if (a->sa.sa_family == AF_UNIX)
                return 0;
        r = set_int(fd, SOL_SOCKET, SO_REUSEADDR, 1);
        if (r == 0) /* what accept(2) returns inherits it */
                r = set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
        if (r == 0 && o->reuse_port)
                r = set_int(fd, SOL_SOCKET, SO_REUSEPORT, 1);
        if (r == 0 && v6)
                r = set_int(fd, IPPROTO_IPV6, IPV6_V6ONLY, o->v6_only);
        if (r == 0 && o->transparent)
                r = v6 ? set_int(fd, IPPROTO_IPV6, IPV6_TRANSPARENT, 1) : set_int(fd, IPPROTO_IP, IP_TRANSPARENT, 1);
        if (r == 0 && o->freebind)
                r = v6 ? set_int(fd, IPPROTO_IPV6, IPV6_FREEBIND, 1) : set_int(fd, IPPROTO_IP, IP_FREEBIND, 1);
        return r;
}

int sock_listen(const struct addr *a, const struct sock_listen_opts *o)
{
        static const struct sock_listen_opts none;

        if (!o)
                o = &none;
        int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        int r = listen_options(fd, a, o);
        if (r == 0) {
                remove_stale_unix(a);
                if (bind(fd, &a->sa, a->len) < 0)
                        r = -errno;
        }
        if (r == 0 && a->sa.sa_family == AF_UNIX && o->unix_mode && a->un.sun_path[0] && chmod(a->un.sun_path, o->unix_mode) < 0)
                r = -errno;
        if (r == 0 && listen(fd, o->backlog > 0 ? o->backlog : SOMAXCONN) < 0)
                r = -errno;
        if (r < 0) {
                close(fd);
                return r;
        }
        return fd;
}

int sock_accept(int lfd, struct addr *peer)
{
        struct addr a;
        int fd;

        memset(&a, 0, sizeof(a));
        do {
                a.len = sizeof(a.un);
                fd = accept4(lfd, &a.sa, &a.len, SOCK_NONBLOCK | SOCK_CLOEXEC);
        } while (fd < 0 && (errno == EINTR || errno == ECONNABORTED));
        if (fd < 0)
                return -errno;
        if (peer)
                *peer = a;
        return fd;
}

int sock_connect(const struct addr *a, const struct addr *source, unsigned mark)
{
        if (!a->len)
                return -EDESTADDRREQ;
        int fd = socket(a->sa.sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
        if (fd < 0)
                return -errno;
        int r = 0;
        if (mark)
                r = set_int(fd, SOL_SOCKET, SO_MARK, (int)mark);
        if (r == 0 && a->sa.sa_family != AF_UNIX)
                sock_nodelay(fd);
        if (r == 0 && source && source->len) {
                /* Without a fixed port the kernel may choose it at connect(2), when it knows the destination: more ports. */
                if (addr_port(source) == 0 && source->sa.sa_family != AF_UNIX)
                        set_int(fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1);
                if (bind(fd, &source->sa, source->len) < 0)
                        r = -errno;
        }
        while (r == 0 && connect(fd, &a->sa, a->len) < 0) {
                if (errno == EINPROGRESS || errno == EINTR)
                        break;
                r = -errno;
        }
        if (r < 0) {
                close(fd);
                return r;
        }
        return fd;
}

int sock_error(int fd)
{
        int e = 0;
        socklen_t n = sizeof(e);

        return getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &n) < 0 ? errno : e;
}

bool sock_local(int fd, struct addr *a)
{
        memset(a, 0, sizeof(*a));
        a->len = sizeof(a->un);
        if (getsockname(fd, &a->sa, &a->len) == 0)
                return true;
        a->len = 0;
        return false;
}

bool sock_peer(int fd, struct addr *a)
{
        memset(a, 0, sizeof(*a));
        a->len = sizeof(a->un);
        if (getpeername(fd, &a->sa, &a->len) == 0)
                return true;
        a->len = 0;
        return false;
}

bool sock_original_dst(int fd, struct addr *a)
{
        struct addr local, r;
        bool v6;

        if (!sock_local(fd, &local) || (local.sa.sa_family != AF_INET && local.sa.sa_family != AF_INET6))
                return false;
        v6 = local.sa.sa_family == AF_INET6 && !IN6_IS_ADDR_V4MAPPED(&local.v6.sin6_addr);
        memset(&r, 0, sizeof(r));
        r.len = v6 ? sizeof(r.v6) : sizeof(r.v4);
        if (getsockopt(fd, v6 ? IPPROTO_IPV6 : IPPROTO_IP, v6 ? IP6T_SO_ORIGINAL_DST : SO_ORIGINAL_DST, &r.sa, &r.len) < 0)
                return false;
        *a = r;
        return true;
}

void sock_keepalive(int fd, const struct sock_keepalive *k)
{
        set_int(fd, SOL_SOCKET, SO_KEEPALIVE, k->on);
        if (!k->on)
                return;
        if (k->time_s)
                set_int(fd, IPPROTO_TCP, TCP_KEEPIDLE, (int)k->time_s);
        if (k->interval_s)
                set_int(fd, IPPROTO_TCP, TCP_KEEPINTVL, (int)k->interval_s);
        if (k->probes)
                set_int(fd, IPPROTO_TCP, TCP_KEEPCNT, (int)k->probes);
}

void sock_nodelay(int fd)
{
        set_int(fd, IPPROTO_TCP, TCP_NODELAY, 1);
}

void sock_linger_reset(int fd)
{
        struct linger l = { .l_onoff = 1, .l_linger = 0 };

        setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof(l));
}

int sock_in_netns(const char *ns_path, int (*fn)(void *arg), void *arg)
{
        int home = open("/proc/thread-self/ns/net", O_RDONLY | O_CLOEXEC);

        if (home < 0)
                return -errno;
        int there = open(ns_path, O_RDONLY | O_CLOEXEC);
        if (there < 0 || setns(there, CLONE_NEWNET) < 0) {
                int e = errno;

                if (there >= 0)
                        close(there);
                close(home);
                return -e;
        }
        close(there);
        int r = fn(arg);
        if (setns(home, CLONE_NEWNET) < 0) { /* going on here would send traffic from the wrong place */
                perror("postern: cannot return to the thread's network namespace");
                abort();
        }
        close(home);
        return r;
}
