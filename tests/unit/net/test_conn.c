#include "base/mem.h"
#include "net/conn.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

struct side {
        struct loop *l;
        struct conn *c;
        struct chain in, out;
        bool eof, error, connected, shut;
        int err;
        unsigned reads;
        size_t read_max; /* a callback; 0: all */
        bool close_on_read;
};

static void pump_out(struct side *s)
{
        if (conn_write_chain(s->c, &s->out) == IO_OK && s->shut && conn_shutdown_write(s->c) == IO_OK)
                s->shut = false;
}

static void on_connect(struct conn *c, void *arg, int err)
{
        struct side *s = arg;

        assert_false(s->connected);
        s->connected = true;
        s->err = err;
}

static void on_readable(struct conn *c, void *arg)
{
        struct side *s = arg;
        enum io_result r;
        size_t n, got = 0;

        s->reads++;
        if (s->close_on_read) {
                conn_close(c, false);
                s->c = NULL;
                return;
        }
        while ((r = conn_read_chain(c, &s->in, 65536, &n)) == IO_OK) {
                got += n;
                if (s->read_max && got >= s->read_max) {
                        conn_pause_read(c);
                        return;
                }
        }
        s->eof |= r == IO_EOF;
        s->error |= r == IO_ERROR;
}

static void on_writable(struct conn *c, void *arg)
{
        pump_out(arg);
}

static const struct conn_ops ops = { on_connect, on_readable, on_writable };

static void make_pair(struct loop *l, struct side *a, struct side *b)
{
        int sv[2];

        assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, sv), 0);
        *a = (struct side){ .l = l };
        *b = (struct side){ .l = l };
        a->c = conn_accepted(l, sv[0], NULL, NULL, &ops, a);
        b->c = conn_accepted(l, sv[1], NULL, NULL, &ops, b);
}

static void end_side(struct side *s)
{
        conn_close(s->c, false);
        chain_fini(&s->in);
        chain_fini(&s->out);
}

static void fill(struct chain *c, size_t n)
{
        char block[1000];

        for (size_t i = 0; i < n; i += sizeof(block)) {
                for (size_t k = 0; k < sizeof(block); k++)
                        block[k] = (char)((i + k) * 31 >> 3);
                chain_append(c, block, n - i < sizeof(block) ? n - i : sizeof(block));
        }
}

static void check(struct chain *c, size_t n)
{
        assert_int_equal(c->n, n);
        size_t at = 0;
        while (c->n) {
                struct str s = chain_front(c);

                for (size_t i = 0; i < s.n; i++, at++)
                        if (s.p[i] != (char)(at * 31 >> 3))
                                fail_msg("byte %zu differs", at);
                chain_drop(c, s.n);
        }
}

enum { BULK = 3000000 };

/* Both ways at once, with back-pressure and half-close. */
static void test_bulk(void **state)
{
        struct loop *l = loop_new();
        struct side a, b;

        make_pair(l, &a, &b);
        a.shut = b.shut = true;
        fill(&a.out, BULK);
        fill(&b.out, BULK / 2);
        pump_out(&a);
        pump_out(&b);
        assert_true(a.out.n > 0);
        while (!a.eof || !b.eof)
                loop_turn(l, -1);
        check(&b.in, BULK);
        check(&a.in, BULK / 2);
        assert_int_equal(conn_bytes_written(a.c), BULK);
        assert_int_equal(conn_bytes_read(b.c), BULK);
        assert_true(conn_peer_gone(a.c));
        end_side(&a);
        end_side(&b);
        loop_free(l);
        chain_thread_fini();
}

/* Bytes and FIN in one event; a paused reader gets nothing until it resumes; an idle reader keeps no slab. */
static void test_pause(void **state)
{
        struct loop *l = loop_new();
        struct side a, b;

        make_pair(l, &a, &b);
        conn_pause_read(b.c);
        chain_append(&a.out, "hello", 5);
        a.shut = true;
        pump_out(&a);
        loop_turn(l, 0);
        loop_turn(l, 0);
        assert_int_equal(b.reads, 0);
        conn_resume_read(b.c);
        assert_int_equal(b.reads, 0); /* never from inside */
        loop_turn(l, 0);
        assert_int_equal(b.reads, 1);
        assert_int_equal(b.in.n, 5);
        assert_true(b.eof);
        end_side(&a);
        end_side(&b);
        loop_free(l);
        chain_thread_fini();
}

static void test_partial_reads(void **state)
{
        struct loop *l = loop_new();
        struct side a, b;

        make_pair(l, &a, &b);
        b.read_max = 1;
        fill(&a.out, 200000);
        a.shut = true;
        pump_out(&a);
        while (!b.eof) {
                loop_turn(l, 1000);
                conn_resume_read(b.c);
        }
        check(&b.in, 200000);
        assert_true(b.reads > 3);
        end_side(&a);
        end_side(&b);
        loop_free(l);
        chain_thread_fini();
}

static void test_close_inside(void **state)
{
        struct loop *l = loop_new();
        struct side a, b;

        make_pair(l, &a, &b);
        b.close_on_read = true;
        chain_append(&a.out, "x", 1);
        pump_out(&a);
        while (!a.eof && !a.error)
                loop_turn(l, -1);
        assert_null(b.c);
        size_t n;
        struct iovec v = { (void *)"y", 1 };
        assert_int_equal(conn_writev(a.c, &v, 1, &n), IO_ERROR); /* EPIPE, and no signal */
        assert_int_equal(conn_errno(a.c), ECONNRESET);           /* the first error stays: "x" was never read */
        assert_string_equal(conn_error_text(a.c), "connection reset by peer");
        end_side(&a);
        end_side(&b);
        conn_close(NULL, false);
        loop_free(l);
        chain_thread_fini();
}

static void test_handover(void **state)
{
        struct loop *l = loop_new();
        struct side a, b, other = { .l = l };

        make_pair(l, &a, &b);
        b.read_max = 1;
        chain_append(&a.out, "abc", 3);
        a.shut = true;
        pump_out(&a);
        loop_turn(l, -1);
        conn_resume_read(b.c);
        other.c = b.c;
        conn_set_ops(b.c, &ops, &other);
        while (!other.eof)
                loop_turn(l, -1);
        end_side(&a);
        end_side(&b);
        loop_free(l);
        chain_thread_fini();
}

/* ---- connecting ---- */

static int listen_on(const char *where, struct addr *a)
{
        struct addr any;

        assert_true(addr_parse(&any, str_of(where)));
        int fd = sock_listen(&any, NULL);
        assert_true(fd >= 0);
        assert_true(sock_local(fd, a));
        return fd;
}

static void test_connect(void **state)
{
        static const char *const where[] = { "127.0.0.1:0", "[::1]:0", "@postern-test-conn" };

        for (size_t i = 0; i < ARRAY_LEN(where); i++) {
                struct loop *l = loop_new();
                struct addr a, peer;
                int lfd = listen_on(where[i], &a);
                struct side s = { .l = l };

                s.c = conn_connect(l, &a, NULL, &ops, &s);
                chain_append(&s.out, "early", 5);
                pump_out(&s); /* before it is up: waits */
                while (!s.connected)
                        loop_turn(l, -1);
                assert_int_equal(s.err, 0);
                int fd = sock_accept(lfd, &peer);
                assert_true(fd >= 0);
                assert_int_equal(sock_accept(lfd, NULL), -EAGAIN);
                struct side t = { .l = l };
                t.c = conn_accepted(l, fd, &peer, NULL, &ops, &t);
                while (t.in.n < 5)
                        loop_turn(l, -1);
                assert_true(addr_eq(conn_peer(s.c), &a));
                assert_true(addr_eq(conn_local(t.c), &a));
                if (a.sa.sa_family != AF_UNIX)
                        assert_true(addr_eq(conn_peer(t.c), conn_local(s.c)));
                assert_true(conn_fd(t.c) == fd);
                conn_close(t.c, true);
                while (!s.eof && !s.error)
                        loop_turn(l, -1);
                if (a.sa.sa_family != AF_UNIX)
                        assert_int_equal(conn_errno(s.c), ECONNRESET);
                end_side(&s);
                chain_fini(&t.in);
                close(lfd);
                loop_free(l);
        }
        chain_thread_fini();
}

static void test_refused(void **state)
{
        struct loop *l = loop_new();
        struct addr a, none = { .len = 0 };
        int lfd = listen_on("127.0.0.1:0", &a);

        close(lfd);
        struct side s = { .l = l }, t = { .l = l };
        s.c = conn_connect(l, &a, NULL, &ops, &s);
        t.c = conn_connect(l, &none, NULL, &ops, &t);
        assert_false(s.connected || t.connected);
        while (!s.connected || !t.connected)
                loop_turn(l, -1);
        assert_int_equal(s.err, ECONNREFUSED);
        assert_string_equal(conn_error_text(s.c), "connection refused");
        assert_int_equal(t.err, EDESTADDRREQ);
        end_side(&s);
        end_side(&t);
        /* Closed before the answer: no callback. */
        struct side u = { .l = l };
        u.c = conn_connect(l, &none, NULL, &ops, &u);
        conn_close(u.c, false);
        loop_turn(l, 0);
        assert_false(u.connected);
        loop_free(l);
}

static void test_connect_timeout(void **state)
{
        struct loop *l = loop_new();
        struct addr a;
        struct sock_listen_opts lo = { .backlog = 1 };

        /* A backlog that is full swallows SYNs. */
        assert_true(addr_parse(&a, STR("127.0.0.1:0")));
        int lfd = sock_listen(&a, &lo);
        assert_true(lfd >= 0 && sock_local(lfd, &a));
        struct conn_connect_opts o = { .timeout_ms = 50 };
        struct side s[4];
        unsigned timed_out = 0;
        for (unsigned i = 0; i < 4; i++) {
                s[i] = (struct side){ .l = l };
                s[i].c = conn_connect(l, &a, &o, &ops, &s[i]);
        }
        for (unsigned i = 0; i < 4; i++) {
                while (!s[i].connected)
                        loop_turn(l, -1);
                timed_out += s[i].err == ETIMEDOUT;
                end_side(&s[i]);
        }
        assert_true(timed_out > 0);
        close(lfd);
        loop_free(l);
}

static void test_stale_unix(void **state)
{
        char path[] = "/tmp/postern-test-XXXXXX";
        struct addr a;

        assert_non_null(mkdtemp(path));
        char *sock = mem_printf("%s/s", path);
        assert_true(addr_unix(&a, str_of(sock)));
        struct sock_listen_opts o = { .unix_mode = 0600 };
        int fd = sock_listen(&a, &o);
        assert_true(fd >= 0);
        assert_int_equal(sock_listen(&a, &o), -EADDRINUSE); /* somebody listens */
        close(fd);
        fd = sock_listen(&a, &o); /* nobody: taken over */
        assert_true(fd >= 0);
        close(fd);
        unlink(sock);
        rmdir(path);
        free(sock);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_bulk),         cmocka_unit_test(test_pause),           cmocka_unit_test(test_partial_reads),
                cmocka_unit_test(test_close_inside), cmocka_unit_test(test_handover),        cmocka_unit_test(test_connect),
                cmocka_unit_test(test_refused),      cmocka_unit_test(test_connect_timeout), cmocka_unit_test(test_stale_unix),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
