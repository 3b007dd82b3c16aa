/* Everything is bounded: queries under way at other servers, TCP clients, how long either may take, and how much of the queries under way
 * one client may hold, so that one pod cannot take DNS from the others. A forwarded query has a socket and an id of its own (so an answer
 * cannot be guessed), and an answer must come from the server that was asked and repeat the question. */
#include "node/dnsserver.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/conn.h"
#include "node/dnszone.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
        FORWARDS_MAX = 1024,
        FORWARDS_A_CLIENT = 256,
        FORWARD_TIMEOUT_MS = 2000,
        FORWARD_TRIES = 4,
        TCP_CLIENTS_MAX = 128,
        TCP_IDLE_MS = 10000,
        UDP_A_TURN = 64,
        SERVERS_MAX = 3,
        RCODE_SERVFAIL = 2,
};

struct dns_server {
        struct node *node;
        struct dns_zone zone;
        struct loop_watch udp, tcp;
        struct forward *forwards;
        struct tcp_client *clients;
        unsigned nforwards, nclients;
        struct addr servers[SERVERS_MAX];
        unsigned nservers;
        struct timespec servers_as_of;
};

struct tcp_client {
        struct tcp_client *next, **pprev;
        struct dns_server *s;
        struct conn *conn;
        struct buf in;
        struct chain out;
        struct loop_timer idle;
        unsigned waiting; /* forwards for it */
        bool eof;
};

struct forward {
        struct forward *next, **pprev;
        struct dns_server *s;
        struct addr client;     /* UDP */
        struct tcp_client *tcp; /* or TCP; NULL then too when the client went away */
        bool over_tcp;
        struct buf query, in;
        unsigned tries;
        uint16_t id;
        struct loop_watch sock; /* UDP */
        struct conn *conn;      /* TCP */
        struct chain out;
        struct loop_timer timer;
};

/* ---- the host's resolvers ---- */

static void servers_read(struct dns_server *s)
{
        struct buf b = BUF_INIT;
        struct str text, line, word;
        struct stat st;

        if (stat("/etc/resolv.conf", &st) < 0 ||
            (s->nservers && st.st_mtim.tv_sec == s->servers_as_of.tv_sec && st.st_mtim.tv_nsec == s->servers_as_of.tv_nsec))
                return;
        s->servers_as_of = st.st_mtim;
        s->nservers = 0;
        buf_read_file(&b, "/etc/resolv.conf", 1 << 16);
        for (text = buf_view(&b); text.n && str_next(&text, '\n', &line);) {
                line = str_trim(line);
                if (!str_starts(line, STR("nameserver")))
                        continue;
                word = str_trim(str_sub(line, 10, line.n));
                if (s->nservers < SERVERS_MAX && addr_parse_ip(&s->servers[s->nservers], word, 53))
                        s->nservers++;
        }
        buf_fini(&b);
}

/* ---- answers to clients ---- */

static void tcp_flush(struct tcp_client *c);

static void tcp_reply(struct tcp_client *c, struct str answer)
{
        unsigned char n[2] = { (unsigned char)(answer.n >> 8), (unsigned char)answer.n };

        chain_append(&c->out, n, 2);
        chain_str(&c->out, answer);
        tcp_flush(c);
}

static void udp_reply(struct dns_server *s, const struct addr *to, struct str answer)
{
        sendto(s->udp.fd, answer.p, answer.n, MSG_DONTWAIT, &to->sa, to->len); /* a full socket drops it, as a network would */
}

/* ---- forwarding ---- */

static void forward_close_socket(struct forward *f)
{
        if (f->sock.fd >= 0) {
                int fd = f->sock.fd;
                loop_unwatch(f->s->node->loop, &f->sock);
                close(fd);
                f->sock.fd = -1;
        }
        if (f->conn) {
                conn_close(f->conn, false);
                f->conn = NULL;
        }
        chain_fini(&f->out);
        f->in.n = 0;
}

static void forward_free(struct forward *f)
{
        forward_close_socket(f);
        loop_timer_stop(f->s->node->loop, &f->timer);
        *f->pprev = f->next;
        if (f->next)
                f->next->pprev = f->pprev;
        f->s->nforwards--;
        buf_fini(&f->query);
        buf_fini(&f->in);
        free(f);
}

static void forward_finish(struct forward *f, struct str answer)
{
        struct tcp_client *c = f->tcp;

        if (!f->over_tcp)
                udp_reply(f->s, &f->client, answer);
        forward_free(f);
        if (c) {
                c->waiting--;
                tcp_reply(c, answer);
        }
}

static void forward_fail(struct forward *f)
{
        struct buf b = BUF_INIT;

        dns_failure(f->query.p, f->query.n, RCODE_SERVFAIL, &b);
        forward_finish(f, buf_view(&b));
        buf_fini(&b);
}

/* An answer: is it ours, and what was asked for? Then it gets the client's id back. */
static bool forward_take(struct forward *f, unsigned char *answer, size_t n)
{
        if (n < 12 || (answer[0] << 8 | answer[1]) != f->id)
                return false;
        memcpy(answer, f->query.p, 2);
        if (!dns_same_question(f->query.p, f->query.n, answer, n))
                return false;
        struct buf copy = BUF_INIT; /* `answer` may live in f, which goes */
        buf_append(&copy, answer, n);
        forward_finish(f, buf_view(&copy));
        buf_fini(&copy);
        return true;
}

static void on_forward_answer(struct loop_watch *w, unsigned ready)
{
        struct forward *f = w->arg;
        unsigned char answer[4096];

        (void)ready;
        for (;;) {
                ssize_t n = recv(w->fd, answer, sizeof(answer), MSG_DONTWAIT);
                if (n < 0)
                        return; /* EAGAIN; or refused: the timer goes on to the next server */
                if (forward_take(f, answer, (size_t)n))
                        return;
        }
}

static void forward_send_query(struct forward *f, struct buf *out)
{
        f->id = (uint16_t)rand_u64();
        buf_append(out, f->query.p, f->query.n);
        out->p[0] = (char)(f->id >> 8);
        out->p[1] = (char)f->id;
}

static bool forward_udp(struct forward *f, const struct addr *to)
{
        int fd = socket(to->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        struct buf b = BUF_INIT;

        if (fd < 0)
                return false;
        if (connect(fd, &to->sa, to->len) < 0 ||
            loop_watch(f->s->node->loop, &f->sock, fd, LOOP_READ | LOOP_LEVEL, on_forward_answer, f) < 0) {
                close(fd);
                return false;
        }
        forward_send_query(f, &b);
        bool ok = send(fd, b.p, b.n, MSG_NOSIGNAL) == (ssize_t)b.n;
        buf_fini(&b);
        return ok;
}

static void forward_conn_write(struct conn *c, void *arg)
{
        struct forward *f = arg;

        conn_write_chain(c, &f->out);
}

static void forward_conn_connect(struct conn *c, void *arg, int err)
{
        if (!err)
                forward_conn_write(c, arg);
        /* else the timer goes on to the next server */
}

static void forward_conn_read(struct conn *c, void *arg)
{
        struct forward *f = arg;
        char bytes[8192];
        size_t n;

        while (conn_read(c, bytes, sizeof(bytes), &n) == IO_OK) {
                const unsigned char *h;
                buf_append(&f->in, bytes, n);
                h = (const unsigned char *)f->in.p;
                size_t need = f->in.n >= 2 ? (size_t)(h[0] << 8 | h[1]) : 65535;
                if (f->in.n < need + 2)
                        continue;
                if (!forward_take(f, (unsigned char *)f->in.p + 2, need))
                        forward_fail(f);
                return;
        }
}

static bool forward_tcp(struct forward *f, const struct addr *to)
{
        static const struct conn_ops ops = { forward_conn_connect, forward_conn_read, forward_conn_write };
        struct conn_connect_opts o = { .timeout_ms = FORWARD_TIMEOUT_MS };
        struct buf b = BUF_INIT;

        forward_send_query(f, &b);
        unsigned char n[2] = { (unsigned char)(b.n >> 8), (unsigned char)b.n };
        chain_append(&f->out, n, 2);
        chain_append(&f->out, b.p, b.n);
        buf_fini(&b);
        f->conn = conn_connect(f->s->node->loop, to, &o, &ops, f);
        return f->conn != NULL;
}

static void forward_try(struct forward *f)
{
        struct dns_server *s = f->s;

        forward_close_socket(f);
        if (!s->nservers || f->tries >= FORWARD_TRIES) {
                forward_fail(f);
                return;
        }
        const struct addr *to = &s->servers[f->tries++ % s->nservers];
        loop_timer_arm(s->node->loop, &f->timer, FORWARD_TIMEOUT_MS);
        if (!(f->over_tcp ? forward_tcp(f, to) : forward_udp(f, to)))
                loop_timer_arm(s->node->loop, &f->timer, 1);
}

static void on_forward_timer(struct loop_timer *t)
{
        forward_try(t->arg);
}

static bool forward_allowed(const struct dns_server *s, const struct addr *client)
{
        unsigned n = 0;

        if (s->nforwards >= FORWARDS_MAX)
                return false;
        for (const struct forward *f = s->forwards; f; f = f->next)
                n += addr_ip_eq(&f->client, client);
        return n < FORWARDS_A_CLIENT;
}

static void forward_start(struct dns_server *s, const struct addr *client, struct tcp_client *tcp, const void *query, size_t n)
{
        struct buf failure = BUF_INIT;

        if (!forward_allowed(s, client)) {
                dns_failure(query, n, RCODE_SERVFAIL, &failure);
                if (tcp)
                        tcp_reply(tcp, buf_view(&failure));
                else
                        udp_reply(s, client, buf_view(&failure));
                buf_fini(&failure);
                return;
        }
        servers_read(s);
        struct forward *f = MEM_NEW(struct forward);
        *f = (struct forward){ .s = s,
                               .client = *client,
                               .tcp = tcp,
                               .over_tcp = tcp != NULL,
                               .sock = { .fd = -1 },
                               .timer = { .fn = on_forward_timer, .arg = f } };
        buf_append(&f->query, query, n);
        f->next = s->forwards;
        f->pprev = &s->forwards;
        if (f->next)
                f->next->pprev = &f->next;
        s->forwards = f;
        s->nforwards++;
        if (tcp)
                tcp->waiting++;
        forward_try(f);
}

/* ---- UDP clients ---- */

static void on_udp(struct loop_watch *w, unsigned ready)
{
        struct dns_server *s = w->arg;
        char query[DNS_QUERY_MAX];

        (void)ready;
        for (int i = 0; i < UDP_A_TURN; i++) {
                struct addr from = { .len = sizeof(from.v6) };
                ssize_t n = recvfrom(w->fd, query, sizeof(query), MSG_DONTWAIT, &from.sa, &from.len);
                struct buf out = BUF_INIT;
                if (n < 0)
                        return;
                switch (dns_answer(query, (size_t)n, &s->zone, false, &out)) {
                case DNS_ANSWER:
                        udp_reply(s, &from, buf_view(&out));
                        break;
                case DNS_FORWARD:
                        forward_start(s, &from, NULL, query, (size_t)n);
                        break;
                case DNS_DROP:
                        break;
                }
                buf_fini(&out);
        }
}

/* ---- TCP clients ---- */

static void tcp_free(struct tcp_client *c)
{
        for (struct forward *f = c->s->forwards; f; f = f->next)
                if (f->tcp == c)
                        f->tcp = NULL;
        loop_timer_stop(c->s->node->loop, &c->idle);
        conn_close(c->conn, false);
        *c->pprev = c->next;
        if (c->next)
                c->next->pprev = c->pprev;
        c->s->nclients--;
        buf_fini(&c->in);
        chain_fini(&c->out);
        free(c);
}

static void tcp_flush(struct tcp_client *c)
{
        if (conn_write_chain(c->conn, &c->out) == IO_ERROR)
                loop_timer_arm(c->s->node->loop, &c->idle, 0);
        else
                loop_timer_arm(c->s->node->loop, &c->idle, c->eof && !c->waiting && !c->out.n ? 0 : TCP_IDLE_MS);
}

static void on_tcp_idle(struct loop_timer *t)
{
        tcp_free(t->arg);
}

static void on_tcp_writable(struct conn *conn, void *arg)
{
        (void)conn;
        tcp_flush(arg);
}

static void on_tcp_readable(struct conn *conn, void *arg)
{
        struct tcp_client *c = arg;
        char bytes[4096];
        enum io_result r;
        size_t n;

        while ((r = conn_read(conn, bytes, sizeof(bytes), &n)) == IO_OK) {
                buf_append(&c->in, bytes, n);
                while (c->in.n >= 2) {
                        const unsigned char *h = (const unsigned char *)c->in.p;
                        size_t need = (size_t)(h[0] << 8 | h[1]);
                        struct buf out = BUF_INIT;
                        if (need > DNS_QUERY_MAX || c->out.n > 1 << 20) { /* nonsense, or one who asks and does not read */
                                tcp_free(c);
                                return;
                        }
                        if (c->in.n < need + 2)
                                break;
                        enum dns_verdict v = dns_answer(c->in.p + 2, need, &c->s->zone, true, &out);
                        if (v == DNS_ANSWER)
                                tcp_reply(c, buf_view(&out));
                        else if (v == DNS_FORWARD)
                                forward_start(c->s, conn_peer(conn), c, c->in.p + 2, need);
                        buf_fini(&out);
                        buf_consume(&c->in, need + 2);
                }
        }
        if (r == IO_AGAIN)
                return;
        c->eof = true;
        if (r == IO_ERROR || (!c->waiting && !c->out.n))
                tcp_free(c);
}

static void on_accept(struct loop_watch *w, unsigned ready)
{
        static const struct conn_ops ops = { NULL, on_tcp_readable, on_tcp_writable };
        struct dns_server *s = w->arg;
        struct addr peer;
        int fd;

        (void)ready;
        while ((fd = sock_accept(w->fd, &peer)) >= 0) {
                if (s->nclients >= TCP_CLIENTS_MAX) {
                        close(fd);
                        continue;
                }
                struct tcp_client *c = MEM_NEW(struct tcp_client);
                *c = (struct tcp_client){ .s = s, .next = s->clients, .pprev = &s->clients, .idle = { .fn = on_tcp_idle, .arg = c } };
                if (c->next)
                        c->next->pprev = &c->next;
                s->clients = c;
                s->nclients++;
                c->conn = conn_accepted(s->node->loop, fd, &peer, NULL, &ops, c);
                loop_timer_arm(s->node->loop, &c->idle, TCP_IDLE_MS);
        }
}

/* ---- */

static int open_udp(void *arg)
{
        const struct addr *a = arg;
        int fd = socket(a->sa.sa_family, SOCK_DGRAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), room = 1 << 20;

        if (fd < 0)
                return -errno;
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &room, sizeof(room));
        if (bind(fd, &a->sa, a->len) < 0) {
                int err = -errno;
                close(fd);
                return err;
        }
        return fd;
}

static int open_tcp(void *arg)
{
        struct sock_listen_opts o = { .backlog = 64 };

        return sock_listen(arg, &o);
}

struct dns_server *dns_server_new(struct node *n, struct diags *d)
{
        struct dns_server *s = MEM_NEW(struct dns_server);
        struct addr at = n->net.dns;
        char text[ADDR_TEXT_MAX];

        *s = (struct dns_server){
                .node = n, .zone = { .arg = n, .lookup = dnszone_lookup, .soa = n->domain }, .udp = { .fd = -1 }, .tcp = { .fd = -1 }
        };
        addr_set_port(&at, 53);
        int udp = netns_run(n->net.netns, open_udp, &at), tcp = udp < 0 ? udp : netns_run(n->net.netns, open_tcp, &at);
        if (tcp < 0) {
                addr_text(&at, text);
                diag_add(d, DIAG_ERROR, NULL, NULL, "the cluster DNS cannot listen on %s: %s", text, strerror(-tcp));
                if (udp >= 0)
                        close(udp);
                free(s);
                return NULL;
        }
        loop_watch(n->loop, &s->udp, udp, LOOP_READ | LOOP_LEVEL, on_udp, s);
        loop_watch(n->loop, &s->tcp, tcp, LOOP_READ | LOOP_LEVEL, on_accept, s);
        return s;
}

void dns_server_free(struct dns_server *s)
{
        struct loop_watch *watches[2];

        if (!s)
                return;
        while (s->clients)
                tcp_free(s->clients);
        while (s->forwards)
                forward_free(s->forwards);
        watches[0] = &s->udp;
        watches[1] = &s->tcp;
        for (int i = 0; i < 2; i++) {
                int fd = watches[i]->fd;
                loop_unwatch(s->node->loop, watches[i]);
                close(fd);
        }
        free(s);
}
