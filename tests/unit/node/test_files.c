/* What the node keeps on disk: roots of containers, volumes' contents, logs, addresses. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "node/ctrlog.h"
#include "node/ipam.h"
#include "node/payload.h"
#include "node/rootfs.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

static char *make_dir(void)
{
        char text[] = "/tmp/postern-test-XXXXXX";

        assert_non_null(mkdtemp(text));
        return mem_strdup(text);
}

static char *content(const char *dir, const char *name)
{
        char *path = mem_printf("%s/%s", dir, name);
        struct buf b = BUF_INIT;
        int err = buf_read_file(&b, path, 1 << 20);

        free(path);
        return err ? NULL : buf_take(&b);
}

static void expect(const char *dir, const char *name, const char *want)
{
        char *text = content(dir, name);

        if (want) {
                assert_non_null(text);
                assert_string_equal(text, want);
        } else {
                assert_null(text);
        }
        free(text);
}

static void test_payload(void **state)
{
        char *dir = make_dir();
        struct payload p;

        (void)state;
        payload_init(&p);
        assert_true(payload_add(&p, STR("a"), STR("1"), 0644));
        assert_true(payload_add(&p, STR("sub/b"), STR("2"), 0600));
        assert_true(payload_add(&p, STR("sub/c"), STR("3"), 0600));
        assert_int_equal(payload_write(&p, dir, -1), 0);
        expect(dir, "a", "1");
        expect(dir, "sub/c", "3");
        uint64_t before = payload_hash(&p);
        payload_fini(&p);

        /* The next content: one changed, one gone, one new. A reader that opened ..data before still sees the old one until it looks again.
         */
        payload_init(&p);
        assert_true(payload_add(&p, STR("a"), STR("one"), 0644));
        assert_true(payload_add(&p, STR("d"), STR("4"), 0644));
        assert_int_not_equal(payload_hash(&p), before);
        assert_int_equal(payload_write(&p, dir, -1), 0);
        expect(dir, "a", "one");
        expect(dir, "d", "4");
        expect(dir, "sub/b", NULL);
        payload_fini(&p);
        assert_int_equal(rootfs_remove(dir), 0);
        free(dir);
}

static void test_payload_paths(void **state)
{
        static const char *const bad[] = { "", "/etc/passwd", "..", "../x", "a/../../x", "..data", "a//b", "a/./b", "a/" };
        struct payload p;

        (void)state;
        payload_init(&p);
        for (size_t i = 0; i < ARRAY_LEN(bad); i++)
                assert_false(payload_add(&p, str_of(bad[i]), STR("x"), 0644));
        payload_fini(&p);
}

static void test_rootfs(void **state)
{
        struct rootfs_opts o = { .hostname = "h",
                                 .hosts = STR("127.0.0.1 localhost\n"),
                                 .resolv_conf = STR("nameserver 10.96.0.10\n"),
                                 .uid = 1000,
                                 .gid = 1000 };
        struct buf error = BUF_INIT;
        char *dir = make_dir(), *root = mem_printf("%s/root", dir), *passwd;
        struct stat st;

        (void)state;
        assert_int_equal(rootfs_make(root, &o, &error), 0);
        passwd = content(root, "etc/passwd");
        assert_non_null(strstr(passwd, "istio-proxy:x:1337:1337:"));
        assert_non_null(strstr(passwd, "app:x:1000:1000:"));
        free(passwd);
        expect(root, "etc/hosts", "127.0.0.1 localhost\n");
        char *tmp = mem_printf("%s/tmp", root);
        assert_int_equal(stat(tmp, &st), 0);
        assert_int_equal(st.st_mode & 07777, 01777);
        free(tmp);
        expect(root, "etc/shadow", NULL);
        assert_int_equal(rootfs_remove(dir), 0);
        assert_int_equal(access(dir, F_OK), -1);
        free(dir);
        free(root);
}

/* Removal follows no link: what it points to stays. */
static void test_remove_links(void **state)
{
        char *dir = make_dir(), *victim = make_dir(), *link = mem_printf("%s/link", dir);

        (void)state;
        assert_int_equal(symlink(victim, link), 0);
        assert_int_equal(rootfs_remove(dir), 0);
        assert_int_equal(access(victim, F_OK), 0);
        assert_int_equal(rootfs_remove(victim), 0);
        assert_int_equal(rootfs_remove(victim), 0); /* absent: fine */
        free(dir);
        free(victim);
        free(link);
}

static size_t lines(const char *text, const char *what)
{
        size_t n = 0;

        for (; (text = strstr(text, what)); text++)
                n++;
        return n;
}

static void test_log(void **state)
{
        char *dir = make_dir(), *path = mem_printf("%s/0.log", dir), *long_line = mem_alloc(CTRLOG_LINE_MAX + 10), *text;
        struct ctrlog_record r;
        struct ctrlog l;

        (void)state;
        memset(long_line, 'x', CTRLOG_LINE_MAX + 10);
        assert_int_equal(ctrlog_open(&l, path, 0), 0);
        ctrlog_write(&l, CTRLOG_STDOUT, STR("one\ntw"));
        ctrlog_write(&l, CTRLOG_STDERR, STR("problem\n"));
        ctrlog_write(&l, CTRLOG_STDOUT, STR("o\n\n"));
        ctrlog_write(&l, CTRLOG_STDOUT, str_make(long_line, CTRLOG_LINE_MAX + 10));
        ctrlog_write(&l, CTRLOG_STDOUT, STR("\nunfinished"));
        ctrlog_close(&l);
        text = content(dir, "0.log");
        assert_int_equal(lines(text, " stdout F "), 4); /* one, two, the empty one, and the end of the long one */
        assert_int_equal(lines(text, " stdout P "), 2);
        assert_int_equal(lines(text, " stderr F problem\n"), 1);
        struct str all = str_of(text), line;
        while (str_next(&all, '\n', &line) && line.n)
                assert_true(ctrlog_parse(line, &r));
        free(text);
        free(long_line);
        assert_int_equal(rootfs_remove(dir), 0);
        free(dir);
        free(path);
}

static void test_log_rotation(void **state)
{
        char *dir = make_dir(), *path = mem_printf("%s/0.log", dir), *text;
        struct ctrlog l;

        (void)state;
        assert_int_equal(ctrlog_open(&l, path, 100), 0);
        for (int i = 0; i < 10; i++) {
                char line[32];
                int n = snprintf(line, sizeof(line), "line number %d\n", i);
                ctrlog_write(&l, CTRLOG_STDOUT, str_make(line, (size_t)n));
        }
        ctrlog_close(&l);
        text = content(dir, "0.log");
        assert_non_null(strstr(text, "number 9"));
        free(text);
        text = content(dir, "0.log.1");
        assert_non_null(text);
        free(text);
        text = content(dir, "0.log.2");
        assert_non_null(text);
        free(text);
        expect(dir, "0.log.3", NULL);
        assert_int_equal(rootfs_remove(dir), 0);
        free(dir);
        free(path);
}

static void test_log_records(void **state)
{
        static const char *const bad[] = { "",
                                           "x",
                                           "2026-11-24T06:05:00Z",
                                           "2026-11-24T06:05:00Z stdout",
                                           "2026-11-24T06:05:00Z stdin F x",
                                           "2026-11-24T06:05:00Z stdout X x",
                                           "yesterday stdout F x" };
        struct ctrlog_record r;

        (void)state;
        for (size_t i = 0; i < ARRAY_LEN(bad); i++)
                assert_false(ctrlog_parse(str_of(bad[i]), &r));
        assert_true(ctrlog_parse(STR("2026-11-24T06:05:00.5Z stderr P a b "), &r));
        assert_true(r.partial && r.stream == CTRLOG_STDERR && str_eqc(r.text, "a b "));
        assert_true(ctrlog_parse(STR("2026-11-24T06:05:00.5Z stdout F "), &r));
        assert_int_equal(r.text.n, 0);
}

static bool keep_b(void *arg, struct str uid)
{
        (void)arg;
        return str_eqc(uid, "b");
}

static void test_addresses(void **state)
{
        char *dir = make_dir(), *path = mem_printf("%s/addresses", dir), text[ADDR_TEXT_MAX];
        struct buf error = BUF_INIT;
        struct addr ip;
        struct cidr range;
        struct ipam m;

        (void)state;
        assert_true(cidr_parse(&range, STR("10.9.0.0/28"))); /* 5 to 14: ten addresses */
        assert_true(ipam_init(&m, &range, path, &error));
        assert_int_equal(ipam_get(&m, STR("a"), &ip), 0);
        addr_ip_text(&ip, text);
        assert_string_equal(text, "10.9.0.5");
        assert_int_equal(ipam_get(&m, STR("b"), &ip), 0);
        ipam_free(&m, STR("a"));
        assert_int_equal(ipam_get(&m, STR("c"), &ip), 0); /* not the one just freed */
        addr_ip_text(&ip, text);
        assert_string_equal(text, "10.9.0.7");
        ipam_fini(&m);

        assert_true(ipam_init(&m, &range, path, &error)); /* a restart remembers */
        assert_int_equal(ipam_get(&m, STR("b"), &ip), 0);
        addr_ip_text(&ip, text);
        assert_string_equal(text, "10.9.0.6");
        for (int i = 0; i < 8; i++) {
                char uid[8];
                int n = snprintf(uid, sizeof(uid), "x%d", i);
                assert_int_equal(ipam_get(&m, str_make(uid, (size_t)n), &ip), 0);
        }
        assert_int_equal(ipam_get(&m, STR("full"), &ip), -ENOSPC);
        ipam_sweep(&m, keep_b, NULL);
        assert_int_equal(m.by_uid.live, 1);
        ipam_fini(&m);

        struct buf broken = BUF_INIT;
        buf_cstr(&broken, "a 3\n");
        assert_int_equal(buf_write_file(&broken, path, 0600), 0);
        assert_false(ipam_init(&m, &range, path, &error));
        assert_non_null(strstr(buf_z(&error), path));
        buf_fini(&broken);
        buf_fini(&error);
        assert_int_equal(rootfs_remove(dir), 0);
        free(dir);
        free(path);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_payload),      cmocka_unit_test(test_payload_paths), cmocka_unit_test(test_rootfs),
                cmocka_unit_test(test_remove_links), cmocka_unit_test(test_log),           cmocka_unit_test(test_log_rotation),
                cmocka_unit_test(test_log_records),  cmocka_unit_test(test_addresses),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
