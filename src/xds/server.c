/* The ADS server's connections, streams and requests. One stream is one peer. What a request means depends on its nonce: with the last one
 * it is an ACK or NACK, and says which names are wanted from now on; with none it is the first of its type; with an older one it crossed
 * our answer and is void, because the client will answer that answer, too. */
#include "xds/server.h"

#include "base/log.h"
#include "base/mem.h"
#include "pb/pb.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum {
        MAX_PEERS = 10000,
        REQUEST_MAX_BYTES = 16 << 20, /* a proxy that asks for very many names */
        NAMES_MAX = 200000,
        ID_MAX_BYTES = 1024,
        ACCEPTS_A_TURN = 64,
        ACCEPT_PAUSE_MS = 100,
};

#define SERVICE "/envoy.service.discovery.v3.AggregatedDiscoveryService/"

struct server_conn {
        LIST_ENTRY(server_conn) link;
        struct xds_server *server;
        struct conn *io; /* during the TLS handshake */
        struct http_conn *http;
        struct addr peer;
};

/* ---- requests ---- */

/* What both kinds of request come down to. */
struct request {
        enum xds_type type;
        const Xds__Node *node;
        struct str nonce;
        const Xds__Status *error;
        char **names, **gone;
        size_t nnames, ngone;
};

static void finish(struct xds_peer *p, int status, const char *text)
{
        if (p->finished)
                return;
        LOG(LOG_WARN, "xds", "%s: refused: %s", p->id, text);
        p->finished = true;
        grpc_finish(p->call, status, str_of(text));
}

/* The first request carries the node, which says who this is. */
static bool introduce(struct xds_peer *p, const Xds__Node *node)
{
        struct buf why = BUF_INIT;
        bool ok = true;

        if (p->known)
                return true;
        if (!node || !node->id || !*node->id || strlen(node->id) > ID_MAX_BYTES) {
                finish(p, GRPC_INVALID_ARGUMENT, "the first request must carry node.id, of at most 1024 bytes");
                return false;
        }
        free(p->id);
        p->id = mem_strdup(node->id);
        if (!p->server->ops->on_peer(p->server->arg, p, node, &why)) {
                finish(p, GRPC_INVALID_ARGUMENT, buf_z(&why));
                ok = false;
        } else {
                p->known = true;
                LOG(LOG_INFO, "xds", "%s: connected (%s)", p->id, p->delta ? "delta" : "state of the world");
        }
        buf_fini(&why);
        return ok;
}

static void on_verdict(struct xds_peer *p, struct peer_type *ty, const struct request *r)
{
        ty->waiting = false;
        ty->nonce_acked = ty->nonce;
        snprintf(ty->nonce_acked_text, sizeof(ty->nonce_acked_text), "%s", ty->nonce_text);
        free(ty->error);
        ty->error = NULL;
        if (!r->error) {
                ty->hash_acked = ty->hash_sent;
                return;
        }
        struct str text = str_of(r->error->message ? r->error->message : "no reason given");
        ty->error = str_dup(text);
        LOG(LOG_WARN, "xds", "%s: %s refused: " STR_FMT, p->id, xds_type_name(r->type), STR_ARG(text));
        if (p->server->ops->on_nack)
                p->server->ops->on_nack(p->server->arg, p, r->type, text);
}

static bool add_name(struct xds_peer *p, struct peer_type *ty, struct str name, bool again)
{
        struct peer_name *n = strmap_get(&ty->names, name);

        if (n && !again)
                return false;
        if (!n) {
                if (ty->names.live >= NAMES_MAX) {
                        finish(p, GRPC_RESOURCE_EXHAUSTED, "too many names are asked for");
                        return false;
                }
                n = MEM_NEW(struct peer_name);
                strmap_set(&ty->names, name, n);
        }
        n->fresh = true;
        ty->owed = true;
        return true;
}

static void remove_name(struct peer_type *ty, struct str name)
{
        free(strmap_del(&ty->names, name));
}

/* State of the world: the names are all that are wanted. */
static void set_names(struct xds_peer *p, struct peer_type *ty, const struct request *r, bool repeated)
{
        struct strmap now = STRMAP_INIT;
        size_t added = 0, removed = 0;

        for (size_t i = 0; i < r->nnames; i++) {
                strmap_set(&now, str_of(r->names[i]), p);
                added += add_name(p, ty, str_of(r->names[i]), false);
        }
        for (size_t i = 0; i < ty->names.n; i++) {
                struct strmap_entry *e = &ty->names.e[i];

                if (e->key.p && !strmap_has(&now, e->key)) {
                        remove_name(ty, e->key);
                        removed++;
                }
        }
        strmap_fini(&now);
        /* The same names again, and nothing to acknowledge: the client has lost what it had (Envoy asks so when a cluster was replaced). */
        if (!repeated || added || removed)
                return;
        STRMAP_EACH (&ty->names, it)
                add_name(p, ty, it->key, true);
}

static void take_sotw(struct xds_peer *p, const struct request *r)
{
        struct peer_type *ty = &p->type[r->type];
        bool first = !ty->subscribed, repeated = false;

        if (!first && ty->nonce && !str_eqc(r->nonce, ty->nonce_text) && r->nonce.n)
                return; /* void */
        if (!first && r->nonce.n && ty->waiting)
                on_verdict(p, ty, r);
        else
                repeated = !first;
        ty->subscribed = true;
        if (first) {
                ty->wildcard = xds_type_wildcard(r->type) && r->nnames == 0;
                ty->owed = ty->wildcard;
        }
        if (!ty->wildcard)
                set_names(p, ty, r, repeated && !r->error);
}

static void take_delta(struct xds_peer *p, const struct request *r, const Xds__DeltaDiscoveryRequest *d)
{
        struct peer_type *ty = &p->type[r->type];
        bool first = !ty->subscribed;

        if (r->nonce.n && ty->waiting && str_eqc(r->nonce, ty->nonce_text))
                on_verdict(p, ty, r);
        ty->subscribed = true;
        if (first) {
                ty->wildcard = xds_type_wildcard(r->type) && (r->nnames == 0 || (r->nnames == 1 && strcmp(r->names[0], "*") == 0));
                ty->owed = ty->wildcard;
        }
        for (size_t i = 0; first && i < d->n_initial_resource_versions && i < NAMES_MAX; i++) {
                const Xds__DeltaDiscoveryRequest__InitialResourceVersionsEntry *e = d->initial_resource_versions[i];

                if (ty->wildcard && e->key && e->value)
                        free(strmap_set(&ty->initial, str_of(e->key), mem_strdup(e->value)));
        }
        if (ty->wildcard)
                return;
        for (size_t i = 0; i < r->ngone; i++)
                remove_name(ty, str_of(r->gone[i]));
        for (size_t i = 0; i < r->nnames; i++)
                add_name(p, ty, str_of(r->names[i]), true);
        /* What the client holds in the very version that we would send need not be sent. */
        for (size_t i = 0; first && i < d->n_initial_resource_versions; i++) {
                const Xds__DeltaDiscoveryRequest__InitialResourceVersionsEntry *e = d->initial_resource_versions[i];
                struct peer_name *n = e->key ? strmap_get(&ty->names, str_of(e->key)) : NULL;
                uint64_t hash;

                if (n && e->value && str_hex64(str_of(e->value), &hash)) {
                        n->hash = hash;
                        n->fresh = false;
                }
        }
}

static void on_message(struct grpc_call *g, void *arg, struct str msg)
{
        struct xds_peer *p = arg;
        struct request r = { 0 };
        struct arena a;
        const ProtobufCMessage *m;
        const char *url = NULL, *nonce = NULL;

        if (p->finished)
                return;
        arena_init(&a, 8192);
        m = pb_unpack(p->delta ? &xds__delta_discovery_request__descriptor : &xds__discovery_request__descriptor, msg.p, msg.n, &a, NULL);
        const Xds__DiscoveryRequest *s = (const Xds__DiscoveryRequest *)m;
        const Xds__DeltaDiscoveryRequest *d = (const Xds__DeltaDiscoveryRequest *)m;
        if (!m) {
                finish(p, GRPC_INVALID_ARGUMENT, "not a discovery request");
                goto out;
        }
        url = p->delta ? d->type_url : s->type_url;
        nonce = p->delta ? d->response_nonce : s->response_nonce;
        r.node = p->delta ? d->node : s->node;
        r.error = p->delta ? d->error_detail : s->error_detail;
        r.names = p->delta ? d->resource_names_subscribe : s->resource_names;
        r.nnames = p->delta ? d->n_resource_names_subscribe : s->n_resource_names;
        r.gone = p->delta ? d->resource_names_unsubscribe : NULL;
        r.ngone = p->delta ? d->n_resource_names_unsubscribe : 0;
        r.nonce = str_of(nonce ? nonce : "");
        if (!introduce(p, r.node))
                goto out;
        int t = xds_type_of(str_of(url ? url : ""));
        if (t < 0) { /* a kind that we have none of: never answered, as Envoy expects */
                LOG(LOG_DEBUG, "xds", "%s: asks for \"%s\"", p->id, url ? url : "");
                goto out;
        }
        r.type = t;
        if (p->delta)
                take_delta(p, &r, d);
        else
                take_sotw(p, &r);
        push_advance(p);
out:
        arena_fini(&a);
}

/* ---- streams ---- */

static void on_half_close(struct grpc_call *g, void *arg)
{
        struct xds_peer *p = arg;

        if (p->finished)
                return;
        p->finished = true;
        grpc_finish(g, GRPC_OK, STR(""));
}

static void on_drain(struct grpc_call *g, void *arg)
{
        push_advance(arg);
}

static void on_end(struct grpc_call *g, void *arg, int status, struct str text)
{
        struct xds_peer *p = arg;
        struct xds_server *s = p->server;

        p->finished = true;
        TAILQ_REMOVE(&s->peers, p, link);
        s->npeers--;
        if (p->known) {
                LOG(LOG_INFO, "xds", "%s: gone", p->id);
                if (!s->freed)
                        s->ops->on_gone(s->arg, p);
        }
        push_fini(p);
        free(p->id);
        free(p);
}

static const struct grpc_ops grpc_ops = { on_message, on_half_close, on_drain, on_end };

static void refuse(struct http_stream *st, const struct http_head *m, bool end, int status, const char *text)
{
        static const struct grpc_ops none = { 0 };
        struct grpc_call *g = grpc_accept(st, m, end, NULL, &none, NULL);

        if (g)
                grpc_finish(g, status, str_of(text));
}

static void on_head(struct http_stream *st, void *arg, struct http_head *m, bool end)
{
        struct server_conn *sc = arg;
        struct xds_server *s = sc->server;
        struct grpc_opts o = { .max_message_bytes = REQUEST_MAX_BYTES };
        bool delta = str_eqc(m->path, SERVICE "DeltaAggregatedResources");
        char from[ADDR_TEXT_MAX];

        if (!delta && !str_eqc(m->path, SERVICE "StreamAggregatedResources")) {
                refuse(st, m, end, GRPC_UNIMPLEMENTED, "only the aggregated discovery service is served here");
                return;
        }
        if (s->npeers >= s->max_peers) {
                refuse(st, m, end, GRPC_RESOURCE_EXHAUSTED, "too many proxies are connected");
                return;
        }
        struct xds_peer *p = MEM_NEW(struct xds_peer);
        p->call = grpc_accept(st, m, end, &o, &grpc_ops, p);
        if (!p->call) {
                free(p);
                return;
        }
        addr_text(&sc->peer, from);
        p->server = s;
        p->addr = sc->peer;
        p->delta = delta;
        p->phase = PUSH_DONE;
        p->id = mem_strdup(from); /* until it says who it is */
        TAILQ_INSERT_TAIL(&s->peers, p, link);
        s->npeers++;
}

static const struct http_stream_ops stream_ops = { .on_head = on_head };

/* ---- connections ---- */

static void server_unref(struct xds_server *s)
{
        if (--s->refs)
                return;
        tls_ctx_unref(s->tls);
        free(s->identifier);
        free(s);
}

static void on_stream(struct http_conn *h, void *arg, struct http_stream *st)
{
        http_stream_set_ops(st, &stream_ops, arg);
}

static void conn_drop(struct server_conn *sc)
{
        conn_close(sc->io, false);
        LIST_REMOVE(sc, link);
        server_unref(sc->server);
        free(sc);
}

static void on_http_close(struct http_conn *h, void *arg)
{
        conn_drop(arg);
}

static const struct http_conn_ops http_ops = { .on_stream = on_stream, .on_close = on_http_close };

static void take_over(struct server_conn *sc, struct conn *io)
{
        sc->io = NULL;
        sc->http = http_server_h2(io, NULL, &http_ops, sc, NULL);
}

static void on_io_connect(struct conn *io, void *arg, int err)
{
        struct server_conn *sc = arg;

        if (!err) {
                take_over(sc, io);
                return;
        }
        char from[ADDR_TEXT_MAX];
        addr_text(&sc->peer, from);
        LOG(LOG_INFO, "xds", "%s: %s", from, conn_error_text(io));
        conn_drop(sc);
}

static void on_io_nothing(struct conn *io, void *arg)
{
}

static const struct conn_ops io_ops = { on_io_connect, on_io_nothing, on_io_nothing };

static void accept_one(struct xds_server *s, int fd, const struct addr *peer)
{
        static const struct sock_keepalive keepalive = { .on = true, .time_s = 30, .interval_s = 10, .probes = 3 };
        struct server_conn *sc = MEM_NEW(struct server_conn);

        sc->server = s;
        sc->peer = *peer;
        s->refs++;
        LIST_INSERT_HEAD(&s->conns, sc, link);
        if (peer->sa.sa_family != AF_UNIX)
                sock_keepalive(fd, &keepalive);
        sc->io = conn_accepted(s->loop, fd, peer, s->tls, &io_ops, sc);
        if (!s->tls)
                take_over(sc, sc->io);
}

static void on_pause_over(struct loop_timer *t)
{
        struct xds_server *s = t->arg;

        loop_watch_change(s->loop, &s->watch, LOOP_READ | LOOP_LEVEL);
}

static void on_accept(struct loop_watch *w, unsigned ready)
{
        struct xds_server *s = w->arg;

        for (unsigned i = 0; i < ACCEPTS_A_TURN; i++) {
                struct addr peer;
                int fd = sock_accept(w->fd, &peer);

                if (fd == -EAGAIN)
                        return;
                if (fd < 0) {
                        LOG(LOG_WARN, "xds", "accept: %s", strerror(-fd));
                        loop_watch_change(s->loop, w, LOOP_LEVEL);
                        loop_timer_arm(s->loop, &s->pause, ACCEPT_PAUSE_MS);
                        return;
                }
                accept_one(s, fd, &peer);
        }
}

struct xds_server *xds_server_new(struct loop *l, const struct xds_server_opts *o, const struct xds_server_ops *ops, void *arg, int *err)
{
        int fd = sock_listen(o->listen, NULL);

        if (fd < 0) {
                *err = fd;
                return NULL;
        }
        struct xds_server *s = MEM_NEW(struct xds_server);
        s->loop = l;
        s->refs = 1;
        s->ops = ops;
        s->arg = arg;
        s->max_peers = o->max_peers ? o->max_peers : MAX_PEERS;
        s->identifier = str_dup(o->identifier);
        s->pause = (struct loop_timer){ .fn = on_pause_over, .arg = s };
        TAILQ_INIT(&s->peers);
        sock_local(fd, &s->addr);
        int r = loop_watch(l, &s->watch, fd, LOOP_READ | LOOP_LEVEL, on_accept, s);
        if (r < 0) {
                close(fd);
                *err = r;
                server_unref(s);
                return NULL;
        }
        s->tls = o->tls ? tls_ctx_ref(o->tls) : NULL;
        return s;
}

void xds_server_free(struct xds_server *s)
{
        struct server_conn *sc, *next;

        if (!s || s->freed)
                return;
        s->freed = true;
        int fd = s->watch.fd;
        loop_unwatch(s->loop, &s->watch);
        close(fd);
        loop_timer_stop(s->loop, &s->pause);
        for (sc = LIST_FIRST(&s->conns); sc; sc = next) {
                next = LIST_NEXT(sc, link);
                if (sc->http)
                        http_conn_close(sc->http);
                else
                        conn_drop(sc);
        }
        server_unref(s); /* the memory goes with the last connection */
}

/* ---- asking ---- */

const struct addr *xds_server_addr(const struct xds_server *s)
{
        return &s->addr;
}

void *xds_peer_data(const struct xds_peer *p)
{
        return p->data;
}

void xds_peer_set_data(struct xds_peer *p, void *data)
{
        p->data = data;
}

struct str xds_peer_id(const struct xds_peer *p)
{
        return str_of(p->id);
}

const struct addr *xds_peer_addr(const struct xds_peer *p)
{
        return &p->addr;
}

struct xds_config *xds_peer_config(const struct xds_peer *p)
{
        return p->config;
}

bool xds_peer_delta(const struct xds_peer *p)
{
        return p->delta;
}

void xds_peer_status(const struct xds_peer *p, enum xds_type t, struct xds_peer_type *out)
{
        const struct peer_type *ty = &p->type[t];

        *out = (struct xds_peer_type){
                .subscribed = ty->subscribed,
                .names = ty->names.live,
                .nonce_sent = str_of(ty->nonce_text),
                .nonce_acked = str_of(ty->nonce_acked_text),
                .hash_sent = ty->hash_sent,
                .hash_acked = ty->hash_acked,
                .error = str_of(ty->error ? ty->error : ""),
        };
}
