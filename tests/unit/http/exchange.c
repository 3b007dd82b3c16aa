#include "exchange.h"

#include <errno.h>
#include <fcntl.h>

/* ---- the server that behaves by path ---- */

struct served {
        struct pair *p;
        struct http_head *m;
        bool echo, generate;
        size_t left;
};

static void respond(struct http_stream *s, int status, const char *body, int64_t length, bool end)
{
        struct http_head m;

        http_head_init(&m, http_stream_arena(s));
        m.status = status;
        m.content_length = length;
        http_add_name(&m, STR("x-served"), STR("yes"));
        http_send_head(s, &m, end && !body);
        if (body) {
                struct chain d = CHAIN_INIT;

                chain_append(&d, body, strlen(body));
                http_send_data(s, &d, end);
        }
}

static void generate(struct http_stream *s, struct served *k)
{
        char block[4096];
        struct chain d = CHAIN_INIT;

        memset(block, 'g', sizeof(block));
        while (k->left && !http_send_blocked(s)) {
                size_t n = k->left < sizeof(block) ? k->left : sizeof(block);

                chain_append(&d, block, n);
                k->left -= n;
                http_send_data(s, &d, k->left == 0);
        }
}

static void s_on_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        struct served *k = arg;
        struct http_head h;

        k->m = m;
        http_head_init(&h, http_stream_arena(s));
        if (str_eqc(m->path, "/hello")) {
                respond(s, 200, "hello", 5, true);
        } else if (str_eqc(m->path, "/chunked")) {
                respond(s, 200, "hello", -1, true);
        } else if (str_eqc(m->path, "/empty")) {
                respond(s, 200, NULL, -1, true);
        } else if (str_eqc(m->path, "/204")) {
                respond(s, 204, NULL, -1, true);
        } else if (str_eqc(m->path, "/304")) {
                respond(s, 304, NULL, 77, true);
        } else if (str_eqc(m->path, "/interim")) {
                h.status = 100;
                http_send_head(s, &h, false);
                h.status = 103;
                http_add_name(&h, STR("link"), STR("</a>"));
                http_send_head(s, &h, false);
                respond(s, 200, "after", 5, true);
        } else if (str_eqc(m->path, "/echo")) {
                k->echo = true;
                respond(s, 200, NULL, -1, false);
                if (end) {
                        struct chain none = CHAIN_INIT;

                        http_send_data(s, &none, true);
                }
        } else if (str_eqc(m->path, "/big")) {
                k->left = 3 * 1024 * 1024;
                respond(s, 200, NULL, -1, false);
                generate(s, k);
        } else if (str_eqc(m->path, "/reset")) {
                http_reset(s, HTTP_RESET_LOCAL);
        } else if (str_eqc(m->path, "/half")) {
                respond(s, 200, "hal", 10, false);
                http_reset(s, HTTP_RESET_LOCAL);
        } else if (str_eqc(m->path, "/lie")) {
                respond(s, 200, "short", 10, true);
        } else if (str_eqc(m->path, "/upgrade") && m->protocol.n) {
                k->echo = true;
                h.status = 101;
                h.protocol = m->protocol;
                http_send_head(s, &h, false);
        } else if (str_eqc(m->path, "/hang")) {
                k->p->server_stream = s;
        } else if (str_eqc(m->method, "CONNECT")) {
                k->echo = true;
                respond(s, 200, NULL, -1, false);
        } else {
                respond(s, 404, "no", 2, true);
        }
}

static void s_on_data(struct http_stream *s, void *arg, struct chain *d, bool end)
{
        struct served *k = arg;

        k->p->server_got += d->n;
        if (k->echo)
                http_send_data(s, d, end);
}

static void s_on_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
        struct served *k = arg;

        if (k->echo)
                http_send_trailers(s, t);
}

static void s_on_drain(struct http_stream *s, void *arg)
{
        generate(s, arg);
}

static void s_on_close(struct http_stream *s, void *arg, enum http_reset why)
{
        struct served *k = arg;

        k->p->server_ended++;
        k->p->server_reset = why;
        if (k->p->server_stream == s)
                k->p->server_stream = NULL;
        free(k);
}

static const struct http_stream_ops served_ops = { s_on_head, s_on_data, s_on_trailers, s_on_drain, s_on_close };

static void s_on_stream(struct http_conn *c, void *arg, struct http_stream *s)
{
        struct served *k = MEM_NEW(struct served);

        k->p = arg;
        k->p->server_streams++;
        http_stream_set_ops(s, &served_ops, k);
        if (k->p->server_paused)
                http_pause(s);
}

static void s_on_conn_close(struct http_conn *c, void *arg)
{
        struct pair *p = arg;

        p->server_closed++;
        p->server = NULL;
}

static void s_on_refused(struct http_conn *c, void *arg, struct http_stream *s, int status, const char *details)
{
        struct pair *p = arg;

        p->refused++;
        p->refused_status = status;
        snprintf(p->refused_details, sizeof(p->refused_details), "%s", details);
}

static const struct http_conn_ops server_ops = { .on_stream = s_on_stream, .on_close = s_on_conn_close, .on_refused = s_on_refused };

/* ---- the client ---- */

static void note_headers(struct buf *b, const struct http_head *m)
{
        for (unsigned i = 0; i < m->n; i++)
                buf_printf(b, STR_FMT ": " STR_FMT "\n", STR_ARG(m->h[i].name), STR_ARG(m->h[i].value));
}

static void c_on_head(struct http_stream *s, void *arg, struct http_head *m, bool end)
{
        struct call *c = arg;

        c->heads++;
        if (m->status < 200 && m->status != 101) {
                c->interims++;
                return;
        }
        c->status = m->status;
        c->end = end;
        snprintf(c->protocol, sizeof(c->protocol), STR_FMT, STR_ARG(m->protocol));
        note_headers(&c->headers, m);
}

static void c_on_data(struct http_stream *s, void *arg, struct chain *d, bool end)
{
        struct call *c = arg;

        while (d->n) {
                struct str f = chain_front(d);

                buf_str(&c->body, f);
                chain_drop(d, f.n);
        }
        c->end = end;
}

static void c_on_trailers(struct http_stream *s, void *arg, struct http_head *t)
{
        struct call *c = arg;

        c->has_trailers = c->end = true;
        note_headers(&c->trailers, t);
}

static void c_on_drain(struct http_stream *s, void *arg)
{
        ((struct call *)arg)->drains++;
}

static void c_on_close(struct http_stream *s, void *arg, enum http_reset why)
{
        struct call *c = arg;

        assert_false(c->closed);
        c->closed = true;
        c->reset = why;
        c->s = NULL;
}

static const struct http_stream_ops call_ops = { c_on_head, c_on_data, c_on_trailers, c_on_drain, c_on_close };

static void c_on_goaway(struct http_conn *c, void *arg)
{
        ((struct pair *)arg)->goaway++;
}

static void c_on_idle(struct http_conn *c, void *arg)
{
        ((struct pair *)arg)->idle++;
}

static void c_on_conn_close(struct http_conn *c, void *arg)
{
        struct pair *p = arg;

        p->client_closed++;
        p->client = NULL;
}

static const struct http_conn_ops client_ops = { .on_goaway = c_on_goaway, .on_idle = c_on_idle, .on_close = c_on_conn_close };

static const struct conn_ops no_ops;

static void open_pair(struct pair *p, int fds[2])
{
        if (!p->loop)
                p->loop = loop_new();
        p->raw = -1;
        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fds), 0);
}

static struct http_conn *server(struct pair *p, int fd, int which)
{
        struct conn *io = conn_accepted(p->loop, fd, NULL, NULL, &no_ops, NULL);

        if (which == 2)
                return http_server_auto(io, &p->opts, &server_ops, p, NULL);
        return which ? http_server_h2(io, &p->opts, &server_ops, p, NULL) : http_server_h1(io, &p->opts, &server_ops, p, NULL);
}

static struct http_conn *client(struct pair *p, int fd, bool h2)
{
        struct conn *io = conn_accepted(p->loop, fd, NULL, NULL, &no_ops, NULL);

        return h2 ? http_client_h2(io, &p->opts, &client_ops, p) : http_client_h1(io, &p->opts, &client_ops, p);
}

void pair_open(struct pair *p, bool h2)
{
        int fds[2];

        open_pair(p, fds);
        p->h2 = h2;
        p->server = server(p, fds[0], h2);
        p->client = client(p, fds[1], h2);
}

void pair_open_server(struct pair *p, int which)
{
        int fds[2];

        open_pair(p, fds);
        p->server = server(p, fds[0], which);
        p->raw = fds[1];
}

void pair_open_client(struct pair *p, bool h2)
{
        int fds[2];

        open_pair(p, fds);
        p->client = client(p, fds[1], h2);
        p->raw = fds[0];
}

void pair_settle(struct pair *p)
{
        for (int i = 0; i < 20; i++)
                loop_turn(p->loop, 0);
}

void pair_close(struct pair *p)
{
        if (p->client)
                http_conn_close(p->client);
        if (p->server)
                http_conn_close(p->server);
        pair_settle(p);
        assert_null(p->client);
        assert_null(p->server);
        assert_int_equal(p->server_streams, p->server_ended);
        if (p->raw >= 0)
                close(p->raw);
        loop_free(p->loop);
        http_thread_fini();
        chain_thread_fini();
}

void pair_until(struct pair *p, bool *flag)
{
        for (int i = 0; i < TURNS_MAX && !*flag; i++)
                loop_turn(p->loop, 1000);
        assert_true(*flag);
}

void call_begin(struct pair *p, struct call *c, const char *method, const char *path, int64_t length, bool end, const char *name,
                const char *value)
{
        struct http_head m;

        *c = (struct call){ 0 };
        c->s = http_client_stream(p->client, &call_ops, c);
        assert_non_null(c->s);
        http_head_init(&m, http_stream_arena(c->s));
        m.method = str_of(method);
        m.scheme = STR("http");
        m.authority = STR("test.example");
        m.path = str_of(path);
        m.content_length = length;
        if (name && !strcmp(name, ":protocol"))
                m.protocol = str_of(value);
        else if (name)
                http_add_name(&m, str_of(name), str_of(value));
        http_send_head(c->s, &m, end);
}

void call_send(struct call *c, const char *text, bool end)
{
        struct chain d = CHAIN_INIT;

        assert_non_null(c->s);
        chain_append(&d, text, strlen(text));
        http_send_data(c->s, &d, end);
}

void call_free(struct call *c)
{
        buf_fini(&c->body);
        buf_fini(&c->headers);
        buf_fini(&c->trailers);
}

void raw_send(struct pair *p, const char *wire, size_t n)
{
        while (n) {
                ssize_t k = send(p->raw, wire, n, MSG_NOSIGNAL);

                if (k < 0 && errno == EAGAIN) {
                        pair_settle(p);
                        continue;
                }
                if (k < 0)
                        return;
                wire += k;
                n -= (size_t)k;
        }
        pair_settle(p);
}

struct str raw_read(struct pair *p, struct buf *b)
{
        char t[4096];
        ssize_t n;

        pair_settle(p);
        while ((n = recv(p->raw, t, sizeof(t), 0)) > 0) {
                buf_append(b, t, (size_t)n);
                pair_settle(p);
        }
        return buf_view(b);
}
