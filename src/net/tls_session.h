/* One TLS connection's state, between conn.c (which owns the socket) and tls_session.c (which owns the SSL object). Not for others. */
#ifndef NET_TLS_SESSION_H
#define NET_TLS_SESSION_H

#include "net/conn.h"

struct tls_session;

/* `c` is where records are read from and written to, through conn_raw_recv() and conn_raw_send(). */
struct tls_session *tls_session_new(struct tls_ctx *ctx, struct conn *c, struct str sni, struct str alpn);
void tls_session_free(struct tls_session *s);

enum io_result tls_session_handshake(struct tls_session *s);
enum io_result tls_session_read(struct tls_session *s, void *p, size_t cap, size_t *n);
/* Never IO_AGAIN: what the socket does not take, conn_raw_send() keeps. */
enum io_result tls_session_write(struct tls_session *s, const void *p, size_t len, size_t *n);
void tls_session_shutdown(struct tls_session *s);           /* close_notify; harmless to repeat */
const char *tls_session_error(const struct tls_session *s); /* NULL: none */
void tls_session_fail(struct tls_session *s, const char *why);
const struct tls_info *tls_session_info(struct tls_session *s);

/* In conn.c. recv(2)'s results, errno included; and: took all of it (false: the socket is broken, errno set). */
ssize_t conn_raw_recv(struct conn *c, void *p, size_t n);
bool conn_raw_send(struct conn *c, const void *p, size_t n);

#endif
