/* The connection under the ADS client: resolve, connect, HTTP/2, one gRPC stream; and when it ends, after a while, again. Targets are tried
 * in turn. A stream that was answered resets the back-off, one that ends before does not: a server that accepts and hangs up is no server.
 */
#include "base/log.h"
#include "base/mem.h"
#include "xds/client.h"

#include <stdlib.h>

/* What the callbacks of a stream and its connection are given: it outlives the client's interest in them. */
struct client_link {
        struct xds_client *client; /* NULL: let go */
        struct http_conn *http;
        unsigned refs;
};

enum { BACKOFF_MIN_MS = 500, BACKOFF_MAX_MS = 30000, CONNECT_TIMEOUT_MS = 5000, KEEPALIVE_MS = 30000 };

static void retry_later(struct xds_client *c, const char *why)
{
        c->backoff_ms = c->backoff_ms ? c->backoff_ms * 2 : BACKOFF_MIN_MS;
        if (c->backoff_ms > BACKOFF_MAX_MS)
                c->backoff_ms = BACKOFF_MAX_MS;
        unsigned ms = c->backoff_ms / 2 + (unsigned)(rand_unit() * c->backoff_ms / 2);
        struct str target = c->targets[(c->next_target + c->ntargets - 1) % c->ntargets];
        bool news = !c->trouble || strcmp(c->trouble, why) != 0;

        LOG(news ? LOG_WARN : LOG_DEBUG, "xds", "control plane " STR_FMT ": %s; next try in %u ms", STR_ARG(target), why, ms);
        if (news) {
                free(c->trouble);
                c->trouble = mem_strdup(why);
        }
        loop_timer_arm(c->loop, &c->retry, ms);
}

/* ---- the stream ---- */

static void on_message(struct grpc_call *g, void *arg, struct str msg)
{
        struct xds_client *c = ((struct client_link *)arg)->client;

        if (!c)
                return;
        if (!client_on_message(c, msg)) {
                LOG(LOG_WARN, "xds", "control plane: %zu bytes that are no discovery response; starting over", msg.n);
                grpc_cancel(g);
                return;
        }
        if (!c->answered)
                LOG(LOG_INFO, "xds", "control plane: connected (%s)", c->delta ? "delta" : "state of the world");
        c->answered = true;
        c->backoff_ms = 0;
        free(c->trouble);
        c->trouble = NULL;
}

static void link_unref(struct client_link *k)
{
        if (--k->refs == 0)
                free(k);
}

/* The client lets go of its connection; what is still to be called back for it finds no client. */
static void drop_link(struct xds_client *c)
{
        struct client_link *k = c->link;

        c->link = NULL;
        c->call = NULL;
        if (!k)
                return;
        k->client = NULL;
        if (k->http)
                http_conn_close(k->http);
        link_unref(k);
}

static void on_end(struct grpc_call *g, void *arg, int status, struct str text)
{
        struct client_link *k = arg;
        struct xds_client *c = k->client;

        link_unref(k);
        if (!c)
                return;
        client_stream_down(c);
        char *why = mem_printf("stream ended: %s%s" STR_FMT, grpc_status_name(status), text.n ? ": " : "", STR_ARG(text));
        drop_link(c);
        retry_later(c, why);
        free(why);
}

static const struct grpc_ops grpc_ops = { .on_message = on_message, .on_end = on_end };

static void open_stream(struct xds_client *c)
{
        struct str target = c->targets[(c->next_target + c->ntargets - 1) % c->ntargets];
        struct str path = c->delta ? STR("/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources")
                                   : STR("/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources");
        struct str authority = c->authority.n ? c->authority : str_starts(target, STR("unix:")) ? STR("localhost") : target;

        c->answered = false;
        struct grpc_opts o = { .headers = c->metadata, .nheaders = c->nmetadata };

        c->call = grpc_call_new(c->link->http, authority, path, &o, &grpc_ops, c->link);
        if (!c->call) {
                drop_link(c);
                retry_later(c, "the connection takes no stream");
                return;
        }
        c->link->refs++;
        client_stream_up(c);
}

/* ---- the connection ---- */

static void on_http_close(struct http_conn *h, void *arg)
{
        struct client_link *k = arg;

        k->http = NULL;
        link_unref(k);
}

static const struct http_conn_ops http_ops = { .on_close = on_http_close };

static void on_io_connect(struct conn *io, void *arg, int err)
{
        struct xds_client *c = arg;

        if (err) {
                char *why = mem_strdup(conn_error_text(io));

                c->io = NULL;
                conn_close(io, false);
                retry_later(c, why);
                free(why);
                return;
        }
        c->io = NULL;
        c->link = MEM_NEW(struct client_link);
        c->link->client = c;
        c->link->refs = 2; /* the client's and the connection's */
        c->link->http = http_client_h2(io, NULL, &http_ops, c->link);
        open_stream(c);
}

static void on_io_nothing(struct conn *io, void *arg)
{
}

static const struct conn_ops io_ops = { on_io_connect, on_io_nothing, on_io_nothing };

static void connect_to(struct xds_client *c, const struct addr *to, struct str host)
{
        unsigned s = (c->keepalive_ms + 999) / 1000;
        struct sock_keepalive keepalive = { .on = true, .time_s = s, .interval_s = s < 5 ? s : 5, .probes = 3 };
        struct conn_connect_opts o = {
                .timeout_ms = CONNECT_TIMEOUT_MS,
                .tls = c->tls,
                .sni = c->sni.n ? c->sni : host,
                .alpn = STR("h2"),
                .keepalive = to->sa.sa_family == AF_UNIX ? NULL : &keepalive,
        };

        c->io = conn_connect(c->loop, to, &o, &io_ops, c);
}

/* "host:port" as host and port. */
static bool split(struct str target, struct str *host, uint16_t *port)
{
        ptrdiff_t colon = str_rchr(target, ':');
        uint64_t n;

        if (colon <= 0 || !str_u64(str_sub(target, (size_t)colon + 1, target.n), &n) || n == 0 || n > 65535)
                return false;
        *host = str_sub(target, 0, (size_t)colon);
        *port = (uint16_t)n;
        return true;
}

static void on_resolved(void *arg, const struct dns_result *r)
{
        struct xds_client *c = arg;
        struct str target = c->targets[(c->next_target + c->ntargets - 1) % c->ntargets], host;
        uint16_t port;

        c->query = NULL;
        if (!r->ok || !split(target, &host, &port)) {
                char *why = mem_printf("its name cannot be resolved: %s", r->error ? r->error : "");

                retry_later(c, why);
                free(why);
                return;
        }
        struct addr to = r->v[rand_u64() % r->n];
        addr_set_port(&to, port);
        connect_to(c, &to, host);
}

static void start(struct loop_timer *t)
{
        struct xds_client *c = t->arg;
        struct str target = c->targets[c->next_target++ % c->ntargets], host = STR("");
        struct addr to;
        uint16_t port;

        if (addr_parse(&to, target)) {
                if (split(target, &host, &port) && host.n > 2 && host.p[0] == '[')
                        host = str_sub(host, 1, host.n - 2);
                connect_to(c, &to, host);
        } else if (!split(target, &host, &port)) {
                retry_later(c, "not an address of the form HOST:PORT or unix:/PATH");
        } else if (!c->dns && !(c->dns = dns_new(c->loop, NULL, 0, false, false))) {
                retry_later(c, "the resolver cannot be set up");
        } else {
                c->query = dns_resolve(c->dns, host, DNS_V4_PREFERRED, on_resolved, c);
        }
}

void client_link_init(struct xds_client *c, const struct xds_client_opts *o)
{
        c->targets = mem_calloc(o->ntargets, sizeof(*c->targets));
        for (unsigned i = 0; i < o->ntargets; i++)
                c->targets[c->ntargets++] = str_of(str_dup(o->targets[i]));
        c->metadata = mem_calloc(o->nmetadata, sizeof(*c->metadata));
        for (unsigned i = 0; i < o->nmetadata; i++)
                c->metadata[c->nmetadata++] = (struct http_hdr){ .name = str_of(str_dup(o->metadata[i].name)),
                                                                 .value = str_of(str_dup(o->metadata[i].value)) };
        c->tls = o->tls ? tls_ctx_ref(o->tls) : NULL;
        c->sni = str_of(str_dup(o->sni));
        c->authority = str_of(str_dup(o->authority));
        c->keepalive_ms = o->keepalive_ms ? o->keepalive_ms : KEEPALIVE_MS;
        c->retry = (struct loop_timer){ .fn = start, .arg = c };
        if (c->ntargets)
                loop_timer_arm(c->loop, &c->retry, 0);
}

void client_link_fini(struct xds_client *c)
{
        loop_timer_stop(c->loop, &c->retry);
        dns_cancel(c->query);
        dns_free(c->dns);
        drop_link(c);
        conn_close(c->io, false);
        for (unsigned i = 0; i < c->ntargets; i++)
                free((char *)c->targets[i].p);
        for (unsigned i = 0; i < c->nmetadata; i++) {
                free((char *)c->metadata[i].name.p);
                free((char *)c->metadata[i].value.p);
        }
        free(c->metadata);
        free(c->targets);
        free((char *)c->sni.p);
        free((char *)c->authority.p);
        tls_ctx_unref(c->tls);
}
