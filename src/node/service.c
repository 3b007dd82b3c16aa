/* One chain a port, chosen by one look-up in a verdict map, so that the cost of a new connection does not grow with the number of Services.
 *
 * A pod that reaches itself through a Service would see its own address as the source and drop the packet; `hairpin` holds every
 * endpoint's (address, address) pair, and those connections get the node's address as their source. */
#include "node/service.h"
#include "base/hash.h"
#include "node/nft.h"

static const char *proto_name(const struct service_port *p)
{
        return p->udp ? "udp" : "tcp";
}

static void script_map(const struct service_port *v, size_t n, struct buf *s)
{
        char ip[ADDR_TEXT_MAX];
        bool any = false;

        buf_cstr(s, " map ports {\n  type ipv4_addr . inet_proto . inet_service : verdict\n");
        for (size_t i = 0; i < n; i++) {
                if (!v[i].nendpoints)
                        continue;
                addr_ip_text(&v[i].vip, ip);
                buf_printf(s, "%s%s . %s . %u : goto port_%zu", any ? ",\n   " : "  elements = { ", ip, proto_name(&v[i]),
                           addr_port(&v[i].vip), i);
                any = true;
        }
        buf_cstr(s, any ? " }\n }\n" : " }\n");
}

static void script_hairpin(const struct service_port *v, size_t n, struct buf *s)
{
        struct strmap seen = STRMAP_INIT;
        char ip[ADDR_TEXT_MAX];

        buf_cstr(s, " set hairpin {\n  type ipv4_addr . ipv4_addr\n");
        for (size_t i = 0; i < n; i++) {
                for (size_t j = 0; j < v[i].nendpoints; j++) {
                        struct str text = { ip, addr_ip_text(&v[i].endpoints[j], ip) };
                        if (strmap_has(&seen, text))
                                continue;
                        buf_printf(s, "%s%s . %s", seen.live ? ",\n   " : "  elements = { ", ip, ip);
                        strmap_set(&seen, text, s);
                }
        }
        buf_cstr(s, seen.live ? " }\n }\n" : " }\n");
        strmap_fini(&seen);
}

static void script_port(const struct service_port *p, size_t index, struct buf *s)
{
        char ip[ADDR_TEXT_MAX];

        if (!p->nendpoints)
                return;
        buf_printf(s, " chain port_%zu {\n  meta l4proto %s dnat ip to ", index, proto_name(p));
        buf_printf(s, p->client_ip ? "jhash ip saddr mod %zu map { " : "numgen random mod %zu map { ", p->nendpoints);
        for (size_t i = 0; i < p->nendpoints; i++) {
                addr_ip_text(&p->endpoints[i], ip);
                buf_printf(s, "%s%zu : %s . %u", i ? ", " : "", i, ip, addr_port(&p->endpoints[i]));
        }
        buf_cstr(s, " }\n }\n");
}

void service_script(const struct service_port *v, size_t n, const struct cidr *range, const struct addr *dns, struct buf *s)
{
        char net[ADDR_TEXT_MAX], dns_ip[ADDR_TEXT_MAX];

        addr_ip_text(&range->base, net);
        addr_ip_text(dns, dns_ip);
        buf_cstr(s, "table ip postern_services { }\ndelete table ip postern_services\ntable ip postern_services {\n");
        for (size_t i = 0; i < n; i++) /* chains before the map that names them */
                script_port(&v[i], i, s);
        script_map(v, n, s);
        script_hairpin(v, n, s);
        buf_cstr(s, " chain prerouting {\n  type nat hook prerouting priority dstnat; policy accept;\n"
                    "  ip daddr . meta l4proto . th dport vmap @ports\n }\n"
                    " chain output {\n  type nat hook output priority -100; policy accept;\n"
                    "  ip daddr . meta l4proto . th dport vmap @ports\n }\n"
                    " chain postrouting {\n  type nat hook postrouting priority srcnat; policy accept;\n"
                    "  ip saddr . ip daddr @hairpin masquerade\n }\n");
        buf_printf(s,
                   " chain refuse {\n  type filter hook prerouting priority dstnat + 10; policy accept;\n"
                   "  ip daddr != %s ip daddr %s/%u meta l4proto tcp reject with tcp reset\n"
                   "  ip daddr != %s ip daddr %s/%u reject\n }\n}\n",
                   dns_ip, net, range->bits, dns_ip, net, range->bits);
}

int service_apply(const char *netns, const struct service_port *v, size_t n, const struct cidr *range, const struct addr *dns,
                  struct buf *error)
{
        struct buf script = BUF_INIT;

        service_script(v, n, range, dns, &script);
        int err = nft_run(netns, buf_z(&script), error);
        buf_fini(&script);
        return err;
}
