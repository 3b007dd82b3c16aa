/* DNS over c-ares. c-ares may call back from inside the call that asks (for /etc/hosts, or when no server can be reached); ours are always
 * deferred, so that users need not care. A cancelled query stays with c-ares, which cannot drop one, and is freed when it ends there. */
#include "net/dns.h"

#include "base/buf.h"
#include "base/mem.h"

#include <ares.h>
#include <errno.h>
#include <netdb.h>
#include <stdlib.h>
#include <sys/queue.h>

enum { TIMEOUT_MS = 2000, TRIES = 3, NAME_MAX_BYTES = 253, MAX_ADDRS = 64 };

struct dns_socket {
        LIST_ENTRY(dns_socket) link;
        struct loop_watch watch;
};

struct dns_query {
        LIST_ENTRY(dns_query) link;
        struct dns *dns;
        enum dns_family family;
        void (*fn)(void *arg, const struct dns_result *r);
        void *arg;
        bool with_ares, cancelled;
        struct loop_task done;
        struct addr *v;
        unsigned n, ttl_s;
        int status; /* ARES_* */
};

struct dns {
        struct loop *loop;
        ares_channel channel;
        struct loop_timer timer;
        LIST_HEAD(, dns_socket) sockets;
        LIST_HEAD(, dns_query) queries;
};

/* ---- c-ares's sockets and timeouts on the loop ---- */

static void schedule(struct dns *d)
{
        struct timeval tv, *t = ares_timeout(d->channel, NULL, &tv);

        if (t)
                loop_timer_arm(d->loop, &d->timer, (uint64_t)t->tv_sec * 1000 + (uint64_t)t->tv_usec / 1000);
        else
                loop_timer_stop(d->loop, &d->timer);
}

static void on_timer(struct loop_timer *t)
{
        struct dns *d = t->arg;

        ares_process_fd(d->channel, ARES_SOCKET_BAD, ARES_SOCKET_BAD);
        schedule(d);
}

static void on_socket(struct loop_watch *w, unsigned ready)
{
        struct dns *d = w->arg;
        int fd = w->fd; /* w may be gone when c-ares returns */

        ares_process_fd(d->channel, ready & (LOOP_READ | LOOP_HUP) ? fd : ARES_SOCKET_BAD,
                        ready & (LOOP_WRITE | LOOP_HUP) ? fd : ARES_SOCKET_BAD);
        schedule(d);
}

static void on_socket_state(void *arg, ares_socket_t fd, int readable, int writable)
{
        struct dns *d = arg;
        unsigned want = (readable ? LOOP_READ : 0) | (writable ? LOOP_WRITE : 0);
        struct dns_socket *s;

        LIST_FOREACH (s, &d->sockets, link)
                if (s->watch.fd == fd)
                        break;
        if (!want) {
                if (!s)
                        return;
                loop_unwatch(d->loop, &s->watch);
                LIST_REMOVE(s, link);
                free(s);
                return;
        }
        if (s) {
                loop_watch_change(d->loop, &s->watch, want | LOOP_LEVEL);
                return;
        }
        s = MEM_NEW(struct dns_socket);
        if (loop_watch(d->loop, &s->watch, fd, want | LOOP_LEVEL, on_socket, d) < 0) {
                free(s); /* the query will time out */
                return;
        }
        LIST_INSERT_HEAD(&d->sockets, s, link);
}

/* ---- life ---- */

static int set_servers(struct dns *d, const struct str *servers, unsigned n)
{
        struct buf csv = BUF_INIT;
        struct addr a;

        for (unsigned i = 0; i < n; i++) {
                char text[ADDR_TEXT_MAX];

                if (!addr_parse(&a, servers[i]) && !addr_parse_ip(&a, servers[i], 53)) {
                        buf_fini(&csv);
                        return ARES_EBADSTR;
                }
                addr_text(&a, text);
                buf_printf(&csv, "%s%s", i ? "," : "", text);
        }
        int r = ares_set_servers_ports_csv(d->channel, buf_z(&csv));
        buf_fini(&csv);
        return r;
}

struct dns *dns_new(struct loop *l, const struct str *servers, unsigned nservers, bool use_tcp, bool no_search)
{
        struct dns *d = MEM_NEW(struct dns);
        struct ares_options o = {
                .flags = (use_tcp ? ARES_FLAG_USEVC : 0) | (no_search ? ARES_FLAG_NOSEARCH : 0),
                .timeout = TIMEOUT_MS,
                .tries = TRIES,
                .sock_state_cb = on_socket_state,
                .sock_state_cb_data = d,
        };

        d->loop = l;
        d->timer.fn = on_timer;
        d->timer.arg = d;
        if (ares_init_options(&d->channel, &o, ARES_OPT_FLAGS | ARES_OPT_TIMEOUTMS | ARES_OPT_TRIES | ARES_OPT_SOCK_STATE_CB) !=
            ARES_SUCCESS) {
                free(d);
                errno = ENOMEM;
                return NULL;
        }
        if (nservers && set_servers(d, servers, nservers) != ARES_SUCCESS) {
                ares_destroy(d->channel);
                free(d);
                errno = EINVAL;
                return NULL;
        }
        return d;
}

static void query_free(struct dns_query *q)
{
        loop_undefer(q->dns->loop, &q->done);
        LIST_REMOVE(q, link);
        free(q->v);
        free(q);
}

void dns_free(struct dns *d)
{
        struct dns_query *q, *next;

        if (!d)
                return;
        LIST_FOREACH (q, &d->queries, link)
                q->cancelled = true;
        ares_destroy(d->channel); /* ends what it has: see on_answer() */
        for (q = LIST_FIRST(&d->queries); q; q = next) {
                next = LIST_NEXT(q, link);
                query_free(q);
        }
        loop_timer_stop(d->loop, &d->timer);
        free(d);
}

/* ---- asking ---- */

static const char *status_text(int status)
{
        switch (status) {
        case ARES_ENOTFOUND:
        case ARES_ENODATA:
                return "no such host";
        case ARES_ETIMEOUT:
                return "timed out";
        case ARES_ECONNREFUSED:
                return "no DNS server gave an answer"; /* refused, SERVFAIL from all: c-ares does not tell them apart */
        case ARES_ESERVFAIL:
                return "the DNS server failed";
        case ARES_EREFUSED:
                return "the DNS server refused";
        case ARES_EBADNAME:
                return "not a host name";
        default:
                return ares_strerror(status);
        }
}

static void on_done(struct loop_task *t)
{
        struct dns_query *q = t->arg;
        struct dns_result r = {
                .ok = q->status == ARES_SUCCESS && q->n,
                .v = q->v,
                .n = q->n,
                .ttl_s = q->ttl_s,
        };

        if (!r.ok) {
                int status = q->status == ARES_SUCCESS ? ARES_ENODATA : q->status;

                r.error = status_text(status);
                r.not_found = status == ARES_ENOTFOUND || status == ARES_ENODATA || status == ARES_EBADNAME;
        }
        q->fn(q->arg, &r);
        query_free(q);
}

static void take_family(struct dns_query *q, const struct ares_addrinfo *res, int family)
{
        for (const struct ares_addrinfo_node *n = res->nodes; n && q->n < MAX_ADDRS; n = n->ai_next) {
                if (n->ai_family != family || n->ai_addrlen > sizeof(q->v[0].v6))
                        continue;
                struct addr *a = &q->v[q->n++];
                memset(a, 0, sizeof(*a));
                memcpy(&a->sa, n->ai_addr, n->ai_addrlen);
                a->len = n->ai_addrlen;
                addr_set_port(a, 0);
                unsigned ttl = n->ai_ttl > 0 ? (unsigned)n->ai_ttl : 0;
                if (q->n == 1 || ttl < q->ttl_s)
                        q->ttl_s = ttl;
        }
}

static void take(struct dns_query *q, const struct ares_addrinfo *res)
{
        q->v = mem_calloc(MAX_ADDRS, sizeof(*q->v));
        switch (q->family) {
        case DNS_V4_ONLY:
                take_family(q, res, AF_INET);
                break;
        case DNS_V6_ONLY:
                take_family(q, res, AF_INET6);
                break;
        case DNS_AUTO:
                take_family(q, res, AF_INET6);
                if (!q->n)
                        take_family(q, res, AF_INET);
                break;
        case DNS_V4_PREFERRED:
                take_family(q, res, AF_INET);
                if (!q->n)
                        take_family(q, res, AF_INET6);
                break;
        case DNS_ALL:
                take_family(q, res, AF_INET6);
                take_family(q, res, AF_INET);
                break;
        }
        q->v = mem_realloc(q->v, (q->n ? q->n : 1) * sizeof(*q->v));
}

static void on_answer(void *arg, int status, int timeouts, struct ares_addrinfo *res)
{
        struct dns_query *q = arg;

        q->with_ares = false;
        q->status = status;
        if (q->cancelled || status == ARES_EDESTRUCTION) {
                query_free(q);
        } else {
                if (status == ARES_SUCCESS)
                        take(q, res);
                loop_defer(q->dns->loop, &q->done);
        }
        ares_freeaddrinfo(res);
}

struct dns_query *dns_resolve(struct dns *d, struct str name, enum dns_family f, void (*fn)(void *arg, const struct dns_result *r),
                              void *arg)
{
        struct ares_addrinfo_hints hints = { .ai_flags = ARES_AI_NOSORT, .ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM };
        struct dns_query *q = MEM_NEW(struct dns_query);
        struct addr literal;

        *q = (struct dns_query){ .dns = d, .family = f, .fn = fn, .arg = arg, .done = { .fn = on_done, .arg = q } };
        LIST_INSERT_HEAD(&d->queries, q, link);
        if (addr_parse_ip(&literal, name, 0)) {
                q->v = mem_dup(&literal, sizeof(literal));
                q->n = 1;
                q->ttl_s = UINT32_MAX;
                loop_defer(d->loop, &q->done);
                return q;
        }
        if (name.n == 0 || name.n > NAME_MAX_BYTES + 1 || memchr(name.p, '\0', name.n)) {
                q->status = ARES_EBADNAME;
                loop_defer(d->loop, &q->done);
                return q;
        }
        if (f == DNS_V4_ONLY)
                hints.ai_family = AF_INET;
        else if (f == DNS_V6_ONLY)
                hints.ai_family = AF_INET6;
        char z[NAME_MAX_BYTES + 2];
        memcpy(z, name.p, name.n);
        z[name.n] = '\0';
        q->with_ares = true;
        ares_getaddrinfo(d->channel, z, NULL, &hints, on_answer, q);
        schedule(d);
        return q;
}

void dns_cancel(struct dns_query *q)
{
        if (!q)
                return;
        q->cancelled = true;
        if (!q->with_ares)
                query_free(q);
}
