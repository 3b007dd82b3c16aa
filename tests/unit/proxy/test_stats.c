#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "proxy/stats.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { A, G, C2XX, H };

static const struct stat_def defs[] = {
        { "a_total", STAT_COUNTER },
        { "g", STAT_GAUGE },
        { "rq_2xx", STAT_COUNTER, "rq_xx", "envoy.response_code_class", "2" },
        { "ms", STAT_HISTOGRAM },
};

static struct stat_scope *scope(struct stats *s, const char *name)
{
        struct stat_tag tag = { "envoy.cluster_name", str_of(name) };
        struct buf b = BUF_INIT;
        struct stat_scope *sc;

        buf_printf(&b, "cluster.%s.", name);
        sc = stats_scope(s, buf_view(&b), STR("cluster."), &tag, 1, defs, ARRAY_LEN(defs));
        buf_fini(&b);
        return sc;
}

static bool has(const struct buf *b, const char *needle)
{
        return str_find(buf_view(b), str_of(needle)) >= 0;
}

static void test_same_scope_survives(void **state)
{
        struct stats *s = stats_new();
        struct stats_local *l = stats_local_new(s);
        struct stat_scope *x = scope(s, "x"), *again = scope(s, "x"), *y = scope(s, "y");

        assert_ptr_equal(x, again);
        assert_ptr_not_equal(x, y);
        stat_add(l, stat_of(x, A), 3);
        stats_scope_unref(s, x);
        assert_int_equal(stats_read(s, stat_of(again, A)), 3);
        assert_int_equal(stats_read_name(s, STR("cluster.x.a_total")), 3);
        stats_scope_unref(s, again);
        x = scope(s, "z"); /* takes the slots over: they are zero again */
        assert_int_equal(stats_read(s, stat_of(x, A)), 0);
        stats_scope_unref(s, x);
        stats_scope_unref(s, y);
        stats_local_free(l);
        stats_free(s);
}

static void *count(void *arg)
{
        struct stats *s = ((void **)arg)[0];
        struct stat_scope *x = ((void **)arg)[1];
        struct stats_local *l = stats_local_new(s);

        for (unsigned i = 0; i < 100000; i++) {
                stat_inc(l, stat_of(x, A));
                stat_inc(l, stat_of(x, G));
                stat_record(l, stat_of(x, H), i % 100);
        }
        for (unsigned i = 0; i < 99999; i++)
                stat_dec(l, stat_of(x, G));
        stats_local_free(l); /* what it counted stays */
        return NULL;
}

static void test_threads(void **state)
{
        struct stats *s = stats_new();
        struct stat_scope *x = scope(s, "x");
        void *arg[] = { s, x };
        pthread_t t[4];
        struct buf b = BUF_INIT;
        struct stats_print all = { 0 };

        for (unsigned i = 0; i < 4; i++)
                pthread_create(&t[i], NULL, count, arg);
        stats_print_prometheus(s, &all, &b); /* a scrape while they count */
        for (unsigned i = 0; i < 4; i++)
                pthread_join(t[i], NULL);
        assert_int_equal(stats_read(s, stat_of(x, A)), 400000);
        assert_int_equal(stats_read(s, stat_of(x, G)), 4);
        b.n = 0;
        stats_print_prometheus(s, &all, &b);
        assert_true(has(&b, "# TYPE envoy_cluster_a_total counter\nenvoy_cluster_a_total{envoy_cluster_name=\"x\"} 400000\n"));
        assert_true(has(&b, "envoy_cluster_rq_xx{envoy_response_code_class=\"2\",envoy_cluster_name=\"x\"} 0\n"));
        assert_true(has(&b, "envoy_cluster_ms_bucket{envoy_cluster_name=\"x\",le=\"0.5\"} 4000\n"));
        assert_true(has(&b, "envoy_cluster_ms_bucket{envoy_cluster_name=\"x\",le=\"+Inf\"} 400000\n"));
        assert_true(has(&b, "envoy_cluster_ms_count{envoy_cluster_name=\"x\"} 400000\n"));
        buf_fini(&b);
        stats_scope_unref(s, x);
        stats_free(s);
}

static const char *const labels[] = { "source", "code" };
static const struct stat_family family = { "istio_requests_total", STAT_COUNTER, labels, 2 };

static void test_series(void **state)
{
        struct stats *s = stats_new();
        struct stats_local *l = stats_local_new(s), *m = stats_local_new(s);
        struct str a[] = { STR("x"), STR("200") }, b[] = { STR("x\"\n\\"), STR("200") };
        struct buf out = BUF_INIT;
        struct stats_print o = { 0 };

        assert_int_equal(stats_series(l, &family, a), stats_series(m, &family, a));
        stat_inc(l, stats_series(l, &family, a));
        stat_inc(m, stats_series(m, &family, a));
        stat_inc(l, stats_series(l, &family, b));
        stats_print_prometheus(s, &o, &out);
        assert_true(has(&out, "istio_requests_total{source=\"x\",code=\"200\"} 2\n"));
        assert_true(has(&out, "istio_requests_total{source=\"x\\\"\\n\\\\\",code=\"200\"} 1\n"));
        for (unsigned i = 0; i < STAT_FAMILY_SERIES + 10; i++) { /* a client that makes up values */
                char t[16];

                a[0] = str_make(t, (size_t)snprintf(t, sizeof(t), "%u", i));
                stat_inc(l, stats_series(l, &family, a));
        }
        out.n = 0;
        stats_print_prometheus(s, &o, &out);
        assert_true(has(&out, "istio_requests_total{source=\"overflow\",code=\"overflow\"} 12\n"));
        buf_fini(&out);
        stats_local_free(l);
        stats_local_free(m);
        stats_free(s);
}

static void test_print(void **state)
{
        struct stats *s = stats_new();
        struct stats_local *l = stats_local_new(s);
        struct stat_scope *x = scope(s, "x");
        struct stats_print all = { 0 }, used = { .used_only = true }, istio = { .istio = true };
        struct buf b = BUF_INIT;

        stat_inc(l, stat_of(x, A));
        stats_print_text(s, &all, &b);
        assert_true(has(&b, "cluster.x.a_total: 1\n"));
        assert_true(has(&b, "cluster.x.g: 0\n"));
        assert_true(has(&b, "cluster.x.ms: No recorded values\n"));
        b.n = 0;
        stats_print_text(s, &used, &b);
        assert_string_equal(buf_z(&b), "cluster.x.a_total: 1\n");
        b.n = 0;
        stats_print_json(s, &used, &b);
        assert_string_equal(buf_z(&b), "{\"stats\":[{\"name\":\"cluster.x.a_total\",\"value\":1}]}");
        b.n = 0;
        stats_print_prometheus(s, &istio, &b);
        assert_true(has(&b, "envoy_cluster_a_total{cluster_name=\"x\"} 1\n"));
        stats_reset_counters(s);
        assert_int_equal(stats_read(s, stat_of(x, A)), 0);
        buf_fini(&b);
        stats_scope_unref(s, x);
        stats_local_free(l);
        stats_free(s);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_same_scope_survives),
                cmocka_unit_test(test_threads),
                cmocka_unit_test(test_series),
                cmocka_unit_test(test_print),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
