/* A byte stream: TCP or Unix, plain or TLS, non-blocking, on one loop. Pull style: the owner is told that something can be read or
 * written and then calls conn_read()/conn_write() until IO_AGAIN. A connection holds no buffer of its own (TLS: what OpenSSL holds). */
#ifndef NET_CONN_H
#define NET_CONN_H

#include "base/chain.h"
#include "net/addr.h"
#include "net/loop.h"
#include "net/sock.h"
#include "net/tls.h"

enum io_result { IO_OK, IO_AGAIN, IO_EOF, IO_ERROR };

struct conn;

struct conn_ops {
        /* Connected (and, with TLS, the handshake done): err 0. Otherwise a positive errno, and conn_error_text() says more;
         * the owner must still conn_close(). Not called for conn_accepted() without TLS. May be NULL. */
        void (*on_connect)(struct conn *c, void *arg, int err);
        void (*on_readable)(struct conn *c, void *arg); /* bytes, EOF or an error can be read */
        void (*on_writable)(struct conn *c, void *arg); /* after a write said IO_AGAIN */
};

/* Takes the accepted fd (owned from now on). `tls` NULL: plain; else starts a server handshake with it. */
struct conn *conn_accepted(struct loop *l, int fd, const struct addr *peer, struct tls_ctx *tls, const struct conn_ops *ops, void *arg);

struct conn_connect_opts {
        const struct addr *source;              /* NULL: the kernel chooses */
        unsigned timeout_ms;                    /* whole of connect + handshake; 0: 5000 */
        struct tls_ctx *tls;                    /* NULL: plain */
        struct str sni;                         /* TLS server name; empty: none */
        struct str alpn;                        /* overrides the context's list: comma-separated, or empty */
        const struct sock_keepalive *keepalive; /* NULL: off */
};

/* Never fails here: an immediate error arrives through on_connect at the end of the turn. */
struct conn *conn_connect(struct loop *l, const struct addr *to, const struct conn_connect_opts *o, const struct conn_ops *ops, void *arg);

void conn_set_ops(struct conn *c, const struct conn_ops *ops, void *arg); /* hand a connection to another owner */

/* IO_OK: *n > 0 bytes. Reads at most cap (> 0). */
enum io_result conn_read(struct conn *c, void *p, size_t cap, size_t *n);
/* Reads up to `max` bytes to the end of `to`; *n says how many were added. IO_OK as soon as the socket gave something. */
enum io_result conn_read_chain(struct conn *c, struct chain *to, size_t max, size_t *n);
/* IO_OK: *n > 0 bytes were taken (maybe not all). IO_AGAIN: none; on_writable will follow. */
enum io_result conn_writev(struct conn *c, const struct iovec *iov, unsigned iovcnt, size_t *n);
/* Writes and drops from the front of `from`. IO_OK: all gone. IO_AGAIN: some left; on_writable follows. */
enum io_result conn_write_chain(struct conn *c, struct chain *from);
enum io_result conn_shutdown_write(struct conn *c); /* FIN, or close_notify + FIN; IO_AGAIN: call again when writable */

/* on_readable stops until conn_resume_read(), which calls it again (deferred) if something is there or may be. */
void conn_pause_read(struct conn *c);
void conn_resume_read(struct conn *c);
/* Has the peer closed or reset (seen without reading)? For idle pooled connections. */
bool conn_peer_gone(struct conn *c);

/* No callback after this; the memory goes at the end of the turn. `reset`: RST instead of FIN. Harmless on NULL. */
void conn_close(struct conn *c, bool reset);

int conn_fd(const struct conn *c); /* for splice(2); -1 with TLS that cannot bypass */
bool conn_is_tls(const struct conn *c);
/* For splice(2) users: tells the connection that reading/writing its fd said EAGAIN, so that the edge is awaited again. */
void conn_read_blocked(struct conn *c);
void conn_write_blocked(struct conn *c);
struct loop *conn_loop(const struct conn *c);
/* Asked from the kernel once, then kept: 120 bytes each. The copying forms keep nothing: for what lives as long as an idle connection. */
const struct addr *conn_peer(const struct conn *c);
const struct addr *conn_local(const struct conn *c);
void conn_peer_copy(const struct conn *c, struct addr *out);
void conn_local_copy(const struct conn *c, struct addr *out);
int conn_errno(const struct conn *c);
/* "connection refused", "TLS: certificate has expired (…)"; never NULL; valid while c is. */
const char *conn_error_text(const struct conn *c);
struct tls_info;
const struct tls_info *conn_tls_info(struct conn *c); /* NULL when plain or before the handshake's end */
uint64_t conn_bytes_read(const struct conn *c);
uint64_t conn_bytes_written(const struct conn *c);
void conn_count_spliced(struct conn *c, uint64_t rd, uint64_t wr);

#endif
