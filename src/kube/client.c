/* Requests to an API server. One HTTP/1.1 connection carries one exchange at a time; a few idle ones are kept. A watch holds its connection
 * for as long as it lives. That costs a dozen sockets for a controller's informers, and in return a slow watcher never holds up another. */
#include "kube/client.h"

#include "base/buf.h"
#include "base/hash.h"
#include "base/mem.h"
#include "http/simple.h"
#include "kube/client_call.h"
#include "net/dns.h"
#include "net/tls.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/queue.h>

enum {
        CONNECT_TIMEOUT_MS = 5000,
        REQUEST_TIMEOUT_MS = 35000, /* an API server gives up on ordinary requests after 30 s */
        IDLE_MS = 20000,            /* less than servers keep a connection: a request never races with their closing it */
        IDLE_MAX = 4,
        ACTIVE_MAX = 16, /* requests under way; the others wait */
        WAITING_MAX = 10000,
        RESPONSE_MAX_BYTES = 64 << 20,
        TOKEN_MAX_BYTES = 65536,
        WARNINGS_MAX = 64,
};

struct kube_conn {
        TAILQ_ENTRY(kube_conn) link; /* idle */
        struct kube_client *client;  /* NULL: freed */
        struct conn *io;             /* until http takes it */
        struct http_conn *http;
        struct kube_call *call;
        struct loop_timer idle;
        bool is_idle, used;
};

struct kube_call {
        TAILQ_ENTRY(kube_call) link;
        struct kube_client *client;
        struct kube_conn *conn;
        struct http_stream *stream;
        struct dns_query *query;
        struct loop_task task; /* starts it, or tells of a failure that came at once */
        struct loop_timer timeout, silence;
        char *method, *path, *content_type, *body, *error;
        size_t body_bytes;
        unsigned silence_ms;
        const struct kube_call_ops *ops;
        void *arg;
        bool long_lived, waiting, answered, complete, retried;
};

struct kube_client {
        struct loop *loop;
        struct tls_ctx *tls;
        struct dns *dns;
        bool https, by_name;
        struct addr addr;
        uint16_t port;
        char *host, *authority, *token, *token_file;
        TAILQ_HEAD(kube_calls, kube_call) calls, waiting;
        TAILQ_HEAD(, kube_conn) idle;
        unsigned nidle, nactive;
        struct kube_informer **informers;
        size_t ninformers, cap_informers;
        struct loop_task gone;
        bool freed;
};

/* ---- configuration ---- */

static void complain(struct diags *d, struct str server, const char *why)
{
        struct diag_at at = { .path = STR("server") };

        diag_add(d, DIAG_ERROR, "PST0301", &at, "\"" STR_FMT "\": %s; give https://HOST:PORT, http://HOST:PORT or unix:/PATH",
                 STR_ARG(server), why);
}

static bool parse_server(struct kube_client *c, struct str server, struct diags *d)
{
        struct str rest = server;
        uint64_t port;

        if (str_starts(server, STR("unix:"))) {
                c->host = mem_strdup("localhost");
                c->authority = mem_strdup("localhost");
                if (addr_parse(&c->addr, server))
                        return true;
                complain(d, server, "not a socket path of at most 107 bytes");
                return false;
        }
        c->https = str_starts(server, STR("https://"));
        if (!c->https && !str_starts(server, STR("http://"))) {
                complain(d, server, "not a server's URL");
                return false;
        }
        rest = str_sub(server, c->https ? 8 : 7, server.n);
        if (str_ends(rest, STR("/")))
                rest.n--;
        if (!rest.n || str_chr(rest, '/') >= 0 || str_chr(rest, '@') >= 0 || str_chr(rest, '?') >= 0 || memchr(rest.p, '\0', rest.n)) {
                complain(d, server, "only a host and a port may follow the scheme");
                return false;
        }
        c->authority = str_dup(rest);
        port = c->https ? 443 : 80;
        ptrdiff_t colon = str_rchr(rest, ':');
        if (colon >= 0 && str_rchr(rest, ']') < colon) {
                if (!str_u64(str_sub(rest, (size_t)colon + 1, rest.n), &port) || port == 0 || port > 65535) {
                        complain(d, server, "the port is not a number from 1 to 65535");
                        return false;
                }
                rest.n = (size_t)colon;
        }
        if (rest.n >= 2 && rest.p[0] == '[' && rest.p[rest.n - 1] == ']')
                rest = str_sub(rest, 1, rest.n - 2);
        c->host = str_dup(rest);
        c->port = (uint16_t)port;
        c->by_name = !addr_parse_ip(&c->addr, rest, c->port);
        return true;
}

struct kube_client *kube_client_new(struct loop *l, const struct kube_client_config *cfg, struct diags *d)
{
        struct kube_client *c = MEM_NEW(struct kube_client);
        struct str alpn = STR("http/1.1");

        c->loop = l;
        TAILQ_INIT(&c->calls);
        TAILQ_INIT(&c->waiting);
        TAILQ_INIT(&c->idle);
        if (!parse_server(c, cfg->server, d))
                goto fail;
        if (c->https) {
                struct tls_ctx_opts o = {
                        .cert_pem = cfg->cert_pem,
                        .key_pem = cfg->key_pem,
                        .ca_pem = cfg->ca_pem,
                        .system_roots = cfg->ca_pem.n == 0,
                        .alpn = &alpn,
                        .nalpn = 1,
                        .verify_host = cfg->server_name.n ? cfg->server_name : str_of(c->host),
                };

                c->tls = tls_ctx_new(&o, d);
                if (!c->tls)
                        goto fail;
        }
        if (c->by_name && !(c->dns = dns_new(l, NULL, 0, false, false))) {
                complain(d, cfg->server, "the resolver cannot be set up");
                goto fail;
        }
        c->token = cfg->token.n ? str_dup(cfg->token) : NULL;
        c->token_file = cfg->token_file.n ? str_dup(cfg->token_file) : NULL;
        return c;
fail:
        kube_client_free(c);
        return NULL;
}

struct loop *kube_client_loop(const struct kube_client *c)
{
        return c->loop;
}

void kube_client_adopt(struct kube_client *c, struct kube_informer *i)
{
        VEC_PUSH(c->informers, c->ninformers, c->cap_informers) = i;
}

void kube_client_abandon(struct kube_client *c, struct kube_informer *i)
{
        for (size_t k = 0; k < c->ninformers; k++) {
                if (c->informers[k] == i) {
                        c->informers[k] = c->informers[--c->ninformers];
                        return;
                }
        }
}

/* ---- connections ---- */

static void call_begin(struct kube_call *k);
static void call_fail(struct kube_call *k, const char *why);
static bool call_send(struct kube_call *k, struct kube_conn *kc);

static void conn_drop_idle(struct kube_conn *kc)
{
        if (!kc->is_idle)
                return;
        kc->is_idle = false;
        loop_timer_stop(kc->client->loop, &kc->idle);
        TAILQ_REMOVE(&kc->client->idle, kc, link);
        kc->client->nidle--;
}

/* Lets go of a connection that no call uses; its memory goes with the HTTP connection's end. */
static void conn_end(struct kube_conn *kc)
{
        conn_drop_idle(kc);
        if (kc->http) {
                http_conn_close(kc->http);
        } else {
                conn_close(kc->io, false);
                free(kc);
        }
}

static void on_idle_timeout(struct loop_timer *t)
{
        conn_end(t->arg);
}

static void conn_make_idle(struct kube_conn *kc)
{
        struct kube_client *c = kc->client;

        if (c->nidle >= IDLE_MAX || !http_client_can_stream(kc->http)) {
                conn_end(kc);
                return;
        }
        kc->is_idle = true;
        TAILQ_INSERT_HEAD(&c->idle, kc, link);
        c->nidle++;
        loop_timer_arm(c->loop, &kc->idle, IDLE_MS);
}

static void on_http_goaway(struct http_conn *h, void *arg)
{
        struct kube_conn *kc = arg;

        if (kc->is_idle)
                conn_end(kc);
}

static void on_http_close(struct http_conn *h, void *arg)
{
        struct kube_conn *kc = arg;

        conn_drop_idle(kc);
        if (kc->call)
                kc->call->conn = NULL;
        free(kc);
}

static const struct http_conn_ops http_ops = { .on_goaway = on_http_goaway, .on_close = on_http_close };

static void on_io_connect(struct conn *io, void *arg, int err)
{
        struct kube_conn *kc = arg;
        struct kube_call *k = kc->call;

        if (err) {
                char *why = mem_strdup(conn_error_text(io));

                k->conn = NULL;
                conn_close(io, false);
                free(kc);
                call_fail(k, why);
                free(why);
                return;
        }
        kc->io = NULL;
        kc->http = http_client_h1(io, NULL, &http_ops, kc);
        if (!call_send(k, kc))
                call_fail(k, "the connection takes no request");
}

static void on_io_nothing(struct conn *io, void *arg)
{
}

static const struct conn_ops io_ops = { on_io_connect, on_io_nothing, on_io_nothing };

static void call_connect(struct kube_call *k, const struct addr *to)
{
        struct kube_client *c = k->client;
        struct kube_conn *kc = MEM_NEW(struct kube_conn);
        static const struct sock_keepalive keepalive = { .on = true, .time_s = 15, .interval_s = 5, .probes = 3 };
        struct conn_connect_opts o = {
                .timeout_ms = CONNECT_TIMEOUT_MS,
                .tls = c->tls,
                .sni = str_of(c->host),
                .keepalive = to->sa.sa_family == AF_UNIX ? NULL : &keepalive,
        };

        kc->client = c;
        kc->call = k;
        kc->idle = (struct loop_timer){ .fn = on_idle_timeout, .arg = kc };
        k->conn = kc;
        kc->io = conn_connect(c->loop, to, &o, &io_ops, kc);
}

static void on_resolved(void *arg, const struct dns_result *r)
{
        struct kube_call *k = arg;

        k->query = NULL;
        if (!r->ok) {
                char *why = mem_printf("%s: %s", k->client->host, r->error);

                call_fail(k, why);
                free(why);
                return;
        }
        struct addr to = r->v[rand_u64() % r->n];
        addr_set_port(&to, k->client->port);
        call_connect(k, &to);
}

/* ---- calls ---- */

static void call_free(struct kube_call *k)
{
        struct kube_client *c = k->client;

        loop_undefer(c->loop, &k->task);
        loop_timer_stop(c->loop, &k->timeout);
        loop_timer_stop(c->loop, &k->silence);
        dns_cancel(k->query);
        if (k->stream) {
                http_stream_set_ops(k->stream, &http_ops_ignore, NULL);
                http_reset(k->stream, HTTP_RESET_LOCAL);
        }
        if (k->conn) {
                k->conn->call = NULL;
                conn_end(k->conn);
        }
        TAILQ_REMOVE(k->waiting ? &c->waiting : &c->calls, k, link);
        if (!k->waiting && !k->long_lived)
                c->nactive--;
        free(k->method);
        free(k->path);
        free(k->content_type);
        free(k->body);
        free(k->error);
        free(k);
}

static void start_waiting(struct kube_client *c)
{
        while (!c->freed && c->nactive < ACTIVE_MAX && !TAILQ_EMPTY(&c->waiting)) {
                struct kube_call *k = TAILQ_FIRST(&c->waiting);

                TAILQ_REMOVE(&c->waiting, k, link);
                k->waiting = false;
                TAILQ_INSERT_TAIL(&c->calls, k, link);
                c->nactive++;
                loop_defer(c->loop, &k->task);
        }
}

static void call_end(struct kube_call *k, const char *error)
{
        struct kube_client *c = k->client;
        const struct kube_call_ops *ops = k->ops;
        void *arg = k->arg;
        char *why = error ? mem_strdup(error) : NULL;

        call_free(k);
        start_waiting(c);
        ops->on_end(arg, why);
        free(why);
}

static void call_fail(struct kube_call *k, const char *why)
{
        call_end(k, why);
}

static void on_timeout(struct loop_timer *t)
{
        call_fail(t->arg, "timed out");
}

static void on_silence(struct loop_timer *t)
{
        call_fail(t->arg, "the server fell silent");
}

static void note_sign_of_life(struct kube_call *k)
{
        if (k->silence_ms)
                loop_timer_arm(k->client->loop, &k->silence, k->silence_ms);
}

static void on_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        struct kube_call *k = arg;

        if (m->status < 200)
                return;
        note_sign_of_life(k);
        k->answered = true;
        k->complete = end;
        k->ops->on_head(k->arg, m);
}

static void on_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        struct kube_call *k = arg;

        note_sign_of_life(k);
        k->complete = end;
        if (data->n)
                k->ops->on_data(k->arg, data);
}

static void on_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
        struct kube_call *k = arg;

        k->complete = true;
}

static void on_close(struct http_stream *s, void *arg, enum http_reset reset)
{
        struct kube_call *k = arg;
        struct kube_conn *kc = k->conn;

        k->stream = NULL;
        if (reset == HTTP_RESET_NONE && k->complete) {
                k->conn = NULL;
                if (kc) {
                        kc->call = NULL;
                        conn_make_idle(kc);
                }
                call_end(k, NULL);
                return;
        }
        /* The server may close a connection just when it is used again. What only reads is simply asked once more. */
        if (kc && kc->used && !k->answered && !k->retried && strcmp(k->method, "GET") == 0) {
                k->retried = true;
                kc->call = NULL;
                k->conn = NULL;
                conn_end(kc);
                call_begin(k);
                return;
        }
        const char *why = kc && kc->http ? http_conn_error(kc->http) : "";
        call_fail(k, *why          ? why
                     : k->answered ? "the connection ended in the middle of the answer"
                                   : "the connection ended without an answer");
}

static const struct http_stream_ops stream_ops = {
        .on_head = on_head,
        .on_data = on_data,
        .on_trailers = on_trailers,
        .on_close = on_close,
};

/* The file is read each time: such tokens live for an hour and are replaced in place. */
static void add_authorization(struct kube_client *c, struct http_head *m)
{
        struct buf b = BUF_INIT;

        if (c->token_file && buf_read_file(&b, c->token_file, TOKEN_MAX_BYTES) == 0) {
                const char *z = buf_z(&b);

                http_add(m, HN_AUTHORIZATION, arena_printf(m->arena, "Bearer %.*s", (int)strcspn(z, " \r\n"), z));
        } else if (c->token) {
                http_add(m, HN_AUTHORIZATION, arena_printf(m->arena, "Bearer %s", c->token));
        }
        buf_fini(&b);
}

static bool call_send(struct kube_call *k, struct kube_conn *kc)
{
        struct kube_client *c = k->client;
        struct http_stream *s = http_client_stream(kc->http, &stream_ops, k);
        struct http_head m;

        if (!s)
                return false;
        k->stream = s;
        k->conn = kc;
        kc->call = k;
        http_head_init(&m, http_stream_arena(s));
        m.method = str_of(k->method);
        m.scheme = c->https ? STR("https") : STR("http");
        m.authority = str_of(c->authority);
        m.path = str_of(k->path);
        m.content_length = k->body_bytes ? (int64_t)k->body_bytes : -1;
        http_add(&m, HN_ACCEPT, STR("application/json"));
        http_add(&m, HN_USER_AGENT, STR("postern/" POSTERN_VERSION));
        if (k->body_bytes)
                http_add(&m, HN_CONTENT_TYPE, str_of(k->content_type));
        add_authorization(c, &m);
        note_sign_of_life(k);
        http_send_head(s, &m, k->body_bytes == 0);
        if (k->body_bytes) {
                struct chain body = CHAIN_INIT;

                chain_append(&body, k->body, k->body_bytes);
                http_send_data(s, &body, true);
        }
        return true;
}

static void call_begin(struct kube_call *k)
{
        struct kube_client *c = k->client;
        struct kube_conn *kc;

        while (!k->retried && (kc = TAILQ_FIRST(&c->idle))) {
                conn_drop_idle(kc);
                kc->used = true;
                if (call_send(k, kc))
                        return;
                conn_end(kc);
        }
        if (c->by_name)
                k->query = dns_resolve(c->dns, str_of(c->host), DNS_V4_PREFERRED, on_resolved, k);
        else
                call_connect(k, &c->addr);
}

static void on_start(struct loop_task *t)
{
        struct kube_call *k = t->arg;

        if (k->error)
                call_fail(k, k->error);
        else
                call_begin(k);
}

struct kube_call *kube_call_new(struct kube_client *c, const struct kube_call_opts *o, const struct kube_call_ops *ops, void *arg)
{
        struct kube_call *k = MEM_NEW(struct kube_call);
        unsigned waiting = 0;
        struct kube_call *w;

        *k = (struct kube_call){
                .client = c,
                .ops = ops,
                .arg = arg,
                .method = mem_strdup(o->method),
                .path = str_dup(o->path),
                .content_type = str_dup(o->content_type),
                .body = o->body.n ? mem_dup(o->body.p, o->body.n) : NULL,
                .body_bytes = o->body.n,
                .silence_ms = o->silence_ms,
                .long_lived = o->long_lived,
                .task = { .fn = on_start, .arg = k },
                .timeout = { .fn = on_timeout, .arg = k },
                .silence = { .fn = on_silence, .arg = k },
        };
        if (o->timeout_ms)
                loop_timer_arm(c->loop, &k->timeout, o->timeout_ms);
        if (k->long_lived || c->nactive < ACTIVE_MAX) {
                c->nactive += !k->long_lived;
                TAILQ_INSERT_TAIL(&c->calls, k, link);
                loop_defer(c->loop, &k->task);
                return k;
        }
        TAILQ_FOREACH (w, &c->waiting, link)
                waiting++;
        k->waiting = true;
        TAILQ_INSERT_TAIL(&c->waiting, k, link);
        if (waiting >= WAITING_MAX) {
                k->error = mem_strdup("too many requests are waiting already");
                loop_defer(c->loop, &k->task);
        }
        return k;
}

void kube_call_cancel(struct kube_call *k)
{
        if (!k)
                return;
        struct kube_client *c = k->client;
        call_free(k);
        start_waiting(c);
}

/* ---- plain requests ---- */

struct request {
        kube_response_fn *fn;
        void *arg;
        int status;
        struct buf body;
        struct arena arena;
        struct str content_type;
        struct str *warnings;
        unsigned nwarnings;
        bool too_large;
};

/* Warning: 299 - "text" (RFC 9111 §5.5; Kubernetes quotes the text). */
static void take_warning(struct request *r, struct str v)
{
        ptrdiff_t open = str_chr(v, '"');

        if (open < 0 || !str_starts(v, STR("299 ")) || r->nwarnings == WARNINGS_MAX)
                return;
        char *out = arena_alloc(&r->arena, v.n), *p = out;
        for (size_t i = (size_t)open + 1; i < v.n && v.p[i] != '"'; i++) {
                if (v.p[i] == '\\' && i + 1 < v.n)
                        i++;
                *p++ = v.p[i];
        }
        if (!r->warnings)
                r->warnings = arena_alloc(&r->arena, WARNINGS_MAX * sizeof(*r->warnings));
        r->warnings[r->nwarnings++] = str_make(out, (size_t)(p - out));
}

static void request_head(void *arg, const struct http_head *m)
{
        struct request *r = arg;
        struct http_hdr *type = http_get(m, HN_CONTENT_TYPE);

        r->status = m->status;
        if (type)
                r->content_type = arena_str(&r->arena, type->value);
        for (unsigned i = 0; i < m->n; i++)
                if (str_eqc(m->h[i].name, "warning"))
                        take_warning(r, m->h[i].value);
}

static void request_data(void *arg, struct chain *data)
{
        struct request *r = arg;

        while (data->n) {
                struct str s = chain_front(data);

                if (r->body.n + s.n > RESPONSE_MAX_BYTES)
                        r->too_large = true;
                else
                        buf_append(&r->body, s.p, s.n);
                chain_drop(data, s.n);
        }
}

static void request_free(void *arg)
{
        struct request *r = arg;

        buf_fini(&r->body);
        arena_fini(&r->arena);
        free(r);
}

static void request_end(void *arg, const char *error)
{
        struct request *r = arg;

        if (!error && r->too_large)
                error = "the answer is larger than 64 MiB";
        struct kube_response out = {
                .status = error ? 0 : r->status,
                .error = error,
                .content_type = r->content_type,
                .body = buf_view(&r->body),
                .warnings = r->warnings,
                .nwarnings = r->nwarnings,
        };
        r->fn(r->arg, &out);
        request_free(r);
}

void kube_request(struct kube_client *c, const char *method, struct str path_and_query, struct str content_type, struct str body,
                  kube_response_fn *fn, void *arg)
{
        static const struct kube_call_ops ops = { request_head, request_data, request_end, request_free };
        struct kube_call_opts o = {
                .method = method,
                .path = path_and_query,
                .content_type = content_type,
                .body = body,
                .timeout_ms = REQUEST_TIMEOUT_MS,
        };
        struct request *r = MEM_NEW(struct request);

        r->fn = fn;
        r->arg = arg;
        arena_init(&r->arena, 512);
        kube_call_new(c, &o, &ops, r);
}

/* ---- the end ---- */

static void on_gone(struct loop_task *t)
{
        struct kube_client *c = t->arg;

        tls_ctx_unref(c->tls);
        dns_free(c->dns);
        free(c->host);
        free(c->authority);
        free(c->token);
        free(c->token_file);
        free(c->informers);
        free(c);
}

static void drop_calls(struct kube_calls *calls)
{
        while (!TAILQ_EMPTY(calls)) {
                struct kube_call *k = TAILQ_FIRST(calls);
                const struct kube_call_ops *ops = k->ops;
                void *arg = k->arg;

                call_free(k);
                if (ops->on_drop)
                        ops->on_drop(arg);
        }
}

void kube_client_free(struct kube_client *c)
{
        if (!c || c->freed)
                return;
        c->freed = true;
        while (c->ninformers)
                kube_informer_orphan(c->informers[--c->ninformers]);
        drop_calls(&c->calls);
        drop_calls(&c->waiting);
        while (!TAILQ_EMPTY(&c->idle))
                conn_end(TAILQ_FIRST(&c->idle));
        c->gone = (struct loop_task){ .fn = on_gone, .arg = c }; /* perhaps from inside a callback of ours */
        loop_defer(c->loop, &c->gone);
}
