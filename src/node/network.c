/* Every step is repeatable, because the node restarts (or is killed half way) while pods go on: "there already" is success, and a pair of
 * links of which one end is missing is made again. The host's own network keeps its settings but for two things without which there is
 * no way out, both undone by network_down(): our table, and forwarding on the interface that carries the default route. */
#include "node/network.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/netlink.h"
#include "node/nft.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <ifaddrs.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define INET_NET     "198.18.0.0/15"
#define INET_NODE    "198.18.0.1"
#define INET_GATEWAY "198.18.0.2"
#define POD_V6_NET   "fd00:244::"
#define POD_V6_RANGE POD_V6_NET "/64"
#define POD_V6_NODE  "fd00:244::1"
#define LINK_GATEWAY "fe80::1"

static struct cidr cidr_of(const char *text)
{
        struct cidr c;

        if (!cidr_parse(&c, str_of(text)))
                abort();
        return c;
}

static struct addr ip_of(const char *text)
{
        struct addr a;

        if (!addr_parse_ip(&a, str_of(text), 0))
                abort();
        return a;
}

static struct cidr host_of(const struct addr *ip)
{
        return (struct cidr){ .base = *ip, .bits = ip->sa.sa_family == AF_INET6 ? 128 : 32 };
}

static struct addr cidr_nth(const struct cidr *c, uint32_t nth)
{
        struct addr a = c->base;

        a.v4.sin_addr.s_addr = htonl(ntohl(a.v4.sin_addr.s_addr) + nth);
        return a;
}

static bool range_init(struct cidr *c, struct str text, const char *what, struct buf *error)
{
        if (!cidr_parse(c, text) || c->base.sa.sa_family != AF_INET || c->bits < 8 || c->bits > 24) {
                buf_printf(error, "%s \"" STR_FMT "\" is not an IPv4 range between /8 and /24, such as 10.244.0.0/16", what, STR_ARG(text));
                return false;
        }
        return true;
}

bool network_init(struct network *n, const char *cluster, const char *run_dir, struct str pod_cidr, struct str service_cidr, bool offline,
                  struct buf *error)
{
        struct cidr inet = cidr_of(INET_NET);

        memset(n, 0, sizeof(*n));
        if (!range_init(&n->pods, pod_cidr, "--pod-cidr", error) || !range_init(&n->services, service_cidr, "--service-cidr", error))
                return false;
        if (cidr_overlaps(&n->pods, &n->services)) {
                buf_printf(error, "--pod-cidr " STR_FMT " and --service-cidr " STR_FMT " overlap", STR_ARG(pod_cidr),
                           STR_ARG(service_cidr));
                return false;
        }
        if (offline && (cidr_overlaps(&n->pods, &inet) || cidr_overlaps(&n->services, &inet))) {
                buf_cstr(error, "the pod and service ranges must not overlap " INET_NET ", which is the offline Internet's");
                return false;
        }
        n->cluster = mem_strdup(cluster);
        n->netns = mem_printf("postern-%s", cluster);
        n->inet_netns = mem_printf("postern-%s.inet", cluster);
        n->run_dir = mem_strdup(run_dir);
        n->gateway = cidr_nth(&n->pods, 1);
        n->dns = cidr_nth(&n->services, 10);
        n->offline = offline;
        return true;
}

void network_fini(struct network *n)
{
        free(n->cluster);
        free(n->netns);
        free(n->inet_netns);
        free(n->run_dir);
        memset(n, 0, sizeof(*n));
}

/* The first error of a list of steps, with what was being done. */
struct steps {
        int err;
        struct buf *error;
};

static bool step(struct steps *s, int err, const char *what)
{
        if (s->err)
                return false;
        if (err < 0) {
                s->err = err;
                buf_printf(s->error, "%s: %s", what, strerror(-err));
        }
        return s->err == 0;
}

static int sysctls(const char *const (*v)[2], unsigned n)
{
        for (unsigned i = 0; i < n; i++) {
                int err = netns_sysctl(v[i][0], v[i][1]);
                if (err && err != -ENOENT) /* a kernel without IPv6 has no such files */
                        return err;
        }
        return 0;
}

/* ---- the node's namespace ---- */

static int node_inside(void *arg)
{
        static const char *const settings[][2] = {
                { "ipv4/ip_forward", "1" },
                { "ipv4/conf/all/send_redirects", "0" },
                { "ipv4/conf/default/send_redirects", "0" },
                { "ipv4/conf/default/rp_filter", "1" },
                { "ipv6/conf/default/accept_dad", "0" },
                { "ipv6/conf/default/accept_ra", "0" },
                { "ipv6/conf/all/forwarding", "1" },
                { "core/somaxconn", "4096" },
        };
        struct network *n = arg;
        struct addr v6 = ip_of(POD_V6_NODE);
        struct cidr range6 = cidr_of(POD_V6_RANGE);
        struct nl nl;

        int err = sysctls(settings, ARRAY_LEN(settings));
        if (err || (err = nl_open(&nl)))
                return err;
        err = nl_addr_add(&nl, "lo", &n->gateway, 32);
        if (!err)
                err = nl_addr_add(&nl, "lo", &n->dns, 32);
        if (!err)
                err = nl_route_unreachable(&nl, &n->pods);
        if (!err && nl_addr_add(&nl, "lo", &v6, 128) == 0) /* a kernel without IPv6 is no obstacle */
                err = nl_route_unreachable(&nl, &range6);
        nl_close(&nl);
        return err;
}

/* ---- the offline Internet ---- */

static int inet_inside(void *arg)
{
        struct network *n = arg;
        struct nl nl;
        struct addr gateway = ip_of(INET_GATEWAY), node = ip_of(INET_NODE);
        struct cidr to_node = host_of(&node);
        int err = netns_sysctl("ipv4/ip_forward", "1"); /* so that an address nobody has is unreachable, not silent */

        if (err || (err = nl_open(&nl)))
                return err;
        if (!err)
                err = nl_link_up(&nl, "eth0");
        if (!err)
                err = nl_addr_add(&nl, "eth0", &gateway, 32);
        if (!err)
                err = nl_route_set(&nl, &to_node, NULL, "eth0", NULL);
        if (!err)
                err = nl_route_set(&nl, &n->pods, &node, "eth0", NULL);
        nl_close(&nl);
        return err;
}

static int inet_link(void *arg)
{
        struct network *n = arg;
        struct nl nl;
        struct cidr net = cidr_of(INET_NET);
        struct addr gateway = ip_of(INET_GATEWAY), node = ip_of(INET_NODE);
        struct cidr to_gateway = host_of(&gateway);
        char path[NETNS_PATH_MAX];

        int err = nl_open(&nl);
        if (err)
                return err;
        netns_path(n->inet_netns, path);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                err = -errno;
        if (!err && nl_link_index(&nl, "inet0") < 0)
                err = nl_link_add_veth(&nl, "inet0", "eth0", fd);
        if (!err)
                err = nl_link_up(&nl, "inet0");
        if (!err)
                err = nl_addr_add(&nl, "inet0", &node, 32);
        if (!err)
                err = nl_route_set(&nl, &to_gateway, NULL, "inet0", NULL);
        if (!err)
                err = nl_route_set(&nl, &net, &gateway, "inet0", NULL);
        if (fd >= 0)
                close(fd);
        nl_close(&nl);
        return err;
}

struct inet_addr_job {
        const struct addr *ip;
};

static int inet_addr_add(void *arg)
{
        struct inet_addr_job *j = arg;
        struct nl nl;

        int err = nl_open(&nl);
        if (err)
                return err;
        err = nl_addr_add(&nl, "eth0", j->ip, 32);
        nl_close(&nl);
        return err;
}

int network_inet_address(struct network *n, const struct addr *ip)
{
        struct inet_addr_job j = { ip };

        return netns_run(n->inet_netns, inet_addr_add, &j);
}

/* ---- the way out through the host ---- */

static void uplink_name(const char *cluster, char out[IF_NAMESIZE])
{
        snprintf(out, IF_NAMESIZE, "pst%08x", (unsigned)hash_bytes(cluster, strlen(cluster), 0));
}

static void uplink_table(const char *cluster, char out[80])
{
        snprintf(out, 80, "postern_%s", cluster);
        for (char *p = out; *p; p++)
                if (*p == '-' || *p == '.')
                        *p = '_';
}

/* A /30 of 169.254.0.0/16 that no other interface of the host uses: by the name's hash, so that it is the same again after a crash. */
static bool uplink_choose(const char *cluster, const char *ours, struct addr *host, struct addr *inside)
{
        struct ifaddrs *all = NULL;
        uint32_t start = (uint32_t)hash_bytes(cluster, strlen(cluster), 1);

        if (getifaddrs(&all) < 0)
                return false;
        for (uint32_t i = 0; i < 16384; i++) {
                uint32_t net = 0xa9fe0000u | (((start + i) % 16384) << 2);
                bool taken = (net & 0xffffff00u) == 0xa9fea900u || (net & 0xfffff0fcu) == 0xa9fe0000u; /* cloud metadata; the zero net */
                for (struct ifaddrs *a = all; a && !taken; a = a->ifa_next)
                        taken = a->ifa_addr && a->ifa_addr->sa_family == AF_INET && strcmp(a->ifa_name, ours) != 0 &&
                                (ntohl(((struct sockaddr_in *)a->ifa_addr)->sin_addr.s_addr) & ~3u) == net;
                if (taken)
                        continue;
                *host = ip_of("169.254.0.0");
                *inside = *host;
                host->v4.sin_addr.s_addr = htonl(net + 1);
                inside->v4.sin_addr.s_addr = htonl(net + 2);
                freeifaddrs(all);
                return true;
        }
        freeifaddrs(all);
        return false;
}

struct uplink_job {
        const struct addr *host, *inside;
};

static int uplink_inside(void *arg)
{
        struct uplink_job *j = arg;
        struct cidr all = cidr_of("0.0.0.0/0");
        struct nl nl;

        int err = nl_open(&nl);
        if (err)
                return err;
        if (!err)
                err = nl_addr_add(&nl, "uplink", j->inside, 30);
        if (!err)
                err = nl_link_up(&nl, "uplink");
        if (!err)
                err = nl_route_set(&nl, &all, j->host, "uplink", NULL);
        nl_close(&nl);
        return err;
}

/* "eth0 0": the interface whose forwarding we switched on, and what it was. */
static void forwarding_path(const char *run_dir, char out[256])
{
        snprintf(out, 256, "%s/forwarding", run_dir);
}

static bool forwarding_recorded(const char *run_dir, char dev[IF_NAMESIZE])
{
        char path[256];
        struct buf b = BUF_INIT;

        forwarding_path(run_dir, path);
        bool found = buf_read_file(&b, path, 64) == 0 && b.n > 1 && b.n < IF_NAMESIZE;
        if (found)
                snprintf(dev, IF_NAMESIZE, "%s", buf_z(&b));
        buf_fini(&b);
        return found;
}

/* Does another cluster lean on the forwarding that we (or it) switched on? Their folders lie beside ours. */
static bool forwarding_shared(const char *run_dir, const char *dev)
{
        char parent[256], other[512], theirs[IF_NAMESIZE];
        bool shared = false;

        snprintf(parent, sizeof(parent), "%s", run_dir);
        char *slash = strrchr(parent, '/');
        if (!slash)
                return false;
        *slash = 0;
        DIR *d = opendir(parent);
        for (struct dirent *e; d && (e = readdir(d));) {
                if (e->d_name[0] == '.' || strcmp(e->d_name, slash + 1) == 0)
                        continue;
                snprintf(other, sizeof(other), "%s/%s", parent, e->d_name);
                if (forwarding_recorded(other, theirs) && strcmp(theirs, dev) == 0)
                        shared = true;
        }
        if (d)
                closedir(d);
        return shared;
}

static int forwarding_on(const char *run_dir, struct nl *nl)
{
        struct addr anywhere = ip_of("8.8.8.8"); /* any public address: only its interface matters */
        char dev[IF_NAMESIZE], key[64], now[16], path[256];
        struct buf b = BUF_INIT;

        int index = nl_route_dev(nl, &anywhere);
        if (index < 0 || !if_indextoname((unsigned)index, dev)) {
                LOG(LOG_WARN, "node",
                    "the host has no default route: pods reach nothing outside until it has one and the node starts again");
                return 0;
        }
        snprintf(key, sizeof(key), "ipv4/conf/%s/forwarding", dev);
        int err = netns_sysctl_get(key, now, sizeof(now));
        if (err || (strcmp(now, "0") != 0 && !forwarding_shared(run_dir, dev)))
                return err;
        forwarding_path(run_dir, path);
        buf_cstr(&b, dev);
        err = buf_write_file(&b, path, 0644);
        buf_fini(&b);
        return err ? err : netns_sysctl(key, "1");
}

static void forwarding_off(const char *run_dir)
{
        char dev[IF_NAMESIZE], key[64], path[256];

        if (!forwarding_recorded(run_dir, dev))
                return;
        forwarding_path(run_dir, path);
        unlink(path);
        if (strchr(dev, '/') || forwarding_shared(run_dir, dev))
                return;
        snprintf(key, sizeof(key), "ipv4/conf/%s/forwarding", dev);
        netns_sysctl(key, "0");
}

/* Pods leave with the uplink's address, and the host gives them its own: each side knows its own neighbours only. */
static int uplink_nat(const struct network *n, const struct addr *inside, struct buf *error)
{
        static const char ours[] =
                "table ip postern_uplink { }\ndelete table ip postern_uplink\ntable ip postern_uplink {\n chain postrouting {\n"
                "  type nat hook postrouting priority srcnat; policy accept;\n  oifname \"uplink\" masquerade\n }\n}\n";
        char table[80], ip[ADDR_TEXT_MAX];
        struct buf script = BUF_INIT;

        uplink_table(n->cluster, table);
        addr_ip_text(inside, ip);
        buf_printf(&script, "table ip %s { }\ndelete table ip %s\n", table, table);
        buf_printf(&script, "table ip %s {\n chain postrouting {\n  type nat hook postrouting priority srcnat; policy accept;\n", table);
        buf_printf(&script, "  ip saddr %s masquerade\n }\n}\n", ip);
        int err = nft_run(n->netns, ours, error);
        if (!err)
                err = nft_run(NULL, buf_z(&script), error);
        buf_fini(&script);
        return err;
}

static int uplink_up(struct network *n, struct buf *error)
{
        char dev[IF_NAMESIZE], path[NETNS_PATH_MAX], key[64];
        struct addr host, inside;
        struct uplink_job j = { &host, &inside };
        struct steps s = { .error = error };
        struct nl nl;

        uplink_name(n->cluster, dev);
        if (!uplink_choose(n->cluster, dev, &host, &inside)) {
                buf_cstr(error, "no free network in 169.254.0.0/16 for the uplink");
                return -EADDRNOTAVAIL;
        }
        int err = nl_open(&nl);
        if (!step(&s, err, "opening rtnetlink"))
                return s.err;
        netns_path(n->netns, path);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        step(&s, fd < 0 ? -errno : 0, path);
        if (!s.err && nl_link_index(&nl, dev) < 0)
                step(&s, nl_link_add_veth(&nl, dev, "uplink", fd), "making the uplink");
        if (!s.err)
                step(&s, nl_addr_add(&nl, dev, &host, 30), "the uplink's address");
        if (!s.err)
                step(&s, nl_link_up(&nl, dev), "bringing the uplink up");
        if (!s.err)
                step(&s, netns_run(n->netns, uplink_inside, &j), "the uplink's inner end");
        snprintf(key, sizeof(key), "ipv4/conf/%s/forwarding", dev);
        if (!s.err)
                step(&s, netns_sysctl(key, "1"), "forwarding on the uplink");
        if (!s.err)
                step(&s, forwarding_on(n->run_dir, &nl), "forwarding on the host's default interface");
        if (fd >= 0)
                close(fd);
        nl_close(&nl);
        return s.err ? s.err : uplink_nat(n, &inside, error);
}

int network_up(struct network *n, struct buf *error)
{
        struct steps s = { .error = error };

        step(&s, netns_create(n->netns), "making the node's network namespace");
        if (!s.err)
                step(&s, netns_run(n->netns, node_inside, n), "setting up the node's network namespace");
        if (s.err)
                return s.err;
        if (!n->offline)
                return uplink_up(n, error);
        step(&s, netns_create(n->inet_netns), "making the offline Internet's network namespace");
        if (!s.err)
                step(&s, netns_run(n->netns, inet_link, n), "connecting the offline Internet");
        if (!s.err)
                step(&s, netns_run(n->inet_netns, inet_inside, n), "setting up the offline Internet");
        return s.err;
}

/* ---- pods ---- */

static uint32_t uid_hash(struct str uid)
{
        return (uint32_t)hash_bytes(uid.p, uid.n, 0);
}

void network_pod_netns(const struct network *n, struct str uid, char out[NETNS_PATH_MAX])
{
        snprintf(out, NETNS_PATH_MAX, "postern-%s.pod-%08x", n->cluster, uid_hash(uid));
}

void network_pod_v6(const struct network *n, const struct addr *ip, struct addr *v6)
{
        uint32_t host = ntohl(ip->v4.sin_addr.s_addr) & (0xffffffffu >> n->pods.bits);

        *v6 = ip_of(POD_V6_NET);
        v6->v6.sin6_addr.s6_addr32[3] = htonl(host);
}

struct pod_job {
        struct network *n;
        const struct addr *ip;
        struct addr ip6;
        char host_dev[IF_NAMESIZE];
        int pod_fd; /* -1: the pair of links is there */
};

/* The node's end: made when it is missing, and the routes to the pod. */
static int pod_outside(void *arg)
{
        struct pod_job *j = arg;
        struct addr link_gateway = ip_of(LINK_GATEWAY), node6 = ip_of(POD_V6_NODE);
        struct cidr to4 = host_of(j->ip), to6 = host_of(&j->ip6);
        struct nl nl;

        int err = nl_open(&nl);
        if (err)
                return err;
        if (j->pod_fd >= 0) {
                nl_link_del(&nl, j->host_dev); /* a left-over of a crash, perhaps without the other end */
                err = nl_link_add_veth(&nl, j->host_dev, "eth0", j->pod_fd);
        }
        if (!err)
                err = nl_link_up(&nl, j->host_dev);
        if (!err)
                err = nl_route_set(&nl, &to4, NULL, j->host_dev, &j->n->gateway);
        if (!err && nl_addr_add(&nl, j->host_dev, &link_gateway, 64) == 0)
                err = nl_route_set(&nl, &to6, NULL, j->host_dev, &node6);
        nl_close(&nl);
        return err;
}

static int pod_inside(void *arg)
{
        static const char *const settings[][2] = {
                { "ipv6/conf/all/accept_dad", "0" },         { "ipv6/conf/eth0/accept_dad", "0" },
                { "ipv6/conf/eth0/accept_ra", "0" },         { "ipv6/conf/eth0/disable_ipv6", "0" },
                { "ipv4/ip_unprivileged_port_start", "0" }, /* no capability is needed for port 80, as other runtimes do */
                { "ipv4/ping_group_range", "0 2147483647" }, { "core/somaxconn", "4096" },
        };
        struct pod_job *j = arg;
        struct addr gateway6 = ip_of(LINK_GATEWAY);
        struct cidr via4 = host_of(&j->n->gateway), all4 = cidr_of("0.0.0.0/0"), all6 = cidr_of("::/0");
        struct nl nl;

        int err = sysctls(settings, ARRAY_LEN(settings));
        if (err || (err = nl_open(&nl)))
                return err;
        err = nl_link_up(&nl, "lo");
        if (!err)
                err = nl_addr_add(&nl, "eth0", j->ip, 32);
        if (!err)
                err = nl_link_up(&nl, "eth0");
        if (!err)
                err = nl_route_set(&nl, &via4, NULL, "eth0", NULL);
        if (!err)
                err = nl_route_set(&nl, &all4, &j->n->gateway, "eth0", NULL);
        if (!err && nl_addr_add(&nl, "eth0", &j->ip6, 128) == 0)
                err = nl_route_set(&nl, &all6, &gateway6, "eth0", NULL);
        nl_close(&nl);
        return err;
}

static int pod_has_eth0(void *arg)
{
        struct nl nl;

        int err = nl_open(&nl);
        if (err)
                return err;
        err = nl_link_index(&nl, "eth0");
        nl_close(&nl);
        return err;
}

int network_pod_add(struct network *n, struct str uid, const struct addr *ip, struct buf *error)
{
        struct pod_job j = { .n = n, .ip = ip };
        struct steps s = { .error = error };
        char netns[NETNS_PATH_MAX], path[NETNS_PATH_MAX];

        network_pod_netns(n, uid, netns);
        network_pod_v6(n, ip, &j.ip6);
        snprintf(j.host_dev, sizeof(j.host_dev), "pv%08x", uid_hash(uid));
        if (!step(&s, netns_create(netns), "making the pod's network namespace"))
                return s.err;
        j.pod_fd = -1;
        if (netns_run(netns, pod_has_eth0, NULL) < 0) {
                netns_path(netns, path);
                j.pod_fd = open(path, O_RDONLY | O_CLOEXEC);
                step(&s, j.pod_fd < 0 ? -errno : 0, path);
        }
        if (!s.err)
                step(&s, netns_run(n->netns, pod_outside, &j), "connecting the pod to the node");
        if (j.pod_fd >= 0)
                close(j.pod_fd);
        if (!s.err)
                step(&s, netns_run(netns, pod_inside, &j), "setting up the pod's network");
        return s.err;
}

static int pod_unlink(void *arg)
{
        struct nl nl;

        int err = nl_open(&nl);
        if (err)
                return err;
        err = nl_link_del(&nl, arg);
        nl_close(&nl);
        return err;
}

int network_pod_del(struct network *n, struct str uid)
{
        char netns[NETNS_PATH_MAX], dev[IF_NAMESIZE];

        network_pod_netns(n, uid, netns);
        snprintf(dev, sizeof(dev), "pv%08x", uid_hash(uid));
        netns_run(n->netns, pod_unlink, dev);
        return netns_delete(netns);
}

/* ---- taking it down ---- */

static void uplink_down(const char *cluster, const char *run_dir)
{
        char dev[IF_NAMESIZE], table[80];
        struct buf script = BUF_INIT;
        struct nl nl;

        forwarding_off(run_dir);
        uplink_name(cluster, dev);
        uplink_table(cluster, table);
        if (nl_open(&nl) == 0) {
                nl_link_del(&nl, dev);
                nl_close(&nl);
        }
        buf_printf(&script, "table ip %s { }\ndelete table ip %s\n", table, table);
        nft_run(NULL, buf_z(&script), NULL);
        buf_fini(&script);
}

void network_down(const char *cluster, const char *run_dir)
{
        char *node = mem_printf("postern-%s", cluster), *others = mem_printf("postern-%s.", cluster);
        DIR *d = opendir(NETNS_DIR);

        for (struct dirent *e; d && (e = readdir(d));)
                if (strcmp(e->d_name, node) == 0 || strncmp(e->d_name, others, strlen(others)) == 0)
                        netns_delete(e->d_name);
        if (d)
                closedir(d);
        uplink_down(cluster, run_dir);
        free(node);
        free(others);
}
