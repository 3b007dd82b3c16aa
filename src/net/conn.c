/* Byte streams. What shaped this file:
 *
 * - A connection is one small struct; what only a connect or a handshake needs (a timer, names) is in a second one that goes when they are
 *   done, TLS state in a third. Addresses are kept in 28 bytes until somebody asks for a struct addr.
 * - The socket is registered once, edge-triggered. A read that returned less than was asked for has drained the socket, so the next read
 *   is answered without a system call, unless the peer's FIN was seen: then the end has to be fetched. The same for a short write.
 * - Records that TLS made and the socket did not take are kept here (`pending`), so SSL_write() never has to be repeated with the same
 *   bytes. At most one record is kept: nothing new is encrypted before it is gone.
 * - conn_close() may be called from inside any callback; the memory goes in the deferred task. */
#include "net/conn.h"

#include "base/buf.h"
#include "base/mem.h"
#include "net/sock.h"
#include "net/tls_session.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
        CONNECT_TIMEOUT_MS = 5000,
        HANDSHAKE_TIMEOUT_MS = 15000, /* server side */
        LINGER_TIMEOUT_MS = 5000,     /* to get rid of the last TLS records after conn_close() */
        IOV_A_WRITE = 64,
        TLS_RECORD_BYTES = 16384,
        READ_MIN_BYTES = 4096, /* less room than this in a chain's last slab: a new slab */
};

enum conn_state { CONN_CONNECTING, CONN_HANDSHAKE, CONN_OPEN, CONN_FAILED, CONN_LINGER, CONN_CLOSED };

struct conn_setup {
        struct loop_timer timer;
        struct tls_ctx *tls;
        struct str sni, alpn;
};

struct conn_tls {
        struct tls_session *session;
        struct buf pending; /* records that wait for the socket */
        size_t pending_at;
};

struct conn {
        struct loop_watch watch;
        struct loop *loop;
        const struct conn_ops *ops;
        void *arg;
        struct conn_tls *tls;
        struct conn_setup *setup;
        struct addr *peer, *local; /* made when asked for */
        struct loop_task task;
        uint64_t bytes_read, bytes_written;
        int err;
        uint8_t state;          /* enum conn_state */
        bool raw_readable : 1;  /* the socket may have bytes, or an end, that we have not seen */
        bool raw_end : 1;       /* FIN or error is in: read until it shows */
        bool tls_readable : 1;  /* the TLS layer may hold plain bytes */
        bool write_blocked : 1; /* the owner was told IO_AGAIN, and waits for on_writable */
        bool paused : 1;
        bool notify_connect : 1; /* for the deferred task */
        bool notify_read : 1;
        uint8_t peer_bytes; /* of peer_sa; 0: not known */
        uint8_t peer_sa[sizeof(struct sockaddr_in6)];
};

static void on_event(struct loop_watch *w, unsigned ready);
static void on_task(struct loop_task *t);

static struct conn *conn_new(struct loop *l, const struct conn_ops *ops, void *arg)
{
        struct conn *c = MEM_NEW(struct conn);

        c->watch.fd = -1;
        c->loop = l;
        c->ops = ops;
        c->arg = arg;
        c->task = (struct loop_task){ .fn = on_task, .arg = c };
        return c;
}

static void setup_free(struct conn *c)
{
        struct conn_setup *s = c->setup;

        if (!s)
                return;
        loop_timer_stop(c->loop, &s->timer);
        tls_ctx_unref(s->tls);
        free((char *)s->sni.p);
        free((char *)s->alpn.p);
        free(s);
        c->setup = NULL;
}

static void tls_free(struct conn *c)
{
        if (!c->tls)
                return;
        tls_session_free(c->tls->session);
        buf_fini(&c->tls->pending);
        free(c->tls);
        c->tls = NULL;
}

static bool may_read(const struct conn *c)
{
        return c->tls ? c->tls_readable : c->raw_readable;
}

static void keep_peer(struct conn *c, const struct addr *a)
{
        if (a && a->len && a->len <= sizeof(c->peer_sa)) {
                memcpy(c->peer_sa, &a->sa, a->len);
                c->peer_bytes = (uint8_t)a->len;
        } else if (a && a->len) {
                c->peer = mem_dup(a, sizeof(*a));
        }
}

/* ---- establishing ---- */

static void fail(struct conn *c, int err)
{
        c->state = CONN_FAILED;
        c->err = err;
        loop_unwatch_close(c->loop, &c->watch);
        if (c->setup)
                loop_timer_stop(c->loop, &c->setup->timer);
        if (c->ops->on_connect)
                c->ops->on_connect(c, c->arg, err);
}

static void call_readable(struct conn *c)
{
        if (c->state == CONN_OPEN && !c->paused && may_read(c))
                c->ops->on_readable(c, c->arg);
}

static void opened(struct conn *c)
{
        bool waits = c->write_blocked;

        c->state = CONN_OPEN;
        c->write_blocked = false;
        setup_free(c);
        if (c->ops->on_connect)
                c->ops->on_connect(c, c->arg, 0);
        if (waits && c->state == CONN_OPEN)
                c->ops->on_writable(c, c->arg);
}

static bool flush_pending(struct conn *c)
{
        struct conn_tls *t = c->tls;

        while (t->pending_at < t->pending.n) {
                ssize_t n = send(c->watch.fd, t->pending.p + t->pending_at, t->pending.n - t->pending_at, MSG_NOSIGNAL);

                if (n < 0 && errno == EINTR)
                        continue;
                if (n < 0) {
                        if (errno != EAGAIN && !c->err)
                                c->err = errno;
                        return errno == EAGAIN;
                }
                t->pending_at += (size_t)n;
        }
        buf_fini(&t->pending);
        t->pending_at = 0;
        return true;
}

static bool has_pending(const struct conn *c)
{
        return c->tls && c->tls->pending.n > c->tls->pending_at;
}

static void handshake(struct conn *c)
{
        switch (tls_session_handshake(c->tls->session)) {
        case IO_AGAIN:
                return;
        case IO_OK:
                c->tls_readable = true;
                opened(c);
                call_readable(c);
                return;
        default:
                fail(c, c->err ? c->err : EPROTO);
        }
}

static void start_tls(struct conn *c)
{
        struct conn_setup *s = c->setup;

        c->state = CONN_HANDSHAKE;
        c->tls = MEM_NEW(struct conn_tls);
        c->tls->session = tls_session_new(s->tls, c, s->sni, s->alpn);
        handshake(c);
}

static void connected(struct conn *c, bool in_doubt)
{
        int err = in_doubt ? sock_error(c->watch.fd) : 0;

        if (err)
                fail(c, err);
        else if (c->setup->tls)
                start_tls(c);
        else
                opened(c);
}

static void finish(struct conn *c);

static void on_timeout(struct loop_timer *t)
{
        struct conn *c = t->arg;

        if (c->state == CONN_LINGER) {
                finish(c);
                return;
        }
        if (c->tls)
                tls_session_fail(c->tls->session, "TLS: handshake timed out");
        fail(c, ETIMEDOUT);
}

static void setup_new(struct conn *c, struct tls_ctx *tls, unsigned timeout_ms)
{
        c->setup = MEM_NEW(struct conn_setup);
        c->setup->tls = tls ? tls_ctx_ref(tls) : NULL;
        c->setup->timer.fn = on_timeout;
        c->setup->timer.arg = c;
        loop_timer_arm(c->loop, &c->setup->timer, timeout_ms);
}

static void notify_failure(struct conn *c, int err)
{
        c->state = CONN_FAILED;
        c->err = err;
        c->notify_connect = true;
        loop_defer(c->loop, &c->task);
}

struct conn *conn_accepted(struct loop *l, int fd, const struct addr *peer, struct tls_ctx *tls, const struct conn_ops *ops, void *arg)
{
        struct conn *c = conn_new(l, ops, arg);

        keep_peer(c, peer);
        int r = loop_watch(l, &c->watch, fd, LOOP_READ | LOOP_WRITE, on_event, c);
        if (r < 0) { /* out of memory or of epoll watches */
                close(fd);
                notify_failure(c, -r);
                return c;
        }
        if (tls) {
                setup_new(c, tls, HANDSHAKE_TIMEOUT_MS);
                c->state = CONN_HANDSHAKE;
                c->tls = MEM_NEW(struct conn_tls);
                c->tls->session = tls_session_new(tls, c, STR(""), STR(""));
        } else {
                c->state = CONN_OPEN;
        }
        return c;
}

struct conn *conn_connect(struct loop *l, const struct addr *to, const struct conn_connect_opts *o, const struct conn_ops *ops, void *arg)
{
        static const struct conn_connect_opts none;
        struct conn *c = conn_new(l, ops, arg);

        if (!o)
                o = &none;
        keep_peer(c, to);
        c->state = CONN_CONNECTING;
        int fd = sock_connect(to, o->source, 0);
        if (fd < 0) {
                notify_failure(c, -fd);
                return c;
        }
        if (o->keepalive)
                sock_keepalive(fd, o->keepalive);
        int r = loop_watch(l, &c->watch, fd, LOOP_READ | LOOP_WRITE, on_event, c);
        if (r < 0) {
                close(fd);
                notify_failure(c, -r);
                return c;
        }
        setup_new(c, o->tls, o->timeout_ms ? o->timeout_ms : CONNECT_TIMEOUT_MS);
        if (o->tls) {
                c->setup->sni = o->sni.n ? str_of(str_dup(o->sni)) : (struct str){ NULL, 0 };
                c->setup->alpn = o->alpn.n ? str_of(str_dup(o->alpn)) : (struct str){ NULL, 0 };
        }
        return c;
}

void conn_set_ops(struct conn *c, const struct conn_ops *ops, void *arg)
{
        c->ops = ops;
        c->arg = arg;
        if (c->state == CONN_OPEN && may_read(c) && !c->paused) {
                c->notify_read = true;
                loop_defer(c->loop, &c->task);
        }
}

/* ---- events ---- */

static void on_open_event(struct conn *c, unsigned ready)
{
        if (ready & (LOOP_READ | LOOP_HUP)) {
                c->raw_readable = c->tls_readable = true;
                if (ready & (LOOP_READ_END | LOOP_HUP))
                        c->raw_end = true;
                call_readable(c);
        }
        if (c->state != CONN_OPEN || !(ready & (LOOP_WRITE | LOOP_HUP)))
                return;
        if (has_pending(c) && flush_pending(c) && has_pending(c))
                return;
        if (c->write_blocked) {
                c->write_blocked = false;
                c->ops->on_writable(c, c->arg);
        }
}

static void on_event(struct loop_watch *w, unsigned ready)
{
        struct conn *c = w->arg;

        switch ((enum conn_state)c->state) {
        case CONN_CONNECTING:
                if (!(ready & (LOOP_WRITE | LOOP_HUP)))
                        return;
                c->raw_readable = true;
                c->raw_end = ready & (LOOP_READ_END | LOOP_HUP);
                connected(c, ready & LOOP_HUP); /* writable and no error: there is nothing to ask for */
                if (ready & LOOP_READ)
                        call_readable(c);
                return;
        case CONN_HANDSHAKE:
                if (ready & (LOOP_READ | LOOP_HUP))
                        c->raw_readable = true;
                if (ready & (LOOP_READ_END | LOOP_HUP))
                        c->raw_end = true;
                if (has_pending(c) && !flush_pending(c)) {
                        fail(c, c->err);
                        return;
                }
                handshake(c);
                return;
        case CONN_OPEN:
                on_open_event(c, ready);
                return;
        case CONN_LINGER:
                if ((ready & LOOP_HUP) || !flush_pending(c) || !has_pending(c))
                        finish(c);
                return;
        case CONN_FAILED:
        case CONN_CLOSED:
                return;
        }
}

static void on_task(struct loop_task *t)
{
        struct conn *c = t->arg;

        if (c->state == CONN_CLOSED) {
                setup_free(c);
                tls_free(c);
                free(c->peer);
                free(c->local);
                free(c);
                return;
        }
        if (c->notify_connect) {
                c->notify_connect = false;
                if (c->ops->on_connect)
                        c->ops->on_connect(c, c->arg, c->err);
        }
        if (c->notify_read) {
                c->notify_read = false;
                call_readable(c);
        }
}

/* ---- reading ---- */

ssize_t conn_raw_recv(struct conn *c, void *p, size_t cap)
{
        ssize_t n;

        if (!c->raw_readable) {
                errno = EAGAIN;
                return -1;
        }
        do
                n = recv(c->watch.fd, p, cap, 0);
        while (n < 0 && errno == EINTR);
        if ((n < 0 && errno == EAGAIN) || (n > 0 && (size_t)n < cap && !c->raw_end))
                c->raw_readable = false;
        else if (n < 0 && !c->err)
                c->err = errno;
        return n;
}

static enum io_result read_error(struct conn *c, int err)
{
        if (!c->err)
                c->err = err;
        return IO_ERROR;
}

enum io_result conn_read(struct conn *c, void *p, size_t cap, size_t *n)
{
        assert(cap > 0);
        *n = 0;
        if (c->state != CONN_OPEN)
                return c->state == CONN_CONNECTING || c->state == CONN_HANDSHAKE ? IO_AGAIN : IO_ERROR;
        if (c->tls) {
                enum io_result r = tls_session_read(c->tls->session, p, cap, n);

                if (r == IO_AGAIN)
                        c->tls_readable = false;
                else if (r == IO_ERROR)
                        read_error(c, EPROTO);
                c->bytes_read += *n;
                return r;
        }
        ssize_t k = conn_raw_recv(c, p, cap);
        if (k > 0) {
                *n = (size_t)k;
                c->bytes_read += *n;
                return IO_OK;
        }
        if (k == 0)
                return IO_EOF;
        return errno == EAGAIN ? IO_AGAIN : read_error(c, errno);
}

enum io_result conn_read_chain(struct conn *c, struct chain *to, size_t max, size_t *n)
{
        if (!c->tls && !c->raw_readable && c->state == CONN_OPEN) {
                *n = 0;
                return IO_AGAIN;
        }
        struct iovec v = chain_reserve(to, max < READ_MIN_BYTES ? max : READ_MIN_BYTES);
        enum io_result r = conn_read(c, v.iov_base, v.iov_len < max ? v.iov_len : max, n);

        chain_commit(to, *n);
        return r;
}

void conn_pause_read(struct conn *c)
{
        c->paused = true;
}

void conn_resume_read(struct conn *c)
{
        c->paused = false;
        if (c->state == CONN_OPEN && may_read(c)) {
                c->notify_read = true;
                loop_defer(c->loop, &c->task);
        }
}

void conn_read_blocked(struct conn *c)
{
        c->raw_readable = false;
}

bool conn_peer_gone(struct conn *c)
{
        return c->state == CONN_FAILED || c->raw_end || c->err;
}

/* ---- writing ---- */

bool conn_raw_send(struct conn *c, const void *p, size_t len)
{
        const char *q = p;

        while (len && !has_pending(c)) {
                ssize_t n = send(c->watch.fd, q, len, MSG_NOSIGNAL);

                if (n >= 0) {
                        q += n;
                        len -= (size_t)n;
                } else if (errno == EAGAIN) {
                        break;
                } else if (errno != EINTR) {
                        if (!c->err)
                                c->err = errno;
                        return false;
                }
        }
        if (len)
                buf_append(&c->tls->pending, q, len);
        return true;
}

static enum io_result write_blocked(struct conn *c)
{
        c->write_blocked = true;
        return IO_AGAIN;
}

void conn_write_blocked(struct conn *c)
{
        c->write_blocked = true;
}

static enum io_result write_plain(struct conn *c, const struct iovec *iov, unsigned iovcnt, size_t *n)
{
        struct msghdr m = { .msg_iov = (struct iovec *)iov, .msg_iovlen = iovcnt };
        ssize_t k;

        do
                k = sendmsg(c->watch.fd, &m, MSG_NOSIGNAL);
        while (k < 0 && errno == EINTR);
        if (k < 0)
                return errno == EAGAIN ? write_blocked(c) : read_error(c, errno);
        *n = (size_t)k;
        c->bytes_written += *n;
        return IO_OK;
}

/* Small pieces go into one record: a response's head and body, or many small frames. */
static enum io_result write_tls(struct conn *c, const struct iovec *iov, unsigned iovcnt, size_t *n)
{
        static _Thread_local char scratch[TLS_RECORD_BYTES];
        const char *p = iov[0].iov_base;
        size_t len = iov[0].iov_len;

        if (has_pending(c)) {
                if (!flush_pending(c))
                        return IO_ERROR;
                if (has_pending(c))
                        return write_blocked(c);
        }
        if (iovcnt > 1 && len < TLS_RECORD_BYTES) {
                len = 0;
                for (unsigned i = 0; i < iovcnt && len < TLS_RECORD_BYTES; i++) {
                        size_t k = iov[i].iov_len < TLS_RECORD_BYTES - len ? iov[i].iov_len : TLS_RECORD_BYTES - len;

                        if (k)
                                memcpy(scratch + len, iov[i].iov_base, k);
                        len += k;
                }
                p = scratch;
        } else if (len > TLS_RECORD_BYTES) {
                len = TLS_RECORD_BYTES;
        }
        if (!len)
                return IO_OK;
        enum io_result r = tls_session_write(c->tls->session, p, len, n);
        if (r == IO_ERROR)
                return read_error(c, EPIPE);
        c->bytes_written += *n;
        return r;
}

enum io_result conn_writev(struct conn *c, const struct iovec *iov, unsigned iovcnt, size_t *n)
{
        *n = 0;
        if (c->state == CONN_CONNECTING || c->state == CONN_HANDSHAKE || (c->state == CONN_OPEN && c->write_blocked))
                return write_blocked(c);
        if (c->state != CONN_OPEN)
                return IO_ERROR;
        return c->tls ? write_tls(c, iov, iovcnt, n) : write_plain(c, iov, iovcnt, n);
}

enum io_result conn_write_chain(struct conn *c, struct chain *from)
{
        struct iovec iov[IOV_A_WRITE];

        while (from->n) {
                unsigned k = chain_iov(from, iov, IOV_A_WRITE);
                size_t n, want = 0;

                for (unsigned i = 0; i < k; i++)
                        want += iov[i].iov_len;
                enum io_result r = conn_writev(c, iov, k, &n);
                if (r != IO_OK)
                        return r;
                chain_drop(from, n);
                if (n < want && !c->tls) /* the socket is full: no need to hear it */
                        return write_blocked(c);
        }
        return has_pending(c) ? write_blocked(c) : IO_OK;
}

enum io_result conn_shutdown_write(struct conn *c)
{
        if (c->state != CONN_OPEN)
                return IO_ERROR;
        if (c->tls) {
                tls_session_shutdown(c->tls->session);
                if (!flush_pending(c))
                        return IO_ERROR;
                if (has_pending(c))
                        return write_blocked(c);
        }
        if (shutdown(c->watch.fd, SHUT_WR) < 0)
                return read_error(c, errno);
        return IO_OK;
}

/* ---- the end ---- */

static void finish(struct conn *c)
{
        c->state = CONN_CLOSED;
        loop_unwatch_close(c->loop, &c->watch);
        setup_free(c);
        loop_defer(c->loop, &c->task);
}

void conn_close(struct conn *c, bool reset)
{
        if (!c || c->state == CONN_CLOSED || c->state == CONN_LINGER)
                return;
        if (reset && c->watch.fd >= 0)
                sock_linger_reset(c->watch.fd);
        if (c->tls && c->state == CONN_OPEN && !reset && !c->err) {
                tls_session_shutdown(c->tls->session);
                if (has_pending(c) && flush_pending(c) && has_pending(c)) {
                        c->state = CONN_LINGER;
                        setup_new(c, NULL, LINGER_TIMEOUT_MS);
                        return;
                }
        }
        finish(c);
}

/* ---- asking ---- */

int conn_fd(const struct conn *c)
{
        return c->tls || c->state != CONN_OPEN ? -1 : c->watch.fd;
}

bool conn_is_tls(const struct conn *c)
{
        return c->tls != NULL;
}

struct loop *conn_loop(const struct conn *c)
{
        return c->loop;
}

void conn_peer_copy(const struct conn *c, struct addr *out)
{
        if (c->peer) {
                *out = *c->peer;
                return;
        }
        memset(out, 0, sizeof(*out));
        if (c->peer_bytes) {
                memcpy(&out->sa, c->peer_sa, c->peer_bytes);
                out->len = c->peer_bytes;
        } else if (c->watch.fd >= 0) {
                sock_peer(c->watch.fd, out);
        }
}

void conn_local_copy(const struct conn *c, struct addr *out)
{
        if (c->local) {
                *out = *c->local;
                return;
        }
        memset(out, 0, sizeof(*out));
        if (c->watch.fd >= 0)
                sock_local(c->watch.fd, out);
}

const struct addr *conn_peer(const struct conn *c)
{
        if (!c->peer) {
                struct addr *a = MEM_NEW(struct addr);

                conn_peer_copy(c, a);
                ((struct conn *)c)->peer = a;
        }
        return c->peer;
}

const struct addr *conn_local(const struct conn *c)
{
        if (!c->local) {
                struct addr *a = MEM_NEW(struct addr);

                conn_local_copy(c, a);
                ((struct conn *)c)->local = a;
        }
        return c->local;
}

int conn_errno(const struct conn *c)
{
        return c->err;
}

const char *conn_error_text(const struct conn *c)
{
        static const struct {
                int err;
                const char *text;
        } texts[] = {
                { 0, "no error" },
                { ECONNREFUSED, "connection refused" },
                { ECONNRESET, "connection reset by peer" },
                { ETIMEDOUT, "connection timed out" },
                { EHOSTUNREACH, "no route to host" },
                { ENETUNREACH, "network is unreachable" },
                { EPIPE, "broken pipe" },
                { ENOENT, "no such socket" },
                { EADDRNOTAVAIL, "cannot assign the requested address" },
                { EMFILE, "too many open files" },
                { EPERM, "refused by a local firewall rule" },
                { EDESTADDRREQ, "no address to connect to" },
        };
        const char *tls = c->tls ? tls_session_error(c->tls->session) : NULL;

        if (tls)
                return tls;
        for (size_t i = 0; i < ARRAY_LEN(texts); i++)
                if (texts[i].err == c->err)
                        return texts[i].text;
        return strerrordesc_np(c->err) ? strerrordesc_np(c->err) : "unknown error";
}

const struct tls_info *conn_tls_info(struct conn *c)
{
        return c->tls && c->state == CONN_OPEN ? tls_session_info(c->tls->session) : NULL;
}

uint64_t conn_bytes_read(const struct conn *c)
{
        return c->bytes_read;
}

uint64_t conn_bytes_written(const struct conn *c)
{
        return c->bytes_written;
}

void conn_count_spliced(struct conn *c, uint64_t rd, uint64_t wr)
{
        c->bytes_read += rd;
        c->bytes_written += wr;
}
