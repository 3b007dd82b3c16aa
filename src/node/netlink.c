/* rtnetlink(7) by hand. ip(8) would do the same, but a process per call costs milliseconds where this costs microseconds, and its
 * errors are sentences where these are numbers. A request is built in a fixed buffer that is larger than any of them needs. */
#include "node/netlink.h"

#include <assert.h>
#include <errno.h>
#include <linux/if_link.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <net/if.h>
#include <sys/time.h>
#include <unistd.h>

struct nl_req {
        union {
                struct nlmsghdr h;
                char b[1024];
        };
};

int nl_open(struct nl *n)
{
        struct sockaddr_nl local = { .nl_family = AF_NETLINK };
        struct timeval limit = { .tv_sec = 5 }; /* the kernel answers at once, or something is very wrong */

        n->seq = 0;
        n->fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE);
        if (n->fd < 0)
                return -errno;
        if (bind(n->fd, (struct sockaddr *)&local, sizeof(local)) < 0 ||
            setsockopt(n->fd, SOL_SOCKET, SO_RCVTIMEO, &limit, sizeof(limit)) < 0) {
                int err = -errno;
                nl_close(n);
                return err;
        }
        return 0;
}

void nl_close(struct nl *n)
{
        if (n->fd >= 0)
                close(n->fd);
        n->fd = -1;
}

static void *req_begin(struct nl_req *r, uint16_t type, uint16_t flags, size_t fixed)
{
        memset(r, 0, sizeof(*r));
        r->h.nlmsg_type = type;
        r->h.nlmsg_flags = (uint16_t)(NLM_F_REQUEST | NLM_F_ACK | flags);
        r->h.nlmsg_len = (uint32_t)NLMSG_LENGTH(fixed);
        return NLMSG_DATA(&r->h);
}

static struct rtattr *req_attr(struct nl_req *r, uint16_t type, const void *p, size_t n)
{
        size_t at = NLMSG_ALIGN(r->h.nlmsg_len);
        struct rtattr *a = (struct rtattr *)(r->b + at);

        assert(at + RTA_SPACE(n) <= sizeof(r->b));
        a->rta_type = type;
        a->rta_len = (uint16_t)RTA_LENGTH(n);
        if (n)
                memcpy(RTA_DATA(a), p, n);
        r->h.nlmsg_len = (uint32_t)(at + RTA_LENGTH(n));
        return a;
}

static void req_nest_end(struct nl_req *r, struct rtattr *nest)
{
        nest->rta_len = (uint16_t)((r->b + r->h.nlmsg_len) - (char *)nest);
}

static void req_text(struct nl_req *r, uint16_t type, const char *text)
{
        req_attr(r, type, text, strlen(text) + 1);
}

static void req_u32(struct nl_req *r, uint16_t type, uint32_t v)
{
        req_attr(r, type, &v, sizeof(v));
}

static void req_ip(struct nl_req *r, uint16_t type, const struct addr *a)
{
        if (a->sa.sa_family == AF_INET6)
                req_attr(r, type, &a->v6.sin6_addr, 16);
        else
                req_attr(r, type, &a->v4.sin_addr, 4);
}

/* Sends r; waits for its acknowledgement. The start of an answer that comes before it is copied to `answer` when given. */
static int req_run(struct nl *n, struct nl_req *r, struct nl_req *answer)
{
        char in[16384] __attribute__((aligned(8)));

        r->h.nlmsg_seq = ++n->seq;
        if (send(n->fd, r->b, r->h.nlmsg_len, 0) < 0)
                return -errno;
        for (;;) {
                ssize_t got = recv(n->fd, in, sizeof(in), 0);
                if (got < 0 && errno == EINTR)
                        continue;
                if (got < 0)
                        return -errno;
                size_t left = (size_t)got;
                for (struct nlmsghdr *h = (struct nlmsghdr *)in; NLMSG_OK(h, left); h = NLMSG_NEXT(h, left)) {
                        if (h->nlmsg_seq != n->seq)
                                continue;
                        if (h->nlmsg_type == NLMSG_ERROR)
                                return ((struct nlmsgerr *)NLMSG_DATA(h))->error;
                        if (!answer)
                                continue;
                        size_t keep = h->nlmsg_len < sizeof(answer->b) ? h->nlmsg_len : sizeof(answer->b);
                        memcpy(answer->b, h, keep);
                        answer->h.nlmsg_len = (uint32_t)keep;
                }
        }
}

int nl_link_index(struct nl *n, const char *name)
{
        struct nl_req r, got = { 0 };
        struct ifinfomsg *i = req_begin(&r, RTM_GETLINK, 0, sizeof(*i));

        i->ifi_family = AF_UNSPEC;
        req_text(&r, IFLA_IFNAME, name);
        req_u32(&r, IFLA_EXT_MASK, RTEXT_FILTER_SKIP_STATS);
        int err = req_run(n, &r, &got);
        if (err)
                return err;
        if (got.h.nlmsg_type != RTM_NEWLINK || got.h.nlmsg_len < NLMSG_LENGTH(sizeof(*i)))
                return -ENODEV;
        return ((struct ifinfomsg *)NLMSG_DATA(&got.h))->ifi_index;
}

int nl_link_add_veth(struct nl *n, const char *name, const char *peer, int peer_ns_fd)
{
        static const struct ifinfomsg none;
        struct nl_req r;

        req_begin(&r, RTM_NEWLINK, NLM_F_CREATE | NLM_F_EXCL, sizeof(struct ifinfomsg));
        req_text(&r, IFLA_IFNAME, name);
        struct rtattr *info = req_attr(&r, IFLA_LINKINFO, NULL, 0);
        req_attr(&r, IFLA_INFO_KIND, "veth", 4);
        struct rtattr *data = req_attr(&r, IFLA_INFO_DATA, NULL, 0);
        struct rtattr *pair = req_attr(&r, VETH_INFO_PEER, &none, sizeof(none));
        req_text(&r, IFLA_IFNAME, peer);
        if (peer_ns_fd >= 0)
                req_u32(&r, IFLA_NET_NS_FD, (uint32_t)peer_ns_fd);
        req_nest_end(&r, pair);
        req_nest_end(&r, data);
        req_nest_end(&r, info);
        return req_run(n, &r, NULL);
}

int nl_link_del(struct nl *n, const char *name)
{
        struct nl_req r;

        req_begin(&r, RTM_DELLINK, 0, sizeof(struct ifinfomsg));
        req_text(&r, IFLA_IFNAME, name);
        return req_run(n, &r, NULL);
}

int nl_link_up(struct nl *n, const char *name)
{
        struct nl_req r;
        struct ifinfomsg *i = req_begin(&r, RTM_NEWLINK, 0, sizeof(*i));

        i->ifi_flags = i->ifi_change = IFF_UP;
        req_text(&r, IFLA_IFNAME, name);
        return req_run(n, &r, NULL);
}

int nl_addr_add(struct nl *n, const char *dev, const struct addr *ip, unsigned bits)
{
        int index = nl_link_index(n, dev);
        struct nl_req r;

        if (index < 0)
                return index;
        struct ifaddrmsg *a = req_begin(&r, RTM_NEWADDR, NLM_F_CREATE | NLM_F_EXCL, sizeof(*a));
        a->ifa_family = (uint8_t)ip->sa.sa_family;
        a->ifa_prefixlen = (uint8_t)bits;
        a->ifa_index = (uint32_t)index;
        if (ip->sa.sa_family == AF_INET6)
                req_u32(&r, IFA_FLAGS, IFA_F_NODAD);
        req_ip(&r, IFA_LOCAL, ip);
        req_ip(&r, IFA_ADDRESS, ip);
        int err = req_run(n, &r, NULL);
        return err == -EEXIST ? 0 : err;
}

static void req_route(struct nl_req *r, const struct cidr *to, unsigned char type, unsigned char scope)
{
        struct rtmsg *m = req_begin(r, RTM_NEWROUTE, NLM_F_CREATE | NLM_F_REPLACE, sizeof(*m));

        m->rtm_family = (uint8_t)to->base.sa.sa_family;
        m->rtm_dst_len = (uint8_t)to->bits;
        m->rtm_table = RT_TABLE_MAIN;
        m->rtm_protocol = RTPROT_STATIC;
        m->rtm_scope = scope;
        m->rtm_type = type;
        if (to->bits)
                req_ip(r, RTA_DST, &to->base);
}

int nl_route_set(struct nl *n, const struct cidr *to, const struct addr *via, const char *dev, const struct addr *source)
{
        int index = nl_link_index(n, dev);
        struct nl_req r;

        if (index < 0)
                return index;
        req_route(&r, to, RTN_UNICAST, via || to->base.sa.sa_family == AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK);
        if (via)
                req_ip(&r, RTA_GATEWAY, via);
        if (source)
                req_ip(&r, RTA_PREFSRC, source);
        req_u32(&r, RTA_OIF, (uint32_t)index);
        return req_run(n, &r, NULL);
}

int nl_route_unreachable(struct nl *n, const struct cidr *to)
{
        struct nl_req r;

        req_route(&r, to, RTN_UNREACHABLE, RT_SCOPE_UNIVERSE);
        return req_run(n, &r, NULL);
}

int nl_route_dev(struct nl *n, const struct addr *to)
{
        struct nl_req r, got = { 0 };
        struct rtmsg *m = req_begin(&r, RTM_GETROUTE, 0, sizeof(*m));

        m->rtm_family = (uint8_t)to->sa.sa_family;
        m->rtm_dst_len = to->sa.sa_family == AF_INET6 ? 128 : 32;
        req_ip(&r, RTA_DST, to);
        int err = req_run(n, &r, &got);
        if (err)
                return err;
        if (got.h.nlmsg_type != RTM_NEWROUTE)
                return -ENETUNREACH;
        m = NLMSG_DATA(&got.h);
        size_t left = got.h.nlmsg_len - NLMSG_LENGTH(sizeof(*m));
        for (struct rtattr *a = RTM_RTA(m); RTA_OK(a, left); a = RTA_NEXT(a, left)) {
                int index;
                if (a->rta_type != RTA_OIF || RTA_PAYLOAD(a) < sizeof(index))
                        continue;
                memcpy(&index, RTA_DATA(a), sizeof(index));
                return index;
        }
        return -ENETUNREACH;
}
