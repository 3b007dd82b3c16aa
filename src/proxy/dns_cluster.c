/* Hosts found by DNS. STRICT_DNS: every address of every name is a host. LOGICAL_DNS: one host, the first address. Each name has its own
 * rhythm: the answer's TTL or the configured interval, with jitter; after a failure, a back-off, and the hosts that were known stay.
 *
 * "No such name" is an answer, not a failure: the hosts go, as in Envoy. */
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "proxy/cluster_manager.h"
#include "proxy/cluster_private.h"
#include "proxy/ext.h"
#include "proxy/server.h"

#include "envoy/cluster.pb-c.h"
#include "envoy/cluster_dns.pb-c.h"
#include "envoy/core.pb-c.h"
#include "envoy/endpoint.pb-c.h"
#include "google/any.pb-c.h"

#include <stdlib.h>

enum { REFRESH_MIN_MS = 1000, ADDRESSES_MAX = 256 };

struct target {
        struct dns_cluster *dc;
        const Xds__LocalityLbEndpoints *loc; /* in the info's arena */
        const Xds__LbEndpoint *ep;
        struct str name;
        uint16_t port;
        struct dns_query *query;
        struct loop_timer timer;
        struct addr *v;
        unsigned n;
        bool answered; /* once, well or badly */
        uint64_t backoff_ms;
};

struct dns_cluster {
        struct cluster_main *c;
        struct dns *dns;
        enum dns_family family;
        uint64_t refresh_ms, failure_ms, failure_max_ms, jitter_ms;
        bool respect_ttl;
        struct target *v;
        size_t n;
};

static void resolve(struct target *t);

static void timer_fired(struct loop_timer *t)
{
        resolve(t->arg);
}

static void rebuild(struct dns_cluster *dc)
{
        size_t n = 0;
        struct host_list *l;

        for (size_t i = 0; i < dc->n; i++) {
                if (!dc->v[i].answered)
                        return; /* the first list waits for all names */
                n += dc->v[i].n;
        }
        l = host_list_new(n);
        for (size_t i = 0; i < dc->n; i++) {
                struct target *t = &dc->v[i];

                for (unsigned j = 0; j < t->n; j++) {
                        bool seen = false;

                        for (size_t k = 0; k < l->n; k++)
                                seen = seen || addr_eq(&l->v[k]->addr, &t->v[j]);
                        if (seen)
                                continue;
                        struct host_desc *h = cluster_main_desc(dc->c, &t->v[j]);

                        host_desc_fill(h, t->loc, t->ep);
                        h->hostname = (struct str){ str_dup(t->name), t->name.n };
                        l->v[l->n++] = h;
                }
        }
        cluster_main_set_hosts(dc->c, l);
        cluster_main_ready(dc->c);
}

static int addr_order(const void *a, const void *b)
{
        const struct addr *x = a, *y = b;

        if (x->len != y->len)
                return x->len < y->len ? -1 : 1;
        return memcmp(&x->sa, &y->sa, x->len);
}

static void take(struct target *t, const struct dns_result *r)
{
        bool logical = t->dc->c->info->type == CLUSTER_LOGICAL_DNS;

        t->n = r->n < ADDRESSES_MAX ? r->n : ADDRESSES_MAX;
        if (logical && t->n > 1)
                t->n = 1;
        t->v = mem_realloc(t->v, (t->n ? t->n : 1) * sizeof(*t->v));
        for (unsigned i = 0; i < t->n; i++) {
                t->v[i] = r->v[i];
                addr_set_port(&t->v[i], t->port);
        }
        if (!logical && t->n) /* servers rotate answers: the same set is the same list */
                qsort(t->v, t->n, sizeof(*t->v), addr_order);
}

static void answered(void *arg, const struct dns_result *r)
{
        struct target *t = arg;
        struct dns_cluster *dc = t->dc;
        struct server *s = cluster_manager_server(dc->c->manager);
        uint64_t wait = dc->refresh_ms;

        t->query = NULL;
        t->answered = true;
        if (r->ok || r->not_found) {
                struct dns_result none = { 0 };

                take(t, r->ok ? r : &none);
                stat_inc(s->stats_main, cluster_stat(dc->c->info, CS_UPDATE_SUCCESS));
                if (!t->n)
                        stat_inc(s->stats_main, cluster_stat(dc->c->info, CS_UPDATE_EMPTY));
                if (r->ok && dc->respect_ttl && r->ttl_s)
                        wait = (uint64_t)r->ttl_s * 1000;
                t->backoff_ms = 0;
        } else {
                LOG(LOG_DEBUG, "dns", "%.*s: %s", STR_ARG(t->name), r->error ? r->error : "failed");
                stat_inc(s->stats_main, cluster_stat(dc->c->info, CS_UPDATE_FAILURE));
        }
        if (!r->ok && dc->failure_ms) {
                t->backoff_ms = t->backoff_ms ? t->backoff_ms * 2 : dc->failure_ms;
                if (t->backoff_ms > dc->failure_max_ms)
                        t->backoff_ms = dc->failure_max_ms;
                wait = (uint64_t)(rand_unit() * (double)t->backoff_ms);
        }
        if (wait < REFRESH_MIN_MS)
                wait = REFRESH_MIN_MS;
        if (dc->jitter_ms)
                wait += rand_u64() % dc->jitter_ms;
        loop_timer_arm(s->loop, &t->timer, wait);
        rebuild(dc);
}

static void resolve(struct target *t)
{
        struct dns_cluster *dc = t->dc;

        stat_inc(cluster_manager_server(dc->c->manager)->stats_main, cluster_stat(dc->c->info, CS_UPDATE_ATTEMPT));
        t->query = dns_resolve(dc->dns, t->name, dc->family, answered, t);
}

static enum dns_family family_of(int wire)
{
        switch (wire) {
        case XDS__CLUSTER__DNS_LOOKUP_FAMILY__V4_ONLY:
                return DNS_V4_ONLY;
        case XDS__CLUSTER__DNS_LOOKUP_FAMILY__V6_ONLY:
                return DNS_V6_ONLY;
        case XDS__CLUSTER__DNS_LOOKUP_FAMILY__V4_PREFERRED:
                return DNS_V4_PREFERRED;
        case XDS__CLUSTER__DNS_LOOKUP_FAMILY__ALL:
                return DNS_ALL;
        default:
                return DNS_AUTO;
        }
}

/* The intervals, from the cluster or from a DnsCluster extension, which has the same fields. */
static void settings(struct dns_cluster *dc, const Xds__Cluster *p, struct arena *a, const struct diag_at *at, struct diags *d)
{
        const Gp__Duration *refresh = p->dns_refresh_rate, *jitter = p->dns_jitter, *base = NULL, *max = NULL;

        dc->respect_ttl = p->respect_dns_ttl;
        dc->family = family_of((int)p->dns_lookup_family);
        if (p->dns_failure_refresh_rate) {
                base = p->dns_failure_refresh_rate->base_interval;
                max = p->dns_failure_refresh_rate->max_interval;
        }
        if (p->cluster_discovery_type_case == XDS__CLUSTER__CLUSTER_DISCOVERY_TYPE_CLUSTER_TYPE) {
                struct diag_at sub = at_path(a, at, ".cluster_type.typed_config");
                struct ext e;

                if (!ext_read(p->cluster_type->typed_config, a, &sub, d, &e))
                        return;
                const Xds__DnsCluster *x = (const Xds__DnsCluster *)e.msg;

                refresh = x->dns_refresh_rate;
                jitter = x->dns_jitter;
                dc->respect_ttl = x->respect_dns_ttl;
                if (x->dns_failure_refresh_rate) {
                        base = x->dns_failure_refresh_rate->base_interval;
                        max = x->dns_failure_refresh_rate->max_interval;
                }
                dc->family = x->dns_lookup_family ? family_of((int)x->dns_lookup_family - 1) : DNS_AUTO;
        }
        struct diag_at sub = at_path(a, at, ".dns_refresh_rate");

        dc->refresh_ms = duration_ms(refresh, 5000, &sub, d);
        if (refresh && dc->refresh_ms == 0)
                diag_add(d, DIAG_ERROR, NULL, &sub, "must be more than 0");
        sub = at_path(a, at, ".dns_failure_refresh_rate");
        dc->failure_ms = duration_ms(base, 0, &sub, d);
        dc->failure_max_ms = duration_ms(max, dc->failure_ms * 10, &sub, d);
        sub = at_path(a, at, ".dns_jitter");
        dc->jitter_ms = duration_ms(jitter, 0, &sub, d);
}

static void target_init(struct dns_cluster *dc, struct target *t, const Xds__LocalityLbEndpoints *loc, const Xds__LbEndpoint *ep,
                        const struct diag_at *at, struct diags *d)
{
        const Xds__Address *ad = ep->host_identifier_case == XDS__LB_ENDPOINT__HOST_IDENTIFIER_ENDPOINT ? ep->endpoint->address : NULL;

        t->dc = dc;
        t->loc = loc;
        t->ep = ep;
        t->timer.fn = timer_fired;
        t->timer.arg = t;
        if (!ad || ad->address_case != XDS__ADDRESS__ADDRESS_SOCKET_ADDRESS || !ad->socket_address->address ||
            !ad->socket_address->address[0]) {
                diag_add(d, DIAG_ERROR, NULL, at, "endpoint.address.socket_address is missing: a DNS cluster needs names");
                return;
        }
        if (ad->socket_address->port_specifier_case != XDS__SOCKET_ADDRESS__PORT_SPECIFIER_PORT_VALUE ||
            ad->socket_address->port_value > 65535) {
                diag_add(d, DIAG_ERROR, NULL, at, "endpoint.address.socket_address.port_value must be a port (0 to 65535)");
                return;
        }
        t->name = str_of(ad->socket_address->address);
        t->port = (uint16_t)ad->socket_address->port_value;
}

struct dns_cluster *dns_cluster_new(struct cluster_main *c, const struct diag_at *at, struct diags *d)
{
        const Xds__Cluster *p = c->info->proto;
        const Xds__ClusterLoadAssignment *cla = p->load_assignment;
        struct dns_cluster *dc = MEM_NEW(struct dns_cluster);
        size_t errors = d->errors, n = 0;
        struct arena a;

        arena_init(&a, 512);
        dc->c = c;
        settings(dc, p, &a, at, d);
        for (size_t i = 0; cla && i < cla->n_endpoints; i++)
                n += cla->endpoints[i]->n_lb_endpoints;
        dc->v = mem_calloc(n ? n : 1, sizeof(*dc->v));
        for (size_t i = 0; cla && i < cla->n_endpoints; i++)
                for (size_t j = 0; j < cla->endpoints[i]->n_lb_endpoints; j++) {
                        struct diag_at sub = at_path(&a, at, ".load_assignment.endpoints[%zu].lb_endpoints[%zu]", i, j);

                        target_init(dc, &dc->v[dc->n++], cla->endpoints[i], cla->endpoints[i]->lb_endpoints[j], &sub, d);
                }
        if (c->info->type == CLUSTER_LOGICAL_DNS && dc->n != 1) {
                struct diag_at sub = at_path(&a, at, ".load_assignment");

                diag_add(d, DIAG_ERROR, NULL, &sub,
                         "LOGICAL_DNS clusters must have a single locality_lb_endpoint and a single lb_endpoint");
        }
        if (d->errors == errors && c->manager && cluster_manager_server(c->manager)->opts.mode == SERVER_SERVE)
                dc->dns = cluster_manager_dns(c->manager, p, at, d);
        arena_fini(&a);
        if (d->errors != errors) {
                dns_cluster_free(dc);
                return NULL;
        }
        return dc;
}

void dns_cluster_start(struct dns_cluster *dc)
{
        if (!dc->dns)
                return;
        for (size_t i = 0; i < dc->n; i++)
                resolve(&dc->v[i]);
        if (!dc->n)
                rebuild(dc);
}

void dns_cluster_free(struct dns_cluster *dc)
{
        if (!dc)
                return;
        for (size_t i = 0; i < dc->n; i++) {
                if (dc->v[i].query)
                        dns_cancel(dc->v[i].query);
                if (dc->v[i].dc)
                        loop_timer_stop(cluster_manager_loop(dc->c->manager), &dc->v[i].timer);
                free(dc->v[i].v);
        }
        free(dc->v);
        free(dc);
}
