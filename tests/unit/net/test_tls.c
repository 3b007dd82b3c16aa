#include "base/mem.h"
#include "net/conn.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct pki {
        struct buf ca, ca_key, cert, key, client, client_key, other_ca, other_key;
};

static void make(const struct tls_cert_req *r, const struct buf *ic, const struct buf *ik, struct buf *c, struct buf *k)
{
        struct diags d;

        diags_init(&d);
        int rc = tls_cert_make(r, ic ? buf_view(ic) : STR(""), ik ? buf_view(ik) : STR(""), c, k, &d);
        if (rc != 0)
                fail_msg("%.*s", (int)d.v[0].text.n, d.v[0].text.p);
        diags_fini(&d);
}

static int setup(void **state)
{
        struct pki *p = MEM_NEW(struct pki);
        struct str dns[] = { STR("server.test"), STR("*.wild.test") }, ip[] = { STR("127.0.0.1"), STR("::1") };
        struct str uri[] = { STR("spiffe://cluster.local/ns/a/sa/b") }, o[] = { STR("system:masters"), STR("second") };

        make(&(struct tls_cert_req){ .cn = STR("test ca"), .ca = true, .days = 1 }, NULL, NULL, &p->ca, &p->ca_key);
        make(&(struct tls_cert_req){ .cn = STR("other ca"), .ca = true, .days = 1 }, NULL, NULL, &p->other_ca, &p->other_key);
        make(&(struct tls_cert_req){ .cn = STR("server"), .dns = dns, .ndns = 2, .ip = ip, .nip = 2, .server = true, .days = 1 }, &p->ca,
             &p->ca_key, &p->cert, &p->key);
        make(&(struct tls_cert_req){ .cn = STR("admin, the \"first\""), .o = o, .no = 2, .uri = uri, .nuri = 1, .client = true, .days = 1 },
             &p->ca, &p->ca_key, &p->client, &p->client_key);
        *state = p;
        return 0;
}

static int teardown(void **state)
{
        struct buf *b = *state;

        for (size_t i = 0; i < sizeof(struct pki) / sizeof(struct buf); i++)
                buf_fini(&b[i]);
        free(*state);
        chain_thread_fini();
        return 0;
}

static struct tls_ctx *ctx(const struct tls_ctx_opts *o)
{
        struct diags d;

        diags_init(&d);
        struct tls_ctx *t = tls_ctx_new(o, &d);
        if (!t)
                fail_msg("%.*s", (int)d.v[0].text.n, d.v[0].text.p);
        diags_fini(&d);
        return t;
}

struct side {
        struct conn *c;
        struct chain in, out;
        bool connected, eof, error, close_when_sent;
        int err;
};

static void on_connect(struct conn *c, void *arg, int err)
{
        struct side *s = arg;

        s->connected = true;
        s->err = err;
}

static void on_readable(struct conn *c, void *arg)
{
        struct side *s = arg;
        enum io_result r;
        size_t n;

        while ((r = conn_read_chain(c, &s->in, 16384, &n)) == IO_OK)
                ;
        s->eof |= r == IO_EOF;
        s->error |= r == IO_ERROR;
}

static void on_writable(struct conn *c, void *arg)
{
        struct side *s = arg;

        if (conn_write_chain(c, &s->out) == IO_OK && s->close_when_sent) {
                conn_close(c, false);
                s->c = NULL;
        }
}

static const struct conn_ops ops = { on_connect, on_readable, on_writable };

/* The client connects over TCP (handshakes start in the client's connect). */
static void start(struct loop *l, struct tls_ctx *st, struct tls_ctx *ct, const char *sni, const char *alpn, struct side *s, struct side *c)
{
        struct addr a, peer;

        assert_true(addr_parse(&a, STR("127.0.0.1:0")));
        int lfd = sock_listen(&a, NULL);
        assert_true(lfd >= 0 && sock_local(lfd, &a));
        *s = (struct side){ 0 };
        *c = (struct side){ 0 };
        struct conn_connect_opts o = { .tls = ct, .sni = str_of(sni), .alpn = str_of(alpn) };
        c->c = conn_connect(l, &a, &o, &ops, c);
        int fd;
        while ((fd = sock_accept(lfd, &peer)) == -EAGAIN)
                loop_turn(l, 1);
        s->c = conn_accepted(l, fd, &peer, st, &ops, s);
        close(lfd);
}

static void end(struct loop *l, struct side *s, struct side *c)
{
        conn_close(s->c, false);
        conn_close(c->c, false);
        chain_fini(&s->in);
        chain_fini(&c->in);
        chain_fini(&s->out);
        chain_fini(&c->out);
        loop_turn(l, 0);
}

static void test_mutual(void **state)
{
        struct pki *p = *state;
        struct str alpn[] = { STR("h2"), STR("http/1.1") };
        struct loop *l = loop_new();
        struct tls_ctx *st = ctx(&(struct tls_ctx_opts){ .server = true,
                                                         .cert_pem = buf_view(&p->cert),
                                                         .key_pem = buf_view(&p->key),
                                                         .ca_pem = buf_view(&p->ca),
                                                         .client_auth = TLS_CLIENT_REQUIRED,
                                                         .alpn = alpn,
                                                         .nalpn = 2 });
        struct tls_ctx *ct = ctx(&(struct tls_ctx_opts){ .cert_pem = buf_view(&p->client),
                                                         .key_pem = buf_view(&p->client_key),
                                                         .ca_pem = buf_view(&p->ca),
                                                         .verify_host = STR("server.test"),
                                                         .alpn = alpn,
                                                         .nalpn = 2 });
        struct side s, c;

        start(l, st, ct, "server.test", "http/1.1,h2", &s, &c);
        while (!s.connected || !c.connected)
                loop_turn(l, -1);
        assert_int_equal(s.err, 0);
        assert_int_equal(c.err, 0);
        const struct tls_info *i = conn_tls_info(s.c);
        assert_true(str_eqc(i->alpn, "h2"));
        assert_true(str_eqc(i->sni, "server.test"));
        assert_true(i->peer_verified);
        assert_true(str_eqc(i->peer_cn, "admin, the \"first\""));
        assert_int_equal(i->npeer_o, 2);
        assert_true(str_eqc(i->peer_o[0], "system:masters") && str_eqc(i->peer_o[1], "second"));
        assert_int_equal(i->npeer_uri_san, 1);
        assert_true(str_eqc(i->peer_uri_san[0], "spiffe://cluster.local/ns/a/sa/b"));
        assert_string_equal(i->version, "TLSv1.3");
        i = conn_tls_info(c.c);
        assert_true(i->peer_verified);
        assert_int_equal(i->npeer_dns_san, 2);
        assert_int_equal(conn_fd(c.c), -1);

        /* Bulk with back-pressure, then close at once: nothing may be lost. */
        char block[1000];
        memset(block, 'b', sizeof(block));
        for (int k = 0; k < 5000; k++)
                chain_append(&c.out, block, sizeof(block));
        c.close_when_sent = true;
        on_writable(c.c, &c);
        while (!s.eof && !s.error)
                loop_turn(l, -1);
        assert_true(s.eof);
        assert_int_equal(s.in.n, 5000000);
        end(l, &s, &c);
        tls_ctx_unref(st);
        tls_ctx_unref(ct);
        loop_free(l);
}

static void test_half_close(void **state)
{
        struct pki *p = *state;
        struct loop *l = loop_new();
        struct tls_ctx *st = ctx(&(struct tls_ctx_opts){ .server = true, .cert_pem = buf_view(&p->cert), .key_pem = buf_view(&p->key) });
        struct tls_ctx *ct = ctx(&(struct tls_ctx_opts){ .ca_pem = buf_view(&p->ca), .verify_host = STR("127.0.0.1") });
        struct side s, c;

        start(l, st, ct, "127.0.0.1", "", &s, &c);
        while (!s.connected || !c.connected)
                loop_turn(l, -1);
        assert_int_equal(c.err, 0);
        assert_true(conn_tls_info(s.c)->sni.n == 0); /* no address as SNI */
        assert_int_equal(conn_shutdown_write(c.c), IO_OK);
        while (!s.eof)
                loop_turn(l, -1);
        chain_append(&s.out, "late", 4);
        on_writable(s.c, &s);
        while (c.in.n < 4)
                loop_turn(l, -1);
        end(l, &s, &c);
        tls_ctx_unref(st);
        tls_ctx_unref(ct);
        loop_free(l);
}

enum whose { GOOD, OTHER_CA, WRONG_NAME, NO_CLIENT_CERT, NAME_WILD };

/* What is said when the handshake fails. */
static void test_refusals(void **state)
{
        struct pki *p = *state;
        static const struct {
                const char *what, *verify;
                bool other_ca, want_client;
                const char *client_text, *server_text; /* NULL: works */
        } t[] = {
                { "good", "server.test", false, false, NULL, NULL },
                { "wildcard", "a.wild.test", false, false, NULL, NULL },
                { "two labels under a wildcard", "a.b.wild.test", false, false,
                  "TLS: the certificate is for server.test, *.wild.test, 127.0.0.1, ::1, not for a.b.wild.test",
                  "TLS: the peer refused: bad certificate (alert 42)" },
                { "address", "::1", false, false, NULL, NULL },
                { "wrong address", "127.0.0.2", false, false,
                  "TLS: the certificate is for server.test, *.wild.test, 127.0.0.1, ::1, not for 127.0.0.2",
                  "TLS: the peer refused: bad certificate (alert 42)" },
                { "unknown authority", "server.test", true, false, "TLS: unable to get local issuer certificate (/CN=server, depth 0)",
                  "TLS: the peer refused: unknown CA (alert 48)" },
        };

        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct loop *l = loop_new();
                struct tls_ctx *st = ctx(
                        &(struct tls_ctx_opts){ .server = true, .cert_pem = buf_view(&p->cert), .key_pem = buf_view(&p->key) });
                struct tls_ctx *ct = ctx(&(struct tls_ctx_opts){ .ca_pem = buf_view(t[i].other_ca ? &p->other_ca : &p->ca),
                                                                 .verify_host = str_of(t[i].verify) });
                struct side s, c;

                start(l, st, ct, "server.test", "", &s, &c);
                while (!s.connected || !c.connected)
                        loop_turn(l, -1);
                if (t[i].client_text) {
                        if (!c.err || strcmp(conn_error_text(c.c), t[i].client_text) != 0)
                                fail_msg("%s: client: %s", t[i].what, conn_error_text(c.c));
                        if (!s.err || strcmp(conn_error_text(s.c), t[i].server_text) != 0)
                                fail_msg("%s: server: %s", t[i].what, conn_error_text(s.c));
                } else if (c.err || s.err) {
                        fail_msg("%s: client: %s, server: %s", t[i].what, conn_error_text(c.c), conn_error_text(s.c));
                }
                end(l, &s, &c);
                tls_ctx_unref(st);
                tls_ctx_unref(ct);
                loop_free(l);
        }
}

/* In TLS 1.3 the client is done before the server has seen that there is no certificate: the refusal comes as a read error. */
static void test_no_client_cert(void **state)
{
        struct pki *p = *state;
        struct loop *l = loop_new();
        struct tls_ctx *st = ctx(&(struct tls_ctx_opts){ .server = true,
                                                         .cert_pem = buf_view(&p->cert),
                                                         .key_pem = buf_view(&p->key),
                                                         .ca_pem = buf_view(&p->ca),
                                                         .client_auth = TLS_CLIENT_REQUIRED });
        struct tls_ctx *ct = ctx(&(struct tls_ctx_opts){ .ca_pem = buf_view(&p->ca) });
        struct side s, c;

        start(l, st, ct, "x", "", &s, &c);
        while (!s.connected || !(c.error || c.err))
                loop_turn(l, -1);
        assert_string_equal(conn_error_text(s.c), "TLS: peer did not return a certificate");
        assert_string_equal(conn_error_text(c.c), "TLS: the peer refused: certificate required (alert 116)");
        end(l, &s, &c);
        tls_ctx_unref(st);
        tls_ctx_unref(ct);
        loop_free(l);
}

/* Plain text where TLS is spoken, and the other way round. */
static void test_not_tls(void **state)
{
        struct pki *p = *state;
        struct loop *l = loop_new();
        struct tls_ctx *st = ctx(&(struct tls_ctx_opts){ .server = true, .cert_pem = buf_view(&p->cert), .key_pem = buf_view(&p->key) });
        struct tls_ctx *ct = ctx(&(struct tls_ctx_opts){ .ca_pem = buf_view(&p->ca) });
        struct side s, c;

        start(l, st, NULL, "", "", &s, &c);
        while (!c.connected)
                loop_turn(l, -1);
        chain_str(&c.out, STR("GET / HTTP/1.1\r\n\r\n"));
        on_writable(c.c, &c);
        while (!s.connected)
                loop_turn(l, -1);
        assert_string_equal(conn_error_text(s.c), "TLS: the peer does not speak TLS here");
        end(l, &s, &c);

        start(l, NULL, ct, "", "", &s, &c);
        chain_str(&s.out, STR("HTTP/1.1 400 Bad Request\r\n\r\n"));
        on_writable(s.c, &s);
        while (!c.connected)
                loop_turn(l, -1);
        assert_string_equal(conn_error_text(c.c), "TLS: the peer does not speak TLS here");
        end(l, &s, &c);

        start(l, NULL, ct, "", "", &s, &c);
        conn_close(s.c, false);
        s.c = NULL;
        while (!c.connected)
                loop_turn(l, -1);
        assert_int_not_equal(c.err, 0);
        end(l, &s, &c);
        tls_ctx_unref(st);
        tls_ctx_unref(ct);
        loop_free(l);
}

static void test_bad_material(void **state)
{
        struct pki *p = *state;
        const struct str junk = STR("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
        const struct tls_ctx_opts t[] = {
                { .server = true },
                { .server = true, .cert_pem = STR("nothing"), .key_pem = buf_view(&p->key) },
                { .server = true, .cert_pem = junk, .key_pem = buf_view(&p->key) },
                { .server = true, .cert_pem = buf_view(&p->cert), .key_pem = STR("") },
                { .server = true, .cert_pem = buf_view(&p->cert), .key_pem = buf_view(&p->client_key) },
                { .ca_pem = STR("nothing") },
                { .ca_pem = junk },
                { .server = true, .cert_pem = buf_view(&p->cert), .key_pem = buf_view(&p->key), .client_auth = TLS_CLIENT_REQUIRED },
                { .min_version = 0x0305 },
                { .alpn = &(struct str){ "", 0 }, .nalpn = 1 },
        };

        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                struct diags d;

                diags_init(&d);
                assert_null(tls_ctx_new(&t[i], &d));
                if (d.errors != 1)
                        fail_msg("%zu: %zu diagnostics", i, d.errors);
                diags_fini(&d);
        }
        struct diags d;
        struct buf c = BUF_INIT, k = BUF_INIT;
        struct str bad_ip = STR("1.2.3");
        diags_init(&d);
        assert_int_equal(tls_cert_make(&(struct tls_cert_req){ .cn = STR("x"), .ip = &bad_ip, .nip = 1 }, STR(""), STR(""), &c, &k, &d),
                         -1);
        assert_int_equal(tls_cert_make(&(struct tls_cert_req){ .cn = STR("x") }, buf_view(&p->ca), buf_view(&p->key), &c, &k, &d), -1);
        assert_int_equal(d.errors, 2);
        assert_int_equal(c.n, 0);
        diags_fini(&d);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_mutual),         cmocka_unit_test(test_half_close), cmocka_unit_test(test_refusals),
                cmocka_unit_test(test_no_client_cert), cmocka_unit_test(test_not_tls),    cmocka_unit_test(test_bad_material),
        };

        return cmocka_run_group_tests(tests, setup, teardown);
}
