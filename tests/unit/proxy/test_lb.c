/* Load balancing, by counting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/mem.h"
#include "proxy/cluster_private.h"
#include "proxy/worker.h"

#include <stdlib.h>

enum { HOSTS = 6, PICKS = 12000 };

struct fixture {
        struct cluster_shared shared;
        struct stat_scope scope;
        struct stats *stats;
        struct worker worker;
        struct cluster cluster;
        struct host_desc desc[HOSTS];
        struct host host[HOSTS];
        struct host *v[HOSTS];
        unsigned n, got[HOSTS];
        struct lb *lb;
};

static void start(struct fixture *f, enum lb_policy policy, unsigned n)
{
        memset(f, 0, sizeof(*f));
        f->stats = stats_new();
        f->worker.stats = stats_local_new(f->stats);
        f->scope = (struct stat_scope){ 1, CS_UPSTREAM_CX_CONNECT_MS, CS_COUNT };
        f->shared.info = (struct cluster_info){ .lb = policy,
                                                .panic_threshold = 50,
                                                .choice_count = 2,
                                                .active_request_bias = 1,
                                                .overprovisioning = 140,
                                                .stats = &f->scope };
        f->cluster.worker = &f->worker;
        f->cluster.info = &f->shared.info;
        f->n = n;
        for (unsigned i = 0; i < n; i++) {
                f->host[i] = (struct host){ .desc = &f->desc[i], .weight = 1 };
                f->v[i] = &f->host[i];
        }
        f->lb = lb_new(&f->shared.info);
}

static void pick(struct fixture *f, unsigned times)
{
        lb_update(f->lb, f->v, f->n);
        memset(f->got, 0, sizeof(f->got));
        for (unsigned i = 0; i < times; i++) {
                struct host *h = lb_pick(f->lb, &f->cluster, NULL);

                assert_non_null(h);
                f->got[h - f->host]++;
        }
}

static void end(struct fixture *f)
{
        lb_free(f->lb);
        stats_local_free(f->worker.stats);
        stats_free(f->stats);
}

static void near(unsigned got, unsigned want, unsigned off)
{
        if (got + off < want || got > want + off)
                print_message("%u, not about %u\n", got, want);
        assert_true(got + off >= want && got <= want + off);
}

static void test_round_robin(void **state)
{
        struct fixture f;

        start(&f, LB_ROUND_ROBIN, 3);
        pick(&f, 300);
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(f.got[i], 100);
        f.host[0].weight = 5;
        f.host[1].weight = 3;
        f.host[2].weight = 2;
        pick(&f, 1000);
        near(f.got[0], 500, 2);
        near(f.got[1], 300, 2);
        near(f.got[2], 200, 2);
        end(&f);
}

static void test_random(void **state)
{
        struct fixture f;

        start(&f, LB_RANDOM, 4);
        pick(&f, PICKS);
        for (unsigned i = 0; i < 4; i++)
                near(f.got[i], PICKS / 4, 400);
        end(&f);
}

static void test_least_request(void **state)
{
        struct fixture f;

        start(&f, LB_LEAST_REQUEST, 4);
        f.host[0].rq_active = 100; /* of two random ones it is taken when it meets itself: 1 in 16 */
        pick(&f, PICKS);
        near(f.got[0], PICKS / 16, 200);
        f.host[0].rq_active = 0;
        f.host[0].weight = 3; /* weighted, all idle: by weight */
        pick(&f, 6000);
        near(f.got[0], 3000, 3);
        near(f.got[3], 1000, 3);
        end(&f);
}

static void test_priorities(void **state)
{
        struct fixture f;

        start(&f, LB_RANDOM, 6); /* three hosts at priority 0, three at 1 */
        for (unsigned i = 3; i < 6; i++)
                f.host[i].priority = 1;
        pick(&f, 1000);
        assert_int_equal(f.got[3] + f.got[4] + f.got[5], 0);
        f.host[0].health = HEALTH_UNHEALTHY; /* 2 of 3 healthy: 140 % of that is 93 */
        pick(&f, PICKS);
        assert_int_equal(f.got[0], 0);
        near(f.got[1] + f.got[2], PICKS * 93 / 100, 300);
        f.host[1].health = f.host[2].health = HEALTH_UNHEALTHY;
        pick(&f, 1000);
        assert_int_equal(f.got[3] + f.got[4] + f.got[5], 1000);
        end(&f);
}

static void test_degraded(void **state)
{
        struct fixture f;

        start(&f, LB_RANDOM, 2);
        f.host[1].health = HEALTH_DEGRADED; /* half healthy: 70 % to it, the rest to the degraded one */
        pick(&f, PICKS);
        near(f.got[0], PICKS * 70 / 100, 400);
        end(&f);
}

static void test_panic(void **state)
{
        struct fixture f;

        start(&f, LB_RANDOM, 4);
        for (unsigned i = 0; i < 3; i++) /* one of four healthy is below 50 %: all are used */
                f.host[i].health = HEALTH_UNHEALTHY;
        pick(&f, PICKS);
        for (unsigned i = 0; i < 4; i++)
                near(f.got[i], PICKS / 4, 400);
        f.shared.info.panic_threshold = 0;
        pick(&f, 1000);
        assert_int_equal(f.got[3], 1000);
        f.host[3].health = HEALTH_UNHEALTHY;
        lb_update(f.lb, f.v, f.n);
        assert_null(lb_pick(f.lb, &f.cluster, NULL));
        end(&f);
}

static void test_empty(void **state)
{
        struct fixture f;

        start(&f, LB_ROUND_ROBIN, 0);
        lb_update(f.lb, f.v, 0);
        assert_null(lb_pick(f.lb, &f.cluster, NULL));
        end(&f);
}

static bool reject_first(void *arg, const struct host *h)
{
        return h == arg;
}

static void test_reject(void **state)
{
        struct fixture f;
        unsigned first = 0;

        start(&f, LB_RANDOM, 2);
        lb_update(f.lb, f.v, 2);
        struct lb_ctx ctx = { .reject = reject_first, .arg = &f.host[0], .attempts = 10 };

        for (unsigned i = 0; i < 1000; i++)
                first += lb_pick(f.lb, &f.cluster, &ctx) == &f.host[0];
        assert_true(first < 10);
        end(&f);
}

static void test_localities(void **state)
{
        struct fixture f;

        start(&f, LB_RANDOM, 4);
        f.shared.locality_weighted = true;
        for (unsigned i = 0; i < 4; i++) {
                f.desc[i].zone = i < 2 ? STR("a") : STR("b");
                f.desc[i].locality_weight = i < 2 ? 3 : 1;
        }
        pick(&f, PICKS);
        near(f.got[0] + f.got[1], PICKS * 3 / 4, 400);
        end(&f);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_round_robin), cmocka_unit_test(test_random),   cmocka_unit_test(test_least_request),
                cmocka_unit_test(test_priorities),  cmocka_unit_test(test_degraded), cmocka_unit_test(test_panic),
                cmocka_unit_test(test_empty),       cmocka_unit_test(test_reject),   cmocka_unit_test(test_localities),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
