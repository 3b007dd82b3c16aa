/* The order of the rules is Istio's and matters: exclusions by port and interface, then the loopback cases, then the proxy itself, then
 * localhost, then address ranges. A "return" leaves the packet alone, as in iptables. */
#include "node/redirect.h"
#include "net/addr.h"
#include "node/nft.h"

#include <errno.h>

#define A_PREFIX "traffic.sidecar.istio.io/"

enum { REDIRECT_LIST_MAX = 512 }; /* items in one annotation */

bool redirect_wanted(redirect_annotation_fn *get, void *arg)
{
        struct str mode = get(arg, "sidecar.istio.io/interceptionMode");

        return get(arg, "sidecar.istio.io/status").p && !str_eqc(mode, "NONE");
}

/* Calls `item` with each part of a comma-separated annotation. False after the first that it refuses. */
static bool list_each(redirect_annotation_fn *get, void *arg, const char *name, bool (*item)(struct buf *out, struct str s),
                      struct buf *out, const char *what, struct buf *error)
{
        struct str all = get(arg, name), part;
        unsigned n = 0;

        while (str_next(&all, ',', &part)) {
                part = str_trim(part);
                if (!part.n)
                        continue;
                if (++n > REDIRECT_LIST_MAX) {
                        buf_printf(error, "annotation %s: more than %d items", name, REDIRECT_LIST_MAX);
                        return false;
                }
                if (!item(out, part)) {
                        buf_printf(error, "annotation %s: \"" STR_FMT "\" is not %s", name, STR_ARG(part), what);
                        return false;
                }
        }
        return true;
}

static bool item_port(struct buf *out, struct str s)
{
        uint64_t port;

        if (!str_u64(s, &port) || port < 1 || port > 65535)
                return false;
        buf_printf(out, "%s%u", out->n ? ", " : "", (unsigned)port);
        return true;
}

static bool item_interface(struct buf *out, struct str s)
{
        if (s.n > 15)
                return false;
        for (size_t i = 0; i < s.n; i++)
                if (!((s.p[i] >= '0' && s.p[i] <= '9') || (ascii_lower(s.p[i]) >= 'a' && ascii_lower(s.p[i]) <= 'z') ||
                      strchr("-_.", s.p[i])))
                        return false;
        buf_printf(out, "%s\"" STR_FMT "\"", out->n ? ", " : "", STR_ARG(s));
        return true;
}

static bool item_range(struct buf *out, struct str s, int family)
{
        char ip[ADDR_TEXT_MAX];
        struct cidr c;

        if (!cidr_parse(&c, s))
                return false;
        if (c.base.sa.sa_family != family)
                return true;
        addr_ip_text(&c.base, ip);
        buf_printf(out, "%s%s/%u", out->n ? " " : "", ip, c.bits);
        return true;
}

static bool item_range4(struct buf *out, struct str s)
{
        return item_range(out, s, AF_INET);
}

static bool item_range6(struct buf *out, struct str s)
{
        return item_range(out, s, AF_INET6);
}

static bool is_star(struct str s)
{
        return str_eqc(str_trim(s), "*");
}

/* What the annotations say, ready to be put between braces. */
struct redirect {
        struct buf in_ports, in_not_ports, out_ports, out_not_ports, out4, out6, out_not4, out_not6, not_dev;
        bool in_all, out_all;
};

static void redirect_fini(struct redirect *r)
{
        struct buf *all[] = { &r->in_ports, &r->in_not_ports, &r->out_ports, &r->out_not_ports, &r->out4,
                              &r->out6,     &r->out_not4,     &r->out_not6,  &r->not_dev };

        for (unsigned i = 0; i < sizeof(all) / sizeof(all[0]); i++)
                buf_fini(all[i]);
}

static bool redirect_parse(struct redirect *r, redirect_annotation_fn *get, void *arg, struct buf *error)
{
        static const char port[] = "a port from 1 to 65535", range[] = "an address range such as 10.0.0.0/8";
        struct str mode = get(arg, "sidecar.istio.io/interceptionMode"), in = get(arg, A_PREFIX "includeInboundPorts");
        struct str out = get(arg, A_PREFIX "includeOutboundIPRanges");

        if (mode.p && !str_eqc(mode, "REDIRECT")) {
                buf_printf(error, "annotation sidecar.istio.io/interceptionMode: \"" STR_FMT "\" is not supported; use REDIRECT or NONE",
                           STR_ARG(mode));
                return false;
        }
        r->in_all = !in.p || is_star(in);
        r->out_all = !out.p || is_star(out);
        return (r->in_all || list_each(get, arg, A_PREFIX "includeInboundPorts", item_port, &r->in_ports, port, error)) &&
               list_each(get, arg, A_PREFIX "excludeInboundPorts", item_port, &r->in_not_ports, port, error) &&
               list_each(get, arg, A_PREFIX "includeOutboundPorts", item_port, &r->out_ports, port, error) &&
               list_each(get, arg, A_PREFIX "excludeOutboundPorts", item_port, &r->out_not_ports, port, error) &&
               (r->out_all || (list_each(get, arg, A_PREFIX "includeOutboundIPRanges", item_range4, &r->out4, range, error) &&
                               list_each(get, arg, A_PREFIX "includeOutboundIPRanges", item_range6, &r->out6, range, error))) &&
               list_each(get, arg, A_PREFIX "excludeOutboundIPRanges", item_range4, &r->out_not4, range, error) &&
               list_each(get, arg, A_PREFIX "excludeOutboundIPRanges", item_range6, &r->out_not6, range, error) &&
               list_each(get, arg, A_PREFIX "excludeInterfaces", item_interface, &r->not_dev, "an interface name", error);
}

/* One rule a range: ranges may overlap, which a set would refuse. */
static void rule_ranges(struct buf *s, const char *match, struct buf *ranges, const char *verdict)
{
        struct str all = buf_view(ranges), one;

        while (ranges->n && str_next(&all, ' ', &one))
                buf_printf(s, "  %s " STR_FMT " %s\n", match, STR_ARG(one), verdict);
}

/* "  <match> { <items> } <verdict>", or nothing when there are no items. */
static void rule(struct buf *s, const char *match, struct buf *items, const char *verdict)
{
        if (items->n)
                buf_printf(s, "  %s { %s } %s\n", match, buf_z(items), verdict);
}

static void script_inbound(struct buf *s, struct redirect *r)
{
        buf_cstr(s, " chain prerouting {\n  type nat hook prerouting priority dstnat; policy accept;\n");
        rule(s, "iifname", &r->not_dev, "return");
        buf_cstr(s, "  meta l4proto != tcp return\n"
                    "  tcp dport { 15008, 15020, 15021, 15090 } return\n");
        if (r->in_all) {
                rule(s, "tcp dport", &r->in_not_ports, "return");
                buf_cstr(s, "  meta l4proto tcp redirect to :15006\n");
        } else {
                rule(s, "tcp dport", &r->in_ports, "redirect to :15006");
        }
        buf_cstr(s, " }\n");
}

static void script_owner(struct buf *s, const char *who)
{
        buf_printf(s, "  oifname \"lo\" ip daddr != 127.0.0.1 meta l4proto tcp tcp dport != 15008 %s 1337 redirect to :15006\n", who);
        buf_printf(s, "  oifname \"lo\" ip6 daddr != ::1 meta l4proto tcp tcp dport != 15008 %s 1337 redirect to :15006\n", who);
        buf_printf(s, "  oifname \"lo\" %s != 1337 return\n", who);
        buf_printf(s, "  %s 1337 return\n", who);
}

static void script_outbound(struct buf *s, struct redirect *r)
{
        buf_cstr(s, " chain output {\n  type nat hook output priority -100; policy accept;\n"
                    "  meta l4proto != tcp return\n");
        rule(s, "tcp dport", &r->out_not_ports, "return");
        rule(s, "oifname", &r->not_dev, "return");
        buf_cstr(s, "  oifname \"lo\" ip saddr 127.0.0.6 return\n" /* the proxy, handing an inbound connection to the application */
                    "  oifname \"lo\" ip6 saddr ::6 return\n");
        script_owner(s, "meta skuid");
        script_owner(s, "meta skgid");
        buf_cstr(s, "  ip daddr 127.0.0.1 return\n"
                    "  ip6 daddr ::1 return\n");
        rule_ranges(s, "ip daddr", &r->out_not4, "return");
        rule_ranges(s, "ip6 daddr", &r->out_not6, "return");
        rule(s, "tcp dport", &r->out_ports, "redirect to :15001");
        rule_ranges(s, "ip daddr", &r->out4, "meta l4proto tcp redirect to :15001");
        rule_ranges(s, "ip6 daddr", &r->out6, "meta l4proto tcp redirect to :15001");
        if (r->out_all)
                buf_cstr(s, "  meta l4proto tcp redirect to :15001\n");
        buf_cstr(s, " }\n");
}

bool redirect_script(redirect_annotation_fn *get, void *arg, struct buf *script, struct buf *error)
{
        struct redirect r = { 0 };
        bool ok = redirect_parse(&r, get, arg, error);

        if (ok) {
                buf_cstr(script, "table inet postern_mesh { }\ndelete table inet postern_mesh\ntable inet postern_mesh {\n");
                script_inbound(script, &r);
                script_outbound(script, &r);
                buf_cstr(script, "}\n");
        }
        redirect_fini(&r);
        return ok;
}

int redirect_apply(const char *netns, redirect_annotation_fn *get, void *arg, struct buf *error)
{
        struct buf script = BUF_INIT;
        int err = -EINVAL;

        if (redirect_script(get, arg, &script, error))
                err = nft_run(netns, buf_z(&script), error);
        buf_fini(&script);
        return err;
}
