/* The names are those of Kubernetes' DNS specification:
 *
 *      SVC.NS.svc.DOMAIN                   the virtual address, or for a headless Service every ready endpoint
 *      HOST.SVC.NS.svc.DOMAIN              one endpoint of a headless Service: its hostname, or its address with dashes
 *      _PORT._PROTO.SVC.NS.svc.DOMAIN      SRV
 *      10-244-0-7.NS.pod.DOMAIN            a pod that has this address now
 *      D.C.B.A.in-addr.arpa                PTR of a Service's address */
#include "node/dnszone.h"
#include "node/internet.h"
#include "node/services.h"

#include <stdio.h>

enum { ZONE_TTL_S = 5, ZONE_LABELS_MAX = 8 };

struct zone_query {
        struct node *node;
        struct str ns, service, host;
        struct str domain;
        enum dns_kind kind;
        struct dns_found *found;
        uint16_t port;  /* SRV */
        struct addr ip; /* PTR */
};

/* Splits into labels from the left. 0: too many. */
static unsigned split(struct str name, struct str label[ZONE_LABELS_MAX])
{
        unsigned n = 0;

        while (str_next(&name, '.', &label[n]))
                if (++n == ZONE_LABELS_MAX)
                        return 0;
        return n;
}

static void add_ip(struct dns_found *f, const struct addr *ip)
{
        dns_found_add(f, ip->sa.sa_family == AF_INET6 ? DNS_AAAA : DNS_A, ip, STR(""), 0);
}

/* An endpoint's own label: its hostname, or its address with dashes. */
static struct str endpoint_label(const struct services_endpoint *e, char out[ADDR_TEXT_MAX])
{
        if (e->hostname.n)
                return e->hostname;
        size_t n = addr_ip_text(&e->ip, out);
        for (char *p = out; *p; p++)
                if (*p == '.' || *p == ':')
                        *p = '-';
        return str_make(out, n);
}

static void on_endpoint(void *arg, const struct services_endpoint *e)
{
        struct zone_query *q = arg;
        char label_text[ADDR_TEXT_MAX], target[DNS_NAME_MAX + 1];
        struct str label = endpoint_label(e, label_text);

        if (!e->ready || (q->host.n && !str_eq(q->host, label)))
                return;
        q->found->exists = true;
        if (q->kind == DNS_SRV) {
                int n = snprintf(target, sizeof(target), STR_FMT "." STR_FMT "." STR_FMT ".svc." STR_FMT, STR_ARG(label),
                                 STR_ARG(q->service), STR_ARG(q->ns), STR_ARG(q->domain));
                if (n > 0 && (size_t)n < sizeof(target))
                        dns_found_add(q->found, DNS_SRV, NULL, str_of(target), q->port);
        } else {
                add_ip(q->found, &e->ip);
        }
}

static void service_name(struct zone_query *q, const struct kube_object *o)
{
        struct str ip = spec_str(o->node, "spec.clusterIP");
        struct addr vip;

        q->found->exists = true;
        if (str_eqc(spec_str(o->node, "spec.type"), "ExternalName"))
                dns_found_add(q->found, DNS_CNAME, NULL, spec_str(o->node, "spec.externalName"), 0);
        else if (str_eqc(ip, "None"))
                services_endpoints(q->node, q->ns, q->service, on_endpoint, q);
        else if (addr_parse_ip(&vip, ip, 0))
                add_ip(q->found, &vip);
}

static void service_srv(struct zone_query *q, const struct kube_object *o, struct str port, struct str protocol)
{
        const struct pb_node *ports = spec_list(o->node, "spec.ports");
        struct str ip = spec_str(o->node, "spec.clusterIP");
        char target[DNS_NAME_MAX + 1];

        for (size_t i = 0; i < ports->n; i++) {
                struct str name = spec_str(ports->v[i], "name"), is = spec_str(ports->v[i], "protocol");
                if (!str_eq_nocase(name, str_sub(port, 1, port.n)) ||
                    !str_eq_nocase(is.n ? is : STR("TCP"), str_sub(protocol, 1, protocol.n)))
                        continue;
                q->found->exists = true;
                q->port = (uint16_t)spec_int(ports->v[i], "port", 0);
                q->kind = DNS_SRV;
                if (str_eqc(ip, "None")) {
                        services_endpoints(q->node, q->ns, q->service, on_endpoint, q);
                        continue;
                }
                int n = snprintf(target, sizeof(target), STR_FMT "." STR_FMT ".svc." STR_FMT, STR_ARG(q->service), STR_ARG(q->ns),
                                 STR_ARG(q->domain));
                if (n > 0 && (size_t)n < sizeof(target))
                        dns_found_add(q->found, DNS_SRV, NULL, str_of(target), q->port);
        }
}

static void lookup_service(struct zone_query *q, struct str rest)
{
        struct str label[ZONE_LABELS_MAX];
        unsigned n = split(rest, label);

        if (n < 2 || n > 4)
                return;
        q->ns = label[n - 1];
        q->service = label[n - 2];
        struct kube_object *o = kube_informer_get(q->node->services, q->ns, q->service);
        if (!o)
                return;
        if (n == 2) {
                service_name(q, o);
        } else if (n == 3) {
                q->host = label[0];
                if (str_eqc(spec_str(o->node, "spec.clusterIP"), "None"))
                        services_endpoints(q->node, q->ns, q->service, on_endpoint, q);
        } else if (label[0].n > 1 && label[1].n > 1 && label[0].p[0] == '_' && label[1].p[0] == '_') {
                service_srv(q, o, label[0], label[1]);
        }
}

static void lookup_pod(struct zone_query *q, struct str rest)
{
        struct str label[ZONE_LABELS_MAX];
        char text[64];
        struct addr ip;

        if (split(rest, label) != 2 || label[0].n >= sizeof(text))
                return;
        snprintf(text, sizeof(text), STR_FMT, STR_ARG(label[0]));
        for (char *p = text; *p; p++)
                if (*p == '-')
                        *p = '.';
        if (!addr_parse_ip(&ip, str_of(text), 0))
                return;
        STRMAP_EACH (&q->node->by_uid, e) {
                struct pod *p = e->value;
                if (p->have_ip && str_eqc(label[1], p->ns) && addr_ip_eq(&p->ip, &ip)) {
                        q->found->exists = true;
                        add_ip(q->found, &ip);
                        return;
                }
        }
}

static void ptr_service(void *arg, struct kube_object *o)
{
        struct zone_query *q = arg;
        char name[DNS_NAME_MAX + 1];
        struct addr vip;

        if (q->found->exists || !addr_parse_ip(&vip, spec_str(o->node, "spec.clusterIP"), 0) || !addr_ip_eq(&vip, &q->ip))
                return;
        int n = snprintf(name, sizeof(name), STR_FMT "." STR_FMT ".svc." STR_FMT, STR_ARG(o->name), STR_ARG(o->namespace_),
                         STR_ARG(q->domain));
        if (n > 0 && (size_t)n < sizeof(name)) {
                q->found->exists = true;
                dns_found_add(q->found, DNS_PTR, NULL, str_of(name), 0);
        }
}

/* False: not an address that could be ours. */
static bool lookup_ptr(struct zone_query *q, struct str rest)
{
        struct str label[ZONE_LABELS_MAX];
        char text[64];

        if (split(rest, label) != 4 || rest.n > 15)
                return false;
        snprintf(text, sizeof(text), STR_FMT "." STR_FMT "." STR_FMT "." STR_FMT, STR_ARG(label[3]), STR_ARG(label[2]), STR_ARG(label[1]),
                 STR_ARG(label[0]));
        if (!addr_parse_ip(&q->ip, str_of(text), 0))
                return false;
        if (!cidr_has(&q->node->net.services, &q->ip) && !cidr_has(&q->node->net.pods, &q->ip))
                return false;
        kube_informer_each(q->node->services, ptr_service, q);
        return true;
}

static bool strip(struct str name, struct str suffix, struct str *rest)
{
        if (name.n < suffix.n + 2 || !str_ends(name, suffix) || name.p[name.n - suffix.n - 1] != '.')
                return false;
        *rest = str_sub(name, 0, name.n - suffix.n - 1);
        return true;
}

enum dns_lookup dnszone_lookup(void *arg, struct str name, enum dns_kind kind, struct dns_found *found)
{
        struct node *n = arg;
        struct zone_query q = { .node = n, .domain = str_of(n->domain), .kind = kind, .found = found };
        struct str rest, inner;

        found->ttl_s = ZONE_TTL_S;
        if (str_eq(name, q.domain) || strip(name, q.domain, &rest)) {
                found->exists = str_eq(name, q.domain) || str_eqc(rest, "svc") || str_eqc(rest, "pod");
                if (found->exists || !n->services)
                        return found->exists ? DNS_OURS : DNS_REFUSED;
                if (strip(rest, STR("svc"), &inner))
                        lookup_service(&q, inner);
                else if (strip(rest, STR("pod"), &inner))
                        lookup_pod(&q, inner);
                return DNS_OURS;
        }
        if (strip(name, STR("in-addr.arpa"), &rest) && n->services && lookup_ptr(&q, rest))
                return DNS_OURS;
        if (n->net.offline) {
                internet_lookup(name, found);
                return DNS_OURS;
        }
        if (kind == DNS_AAAA) {
                found->exists = true; /* there is no way out over IPv6: an address would only be waited for */
                return DNS_OURS;
        }
        return DNS_ELSEWHERE;
}
