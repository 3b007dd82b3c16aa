/* The store: what is acknowledged is there after a restart, what could not be committed never was, and damage is said. */
#include "kubetest.h"

#include "base/mem.h"

#include <fcntl.h>

static struct kobj *put(struct world *w, const char *ns, const char *name, const char *data)
{
        struct pb_node *n = json(&w->a, "{\"apiVersion\":\"v1\",\"kind\":\"ConfigMap\",\"metadata\":{},\"data\":{}}");

        pb_put_str(&w->a, pb_get(n, "metadata"), "name", str_of(name));
        pb_put_str(&w->a, pb_get(n, "metadata"), "namespace", str_of(ns));
        pb_put_str(&w->a, pb_get(n, "metadata"), "uid", arena_printf(&w->a, "uid-%s-%s", ns, name));
        pb_put_str(&w->a, pb_get(n, "data"), "k", str_of(data));
        return kube_store_put(w->store, kube_b.configmaps, str_of(ns), str_of(name), n, &w->a);
}

static const char *data(struct world *w, const char *ns, const char *name)
{
        const struct kobj *o = kube_store_get(w->store, kube_b.configmaps, str_of(ns), str_of(name));

        return o ? arena_cstr(&w->a, pb_get_str(o->node, "data.k", STR(""))) : "(none)";
}

static void survives(void **state)
{
        struct world *w = world_new();

        assert_non_null(put(w, "a", "x", "1"));
        assert_non_null(put(w, "b", "x", "2"));
        assert_non_null(put(w, "a", "y", "3"));
        assert_int_equal(kube_store_commit(w->store), 0);
        assert_non_null(put(w, "a", "x", "4"));
        assert_non_null(kube_store_delete(w->store, kube_b.configmaps, STR("b"), STR("x")));
        assert_int_equal(kube_store_commit(w->store), 0);
        uint64_t rv = kube_store_rv(w->store);
        world_close(w);
        world_open(w);
        assert_int_equal(kube_store_rv(w->store), rv);
        assert_string_equal(data(w, "a", "x"), "4");
        assert_string_equal(data(w, "b", "x"), "(none)");
        struct kobj *const *v;
        assert_int_equal(kube_store_range(w->store, kube_b.configmaps, STR("a"), &v), 2);
        assert_true(str_eqc(v[0]->name, "x") && str_eqc(v[1]->name, "y"));
        world_free(w);
}

static void history(void **state)
{
        struct world *w = world_new();
        uint64_t start = kube_store_rv(w->store), pos;

        put(w, "a", "x", "1");
        put(w, "a", "x", "2");
        kube_store_delete(w->store, kube_b.configmaps, STR("a"), STR("x"));
        assert_true(kube_store_seek(w->store, start, &pos));
        assert_null(kube_store_change(w->store, pos)); /* nothing is committed yet */
        kube_store_commit(w->store);
        static const enum kube_change_type want[] = { KUBE_ADDED, KUBE_MODIFIED, KUBE_DELETED };
        for (unsigned i = 0; i < 3; i++)
                assert_int_equal(kube_store_change(w->store, pos + i)->type, want[i]);
        assert_int_equal(kube_store_change(w->store, pos + 2)->now->rv, start + 3);
        assert_true(kube_store_seek(w->store, start + 2, &pos));
        assert_int_equal(kube_store_change(w->store, pos)->type, KUBE_DELETED);
        assert_false(kube_store_seek(w->store, start - 1, &pos));
        world_free(w);
}

/* The disk fills up: SQLite's page limit stands in for it. */
static void full(void **state)
{
        struct world *w = world_new();
        char big[20001];

        memset(big, 'x', sizeof(big) - 1);
        big[sizeof(big) - 1] = 0;
        put(w, "a", "kept", "1");
        kube_store_commit(w->store);
        kube_store_limit_pages(w->store, 12);
        uint64_t rv = kube_store_rv(w->store);
        unsigned rollbacks = kube_store_rollbacks(w->store);
        put(w, "a", "kept", "2");
        bool refused = false;
        for (unsigned i = 0; i < 50 && !refused; i++)
                refused = !put(w, "a", arena_printf(&w->a, "n%u", i).p, big);
        refused |= kube_store_commit(w->store) != 0;
        assert_true(refused);
        assert_true(kube_store_full(w->store));
        assert_non_null(strstr(kube_store_error(w->store), "space"));
        if (kube_store_pending(w->store))
                kube_store_roll_back(w->store);
        assert_true(kube_store_rollbacks(w->store) > rollbacks);
        assert_string_equal(data(w, "a", "kept"), "1");
        assert_string_equal(data(w, "a", "n0"), "(none)");
        assert_int_equal(kube_store_rv(w->store), rv);
        kube_store_limit_pages(w->store, 1 << 20);
        assert_non_null(put(w, "a", "after", "3"));
        assert_int_equal(kube_store_commit(w->store), 0);
        world_close(w);
        world_open(w);
        assert_string_equal(data(w, "a", "kept"), "1");
        assert_string_equal(data(w, "a", "after"), "3");
        world_free(w);
}

static void damaged(void **state)
{
        struct world *w = world_new();
        struct diags d;

        for (unsigned i = 0; i < 200; i++)
                put(w, "a", arena_printf(&w->a, "n%u", i).p, "some text that fills a page");
        kube_store_commit(w->store);
        world_close(w);
        int fd = open(w->path, O_RDWR);
        assert_true(fd >= 0);
        char junk[4096];
        memset(junk, 0xee, sizeof(junk));
        for (off_t at = 4096; at < 4096 * 6; at += 4096)
                assert_int_equal(pwrite(fd, junk, sizeof(junk), at), sizeof(junk));
        close(fd);
        diags_init(&d);
        assert_null(kube_store_open(w->path, NULL, &d));
        assert_true(d.errors > 0);
        assert_true(str_find(d.v[0].text, STR("damaged")) >= 0);
        diags_fini(&d);
        unlink(w->path);
        world_open(w);
        world_free(w);
}

static void not_ours(void **state)
{
        struct world *w = world_new();
        struct diags d;
        struct buf b = BUF_INIT;

        diags_init(&d);
        assert_null(kube_store_open(w->path, NULL, &d)); /* in use: by ourselves */
        assert_true(d.errors > 0 && str_find(d.v[0].text, STR("in use")) >= 0);
        diags_clear(&d);
        world_close(w);
        buf_cstr(&b, "this is no database at all, but a text that somebody left here under this name");
        buf_write_file(&b, w->path, 0600);
        assert_null(kube_store_open(w->path, NULL, &d));
        assert_true(d.errors > 0);
        buf_fini(&b);
        diags_fini(&d);
        unlink(w->path);
        world_open(w);
        world_free(w);
}

int main(void)
{
        const struct CMUnitTest tests[] = { cmocka_unit_test(survives), cmocka_unit_test(history), cmocka_unit_test(full),
                                            cmocka_unit_test(damaged), cmocka_unit_test(not_ours) };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
