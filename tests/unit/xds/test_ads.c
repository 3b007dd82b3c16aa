/* The ADS client and the ADS server, one against the other over loopback, in both variants. */
#include "base/chain.h"
#include "base/hash.h"
#include "base/mem.h"
#include "envoy/cluster.pb-c.h"
#include "envoy/endpoint.pb-c.h"
#include "envoy/listener.pb-c.h"
#include "envoy/route.pb-c.h"
#include "net/addr.h"
#include "pb/pb.h"
#include "xds/xds.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

/* ---- configurations: "c1=x c2=y" a type; the value goes into a field, so that it changes the bytes ---- */

static struct str pack(const ProtobufCMessage *m)
{
        struct buf b = BUF_INIT;

        pb_pack(m, &b);
        struct str s = { b.p, b.n };
        return s;
}

static struct str resource(enum xds_type t, char *name, char *value)
{
        switch (t) {
        case XDS_CDS: {
                Xds__Cluster c = XDS__CLUSTER__INIT;
                c.name = name;
                c.alt_stat_name = value;
                return pack(&c.base);
        }
        case XDS_EDS: {
                Xds__ClusterLoadAssignment c = XDS__CLUSTER_LOAD_ASSIGNMENT__INIT;
                Xds__LocalityLbEndpoints l = XDS__LOCALITY_LB_ENDPOINTS__INIT, *v = &l;
                c.cluster_name = name;
                l.has_priority = true;
                l.priority = (uint32_t)atoi(value);
                c.n_endpoints = 1;
                c.endpoints = &v;
                return pack(&c.base);
        }
        case XDS_LDS: {
                Xds__Listener l = XDS__LISTENER__INIT;
                l.name = name;
                l.stat_prefix = value;
                return pack(&l.base);
        }
        default: {
                Xds__RouteConfiguration r = XDS__ROUTE_CONFIGURATION__INIT;
                char *only[] = { value };
                r.name = name;
                r.n_internal_only_headers = 1;
                r.internal_only_headers = only;
                return pack(&r.base);
        }
        }
}

static void config_free(struct xds_config *c)
{
        for (int t = 0; t < XDS_TYPES; t++) {
                for (size_t i = 0; i < c->of[t].n; i++) {
                        free((char *)c->of[t].v[i].name.p);
                        free((char *)c->of[t].v[i].bytes.p);
                }
                free((void *)c->of[t].v);
        }
        free(c);
}

static struct xds_config *config(const char *cds, const char *eds, const char *lds, const char *rds)
{
        const char *texts[] = { cds, eds, lds, rds };
        struct xds_config *c = MEM_NEW(struct xds_config);

        c->refs = 1;
        c->free_fn = config_free;
        for (int t = 0; t < 4; t++) {
                struct xds_item *v = mem_calloc(16, sizeof(*v));
                struct str rest = str_of(texts[t]), word;
                size_t n = 0;

                while (rest.n && str_next(&rest, ' ', &word)) {
                        ptrdiff_t eq = str_chr(word, '=');
                        char *name = str_dup(str_sub(word, 0, (size_t)eq)), *value = str_dup(str_sub(word, (size_t)eq + 1, word.n));

                        v[n].name = str_of(name);
                        v[n].bytes = resource(t, name, value);
                        v[n].hash = hash_bytes(v[n].bytes.p, v[n].bytes.n, 1);
                        c->of[t].hash = c->of[t].hash * 31 + v[n++].hash;
                        free(value);
                }
                c->of[t].hash += 7;
                c->of[t].v = v;
                c->of[t].n = n;
        }
        return c;
}

/* ---- both ends ---- */

struct world {
        struct loop *l;
        struct xds_server *s;
        struct xds_client *c;
        struct xds_peer *peer;
        struct xds_config *config;
        unsigned peers, gone, synced, nacks, updates, timeouts;
        char nack[300];
        char log[2000];                /* what the sink saw */
        const char *refuse;            /* a resource's name */
        bool delta, disk_seen, follow; /* follow: want the endpoints of each cluster, and the route "r" */
        char state[64], where[ADDR_TEXT_MAX];
        struct addr at;
};

static bool on_peer(void *arg, struct xds_peer *p, const Xds__Node *node, struct buf *why)
{
        struct world *w = arg;

        if (strcmp(node->id, "nobody") == 0) {
                buf_cstr(why, "nobody is not welcome");
                return false;
        }
        w->peers++;
        w->peer = p;
        if (w->config)
                xds_peer_push(p, w->config);
        return true;
}

static void on_gone(void *arg, struct xds_peer *p)
{
        struct world *w = arg;

        w->gone++;
        w->peer = NULL;
}

static void on_nack(void *arg, struct xds_peer *p, enum xds_type t, struct str error)
{
        struct world *w = arg;

        w->nacks++;
        snprintf(w->nack, sizeof(w->nack), "%.*s", (int)error.n, error.p);
}

static void on_synced(void *arg, struct xds_peer *p)
{
        ((struct world *)arg)->synced++;
}

static const struct xds_server_ops server_ops = { on_peer, on_gone, on_nack, on_synced };

static void note(struct world *w, const char *fmt, ...)
{
        size_t n = strlen(w->log);
        va_list ap;

        va_start(ap, fmt);
        vsnprintf(w->log + n, sizeof(w->log) - n, fmt, ap);
        va_end(ap);
}

static int by_name(const void *a, const void *b)
{
        return str_cmp(((const struct xds_resource *)a)->name, ((const struct xds_resource *)b)->name);
}

static void apply(void *arg, struct xds_update *u, struct diags *d)
{
        struct world *w = arg;

        w->updates++;
        w->disk_seen |= u->from_disk;
        if (u->n)
                qsort(u->v, u->n, sizeof(*u->v), by_name);
        note(w, "%s", xds_type_name(u->type));
        for (size_t i = 0; i < u->n; i++) {
                note(w, " %.*s", (int)u->v[i].name.n, u->v[i].name.p);
                assert_non_null(u->v[i].msg);
                if (w->refuse && str_eqc(u->v[i].name, w->refuse)) {
                        struct diag_at at = { .resource = u->v[i].name, .path = STR("some.field") };

                        diag_add(d, DIAG_ERROR, NULL, &at, "is not to my taste");
                        u->v[i].refused = true;
                }
                if (w->follow && u->type == XDS_CDS)
                        xds_client_want(w->c, XDS_EDS, u->v[i].name, 0);
        }
        for (size_t i = 0; i < u->nremoved; i++)
                note(w, " -%.*s", (int)u->removed[i].n, u->removed[i].p);
        note(w, "; ");
}

static void on_timeout(void *arg, enum xds_type t, struct str name)
{
        ((struct world *)arg)->timeouts++;
}

static void start_server(struct world *w)
{
        struct xds_server_opts o = { .listen = &w->at, .identifier = STR("test") };
        int err = 0;

        w->s = xds_server_new(w->l, &o, &server_ops, w, &err);
        assert_non_null(w->s);
        w->at = *xds_server_addr(w->s);
        addr_text(&w->at, w->where);
}

static Xds__Node node;

static void start_client(struct world *w, char *id)
{
        struct str target = str_of(w->where);
        struct xds_client_opts o = { .targets = &target, .ntargets = 1, .node = &node, .delta = w->delta, .state_path = str_of(w->state) };
        struct xds_sink sink = { apply, on_timeout, w };

        xds__node__init(&node);
        node.id = id;
        w->c = xds_client_new(w->l, &o, &sink);
}

static void world_start(struct world *w, bool delta)
{
        *w = (struct world){ .l = loop_new(), .delta = delta };
        assert_true(addr_parse(&w->at, STR("127.0.0.1:0")));
        start_server(w);
}

static void settle(struct world *w)
{
        for (int i = 0; i < 8; i++)
                loop_turn(w->l, 0);
}

static void world_end(struct world *w)
{
        xds_client_free(w->c);
        settle(w);
        xds_server_free(w->s);
        settle(w);
        xds_config_unref(w->config);
        loop_free(w->l);
        chain_thread_fini();
}

static void until(struct world *w, const unsigned *what, unsigned n)
{
        while (*what < n)
                loop_turn(w->l, -1);
        settle(w);
}

static void push(struct world *w, struct xds_config *c)
{
        unsigned synced = w->synced;

        xds_config_unref(w->config);
        w->config = c;
        w->log[0] = '\0';
        xds_peer_push(w->peer, c);
        until(w, &w->synced, synced + 1);
}

/* ---- tests: *state is "sotw" or "delta" ---- */

static void run_changes(bool delta)
{
        struct world w;

        world_start(&w, delta);
        w.follow = true;
        w.config = config("c1=a", "c1=1", "l1=a", "r=a");
        start_client(&w, "node-1");
        xds_client_want(w.c, XDS_CDS, STR(""), 0);
        xds_client_want(w.c, XDS_LDS, STR(""), 0);
        xds_client_want(w.c, XDS_RDS, STR("r"), 0);
        assert_int_equal(w.updates, 0);
        until(&w, &w.updates, 4);
        assert_string_equal(w.log, "CDS c1; LDS l1; RDS r; EDS c1; ");
        assert_true(xds_client_connected(w.c));
        assert_int_equal(w.peers, 1);
        assert_true(str_eqc(xds_peer_id(w.peer), "node-1"));

        /* A cluster replaced by another that a changed route names: make before break. */
        push(&w, config("c2=a", "c2=1", "l1=a", "r=b"));
        if (delta)
                assert_string_equal(w.log, "CDS c2; EDS c2; RDS r; CDS -c1; ");
        else
                assert_string_equal(w.log, "CDS c1 c2; EDS c2; RDS r; CDS c2; ");
        struct xds_peer_type st;
        for (int t = 0; t < XDS_SDS; t++) {
                xds_peer_status(w.peer, t, &st);
                assert_true(st.subscribed);
                assert_true(str_eq(st.nonce_sent, st.nonce_acked));
                assert_int_equal(st.hash_sent, st.hash_acked);
        }
        /* The same content: nothing is sent. */
        push(&w, config("c2=a", "c2=1", "l1=a", "r=b"));
        assert_string_equal(w.log, "");
        /* Endpoints alone. */
        push(&w, config("c2=a", "c2=2", "l1=a", "r=b"));
        assert_string_equal(w.log, "EDS c2; ");
        /* A listener more, one less, and one changed. */
        push(&w, config("c2=a", "c2=2", "l1=b l2=a", "r=b"));
        assert_string_equal(w.log, delta ? "LDS l1 l2; " : "LDS l1 l2; ");
        push(&w, config("c2=a", "c2=2", "l2=a", "r=b"));
        assert_string_equal(w.log, delta ? "LDS -l1; " : "LDS l2; ");
        /* No endpoints any more: an empty assignment. */
        push(&w, config("c2=a", "", "l2=a", "r=b"));
        assert_string_equal(w.log, "EDS c2; ");
        /* Everything goes. */
        push(&w, config("", "", "", ""));
        assert_string_equal(w.log, delta ? "LDS -l2; RDS -r; CDS -c2; " : "LDS; CDS; ");
        assert_int_equal(w.nacks, 0);
        assert_int_equal(w.timeouts, 0);
        world_end(&w);
        assert_int_equal(w.gone, 1);
}

static void test_changes_sotw(void **state)
{
        run_changes(false);
}

static void test_changes_delta(void **state)
{
        run_changes(true);
}

static void run_nack(bool delta)
{
        struct world w;
        struct str value, version;
        uint64_t at;

        world_start(&w, delta);
        w.config = config("c1=a c2=a", "", "", "");
        w.refuse = "c2";
        start_client(&w, "node-1");
        xds_client_want(w.c, XDS_CDS, STR(""), 0);
        until(&w, &w.nacks, 1);
        assert_string_equal(w.nack, "c2: some.field: is not to my taste");
        const struct xds_stats *st = xds_client_stats(w.c, XDS_CDS);
        assert_int_equal(st->update_rejected, 1);
        assert_int_equal(st->update_success, 0);
        assert_true(str_eqc(st->error, "c2: some.field: is not to my taste"));
        assert_true(xds_client_get(w.c, XDS_CDS, STR("c1"), &value, &version, &at));
        assert_false(xds_client_get(w.c, XDS_CDS, STR("c2"), &value, &version, &at));
        struct xds_peer_type pt;
        xds_peer_status(w.peer, XDS_CDS, &pt);
        assert_true(pt.error.n > 0);
        /* Put right, it is taken. */
        w.refuse = NULL;
        push(&w, config("c1=a c2=b", "", "", ""));
        assert_int_equal(st->update_success, 1);
        assert_true(xds_client_get(w.c, XDS_CDS, STR("c2"), &value, &version, &at));
        xds_peer_status(w.peer, XDS_CDS, &pt);
        assert_int_equal(pt.error.n, 0);
        world_end(&w);
}

static void test_nack_sotw(void **state)
{
        run_nack(false);
}

static void test_nack_delta(void **state)
{
        run_nack(true);
}

/* Bytes that are no Cluster, and a resource of another type: refused by the client itself, the others taken. */
static void test_garbage(void **state)
{
        struct world w;

        world_start(&w, false);
        w.config = config("c1=a c2=a", "", "", "");
        struct xds_item *bad = (struct xds_item *)&w.config->of[XDS_CDS].v[1];
        free((char *)bad->bytes.p);
        bad->bytes = str_of(mem_strdup("\x0a\x02"
                                       "c2\xff\xff"));
        start_client(&w, "node-1");
        xds_client_want(w.c, XDS_CDS, STR(""), 0);
        until(&w, &w.nacks, 1);
        assert_string_equal(w.log, "CDS c1; ");
        assert_non_null(strstr(w.nack, "Cluster c2"));
        world_end(&w);
}

/* The server goes away and comes back; the client finds it, and keeps what it has. */
static void run_reconnect(bool delta)
{
        struct world w;

        world_start(&w, delta);
        w.config = config("c1=a", "", "l1=a", "");
        start_client(&w, "node-1");
        xds_client_want(w.c, XDS_CDS, STR(""), 0);
        xds_client_want(w.c, XDS_LDS, STR(""), 0);
        until(&w, &w.updates, 2);
        xds_server_free(w.s);
        while (xds_client_connected(w.c))
                loop_turn(w.l, -1);
        assert_true(*xds_client_trouble(w.c) != '\0');
        settle(&w);
        w.log[0] = '\0';
        start_server(&w);
        xds_config_unref(w.config);
        w.config = config("c1=b", "", "l1=a", "");
        while (!xds_client_connected(w.c))
                loop_turn(w.l, -1);
        settle(&w);
        until(&w, &w.updates, 4);
        /* Delta: what is held in the same version is not sent again (an empty answer says that it is known). */
        assert_string_equal(w.log, delta ? "CDS c1; LDS; " : "CDS c1; LDS l1; ");
        world_end(&w);
}

static void test_reconnect_sotw(void **state)
{
        run_reconnect(false);
}

static void test_reconnect_delta(void **state)
{
        run_reconnect(true);
}

/* A restart without a control plane starts from the state file, in any order of wanting; another node's file is not used. */
static void test_state_file(void **state)
{
        struct world w;
        char dir[] = "/tmp/postern-test-XXXXXX";

        assert_non_null(mkdtemp(dir));
        world_start(&w, false);
        snprintf(w.state, sizeof(w.state), "%s/state", dir);
        w.follow = true;
        w.config = config("c1=a c2=a", "c1=1 c2=2", "l1=a", "r=a");
        start_client(&w, "node-1");
        xds_client_want(w.c, XDS_CDS, STR(""), 0);
        xds_client_want(w.c, XDS_LDS, STR(""), 0);
        xds_client_want(w.c, XDS_RDS, STR("r"), 0);
        until(&w, &w.updates, 4);
        xds_client_free(w.c);
        settle(&w);
        xds_server_free(w.s);
        settle(&w);
        assert_false(w.disk_seen);

        w.log[0] = '\0';
        start_client(&w, "node-1");
        xds_client_want(w.c, XDS_CDS, STR(""), 50);
        xds_client_want(w.c, XDS_LDS, STR(""), 50);
        xds_client_want(w.c, XDS_RDS, STR("r"), 50);
        xds_client_want(w.c, XDS_RDS, STR("unknown"), 50);
        assert_string_equal(w.log, "");
        settle(&w);
        assert_string_equal(w.log, "CDS c1 c2; EDS c1 c2; LDS l1; RDS r; ");
        assert_true(w.disk_seen);
        until(&w, &w.timeouts, 1); /* the unknown one only */
        settle(&w);
        assert_int_equal(w.timeouts, 1);
        xds_client_free(w.c);

        w.log[0] = '\0';
        start_client(&w, "node-2");
        xds_client_want(w.c, XDS_CDS, STR(""), 20);
        until(&w, &w.timeouts, 2);
        assert_string_equal(w.log, "");
        xds_client_free(w.c);

        /* A damaged file is no file. */
        struct buf b = BUF_INIT;
        assert_int_equal(buf_read_file(&b, w.state, 1 << 20), 0);
        b.p[b.n / 2] ^= 1;
        assert_int_equal(buf_write_file(&b, w.state, 0600), 0);
        buf_fini(&b);
        start_client(&w, "node-1");
        xds_client_want(w.c, XDS_CDS, STR(""), 20);
        until(&w, &w.timeouts, 3);
        assert_string_equal(w.log, "");
        xds_client_free(w.c);
        w.c = NULL;
        settle(&w);
        unlink(w.state);
        rmdir(dir);
        xds_config_unref(w.config);
        loop_free(w.l);
        chain_thread_fini();
}

/* A name that is let go and wanted again at once is delivered again; one that is let go is forgotten. */
static void run_names(bool delta)
{
        struct world w;
        struct str value, version;
        uint64_t at;

        world_start(&w, delta);
        w.config = config("", "e1=1 e2=2", "", "");
        start_client(&w, "node-1");
        xds_client_want(w.c, XDS_EDS, STR("e1"), 0);
        xds_client_want(w.c, XDS_EDS, STR("e1"), 0);
        until(&w, &w.updates, 1);
        xds_client_want(w.c, XDS_EDS, STR("e2"), 0);
        until(&w, &w.updates, 2);
        assert_string_equal(w.log, "EDS e1; EDS e2; ");
        xds_client_unwant(w.c, XDS_EDS, STR("e1"));
        settle(&w);
        assert_true(xds_client_get(w.c, XDS_EDS, STR("e1"), &value, &version, &at));
        xds_client_unwant(w.c, XDS_EDS, STR("e1"));
        xds_client_want(w.c, XDS_EDS, STR("e1"), 0);
        until(&w, &w.updates, 3);
        assert_non_null(strstr(w.log + 16, "EDS e1; "));
        xds_client_unwant(w.c, XDS_EDS, STR("e1"));
        xds_client_unwant(w.c, XDS_EDS, STR("never"));
        settle(&w);
        assert_false(xds_client_get(w.c, XDS_EDS, STR("e1"), &value, &version, &at));
        push(&w, config("", "e1=3 e2=3", "", ""));
        assert_string_equal(w.log, "EDS e2; ");
        world_end(&w);
}

static void test_names_sotw(void **state)
{
        run_names(false);
}

static void test_names_delta(void **state)
{
        run_names(true);
}

static void test_refused_peer(void **state)
{
        struct world w;

        world_start(&w, false);
        start_client(&w, "nobody");
        xds_client_want(w.c, XDS_CDS, STR(""), 0);
        while (!*xds_client_trouble(w.c))
                loop_turn(w.l, -1);
        assert_string_equal(xds_client_trouble(w.c), "stream ended: INVALID_ARGUMENT: nobody is not welcome");
        world_end(&w);
        assert_int_equal(w.gone, 0);
}

/* ---- files ---- */

static void write_text(const char *path, const char *text)
{
        struct buf b = BUF_INIT;

        buf_cstr(&b, text);
        assert_int_equal(buf_write_file(&b, path, 0600), 0);
        buf_fini(&b);
}

static void test_file(void **state)
{
        struct world w = { .l = loop_new() };
        struct xds_sink sink = { apply, on_timeout, &w };
        char dir[] = "/tmp/postern-test-XXXXXX";

        assert_non_null(mkdtemp(dir));
        char *path = mem_printf("%s/cds.yaml", dir);
        struct xds_file *f = xds_file_new(w.l, XDS_CDS, str_of(path), STR(""), &sink);
        until(&w, &w.timeouts, 1); /* not there yet: nobody waits */
        write_text(path, "version_info: \"7\"\nresources:\n- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\n  name: c1\n");
        until(&w, &w.updates, 1);
        assert_string_equal(w.log, "CDS c1; ");
        assert_true(str_eqc(xds_file_stats(f)->version_text, "7"));
        write_text(path, "resources:\n- \"@type\": type.googleapis.com/envoy.config.cluster.v3.Cluster\n  nam: c1\n");
        while (!xds_file_stats(f)->update_rejected)
                loop_turn(w.l, -1);
        write_text(path, "resources:\n- \"@type\": type.googleapis.com/envoy.config.listener.v3.Listener\n  name: c1\n");
        while (xds_file_stats(f)->update_rejected < 2)
                loop_turn(w.l, -1);
        assert_int_equal(w.updates, 1);
        write_text(path, "resources: []\n");
        until(&w, &w.updates, 2);
        assert_string_equal(w.log, "CDS c1; CDS; ");
        xds_file_free(f);
        unlink(path);
        rmdir(dir);
        free(path);
        loop_free(w.l);
}

int main(void)
{
        const struct CMUnitTest tests[] = {
                cmocka_unit_test(test_changes_sotw),    cmocka_unit_test(test_changes_delta), cmocka_unit_test(test_nack_sotw),
                cmocka_unit_test(test_nack_delta),      cmocka_unit_test(test_garbage),       cmocka_unit_test(test_reconnect_sotw),
                cmocka_unit_test(test_reconnect_delta), cmocka_unit_test(test_state_file),    cmocka_unit_test(test_names_sotw),
                cmocka_unit_test(test_names_delta),     cmocka_unit_test(test_refused_peer),  cmocka_unit_test(test_file),
        };

        return cmocka_run_group_tests(tests, NULL, NULL);
}
