/* The process: starts in Envoy's order (static clusters, workers, dynamic clusters, then listeners), serves, drains, ends.
 *
 * SIGTERM and SIGINT end it: at once as Envoy does, or, in Istio's mode, after draining: listeners keep accepting nothing new, connections
 * are told to finish, and the last one or the drain time ends the process. SIGUSR1 reopens the access logs. */
#include "proxy/server.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "pb/pb.h"
#include "proxy/access_log.h"
#include "proxy/admin.h"
#include "proxy/bootstrap.h"
#include "proxy/cluster_manager.h"
#include "proxy/ext.h"
#include "proxy/inspector_stats.h"
#include "proxy/listener_manager.h"
#include "proxy/rds_manager.h"
#include "proxy/worker_main.h"
#include "proxy/xds_link.h"

#include "envoy/bootstrap.pb-c.h"
#include "envoy/cluster.pb-c.h"
#include "envoy/core.pb-c.h"
#include "envoy/listener.pb-c.h"
#include "google/any.pb-c.h"
#include "google/struct.pb-c.h"

#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <unistd.h>

enum { DRAIN_POLL_MS = 50 };

enum { SS_CONCURRENCY, SS_LIVE, SS_STATE, SS_CONNECTIONS, SS_UPTIME, SS_COUNT };

static const struct stat_def server_defs[SS_COUNT] = {
        { "concurrency", STAT_GAUGE },       { "live", STAT_GAUGE },   { "state", STAT_GAUGE },
        { "total_connections", STAT_GAUGE }, { "uptime", STAT_GAUGE },
};

static unsigned cpus(void)
{
        cpu_set_t set;

        return sched_getaffinity(0, sizeof(set), &set) == 0 ? (unsigned)CPU_COUNT(&set) : 1;
}

static void log_diags(const struct diags *d)
{
        struct buf b = BUF_INIT;

        for (size_t i = 0; i < d->n; i++) {
                b.n = 0;
                diag_format(&d->v[i], &b);
                LOG(d->v[i].severity == DIAG_ERROR ? LOG_CRITICAL : LOG_WARN, "config", "%.*s", (int)b.n, b.p);
        }
        buf_fini(&b);
}

/* Like metadata.LABELS.app; text of strings, numbers and booleans. */
struct str server_node_meta(const struct server *s, const char *dotted)
{
        const Gp__Struct *at = s->node ? s->node->metadata : NULL;
        struct str rest = str_of(dotted), part;
        const Gp__Value *v = NULL;

        while (at && str_next(&rest, '.', &part)) {
                v = struct_value(at, part);
                at = v && v->kind_case == GP__VALUE__KIND_STRUCT_VALUE ? v->struct_value : NULL;
                if (!v)
                        return (struct str){ 0 };
        }
        return v && v->kind_case == GP__VALUE__KIND_STRING_VALUE ? str_of(v->string_value) : (struct str){ 0 };
}

void server_check_live(struct server *s)
{
        if (s->live || !s->xds || !listener_manager_ready(s->listeners) || !xds_link_ready(s->xds) || !cluster_manager_ready(s->clusters))
                return;
        s->live = true;
        LOG(LOG_INFO, "main", "all dependencies initialized. starting workers");
}

static void on_clusters_ready(void *arg)
{
        struct server *s = arg;

        if (s->xds)
                xds_link_clusters_ready(s->xds);
        server_check_live(s);
}

/* ---- the end ---- */

static void drain_poll(struct loop_timer *t)
{
        struct server *s = t->arg;

        if (!atomic_load(&s->connections) || loop_now_ms(s->loop) >= s->drain_until_ms)
                loop_stop(s->loop);
        else
                loop_timer_arm(s->loop, t, DRAIN_POLL_MS);
}

void server_shutdown(struct server *s)
{
        if (s->stopping) {
                loop_stop(s->loop); /* asked twice */
                return;
        }
        s->stopping = true;
        if (!s->opts.istio_role) {
                loop_stop(s->loop);
                return;
        }
        s->draining = true;
        LOG(LOG_INFO, "main", "draining for at most %u s", s->opts.shutdown_drain_s);
        listener_manager_drain(s->listeners, false, true);
        s->drain_until_ms = loop_now_ms(s->loop) + (uint64_t)s->opts.shutdown_drain_s * 1000;
        s->drain_timer.fn = drain_poll;
        s->drain_timer.arg = s;
        loop_timer_arm(s->loop, &s->drain_timer, DRAIN_POLL_MS);
}

static void on_signal(void *arg, int signo)
{
        struct server *s = arg;

        switch (signo) {
        case SIGUSR1:
                log_sinks_reopen(s->sinks);
                break;
        case SIGHUP:
                LOG(LOG_INFO, "main", "SIGHUP is ignored");
                break;
        default:
                LOG(LOG_WARN, "main", "caught %s", signo == SIGINT ? "SIGINT" : "SIGTERM");
                server_shutdown(s);
        }
}

/* ---- the beginning ---- */

static bool load_static(struct server *s, struct diags *d)
{
        const Xds__Bootstrap__StaticResources *r = s->bootstrap->static_resources;
        struct str file = s->opts.config_path.n ? s->opts.config_path : s->opts.config_name;
        bool ok = true;
        struct arena a;

        arena_init(&a, 1024);
        for (size_t i = 0; r && i < r->n_clusters; i++) {
                struct diag_at at = { .file = file, .path = arena_printf(&a, "static_resources.clusters[%zu]", i) };

                ok = cluster_manager_set(s->clusters, r->clusters[i], false, STR(""), &at, d) && ok;
        }
        for (size_t i = 0; r && i < r->n_listeners; i++) {
                struct diag_at at = { .file = file, .path = arena_printf(&a, "static_resources.listeners[%zu]", i) };

                ok = listener_manager_set(s->listeners, r->listeners[i], false, STR(""), &at, d) && ok;
        }
        if (r && r->n_secrets) {
                struct diag_at at = { .file = file, .path = STR("static_resources.secrets") };

                diag_add(d, DIAG_ERROR, NULL, &at, "is not supported: this version has no TLS of its own");
                ok = false;
        }
        arena_fini(&a);
        return ok;
}

static void raise_files(void)
{
        struct rlimit r;

        if (getrlimit(RLIMIT_NOFILE, &r) == 0 && r.rlim_cur < r.rlim_max) {
                r.rlim_cur = r.rlim_max;
                setrlimit(RLIMIT_NOFILE, &r);
        }
}

static bool workers_make(struct server *s)
{
        unsigned n = s->opts.concurrency ? s->opts.concurrency : cpus();

        if (s->opts.mode == SERVER_VALIDATE)
                return true;
        s->workers = mem_calloc(n, sizeof(*s->workers));
        for (unsigned i = 0; i < n; i++)
                s->workers[i] = worker_new(s, i);
        s->nworkers = n;
        return true;
}

static bool server_init(struct server *s, struct diags *d)
{
        char host[256] = "";

        s->bootstrap = bootstrap_load(&s->opts, &s->arena, d);
        if (!s->bootstrap)
                return false;
        s->node = s->bootstrap->node;
        runtime_check(s->bootstrap, d);
        runtime_number(s->bootstrap, "overload.global_downstream_max_connections", &s->max_connections);
        gethostname(host, sizeof(host) - 1);
        s->hostname = arena_str(&s->arena, str_of(host));
        s->stats = stats_new();
        s->stats_main = stats_local_new(s->stats);
        s->scope = stats_scope(s->stats, STR("server."), STR("server."), NULL, 0, server_defs, SS_COUNT);
        s->inspectors = inspectors_new(s->stats);
        s->sinks = log_sinks_new(s);
        s->clusters = cluster_manager_new(s);
        s->listeners = listener_manager_new(s);
        s->rds = rds_manager_new(s);
        proxy_http_init(s);
        workers_make(s);
        cluster_manager_on_ready(s->clusters, on_clusters_ready, s);
        s->xds = xds_link_new(s, d);
        if (!s->xds || !load_static(s, d))
                return false;
        if (s->opts.mode == SERVER_VALIDATE)
                return d->errors == 0;
        s->admin = admin_new(s, d);
        return s->admin != NULL;
}

static void server_fini(struct server *s)
{
        for (unsigned i = 0; i < s->nworkers; i++)
                worker_stop(s->workers[i]);
        admin_free(s->admin);
        for (unsigned i = 0; s->loop && i < 8; i++) /* what workers posted, what was deferred */
                loop_turn(s->loop, 0);
        for (unsigned i = 0; i < s->nworkers; i++)
                worker_free(s->workers[i]);
        s->nworkers = 0;
        listener_manager_free(s->listeners);
        s->listeners = NULL;
        for (unsigned i = 0; s->loop && i < 2; i++) /* route slots that the listeners let go */
                loop_turn(s->loop, 0);
        rds_manager_free(s->rds);
        s->rds = NULL;
        cluster_manager_free(s->clusters);
        xds_link_free(s->xds);
        log_sinks_free(s->sinks);
        if (s->stats) {
                inspectors_free(s->stats, s->inspectors);
                stats_scope_unref(s->stats, s->scope);
                stats_local_free(s->stats_main);
                stats_free(s->stats);
        }
        for (unsigned i = 0; s->loop && i < 4; i++)
                loop_turn(s->loop, 0);
        loop_signal_free(s->signals);
        loop_free(s->loop);
        free(s->workers);
        arena_fini(&s->arena);
        free(s);
}

void server_refresh_stats(struct server *s)
{
        struct stats_local *l = s->stats_main;

        stat_set(l, stat_of(s->scope, SS_STATE), s->live ? (s->draining ? 1 : 0) : 3);
        stat_set(l, stat_of(s->scope, SS_LIVE), s->live && !s->health_failed);
        stat_set(l, stat_of(s->scope, SS_CONCURRENCY), s->nworkers);
        stat_set(l, stat_of(s->scope, SS_UPTIME), (clock_real_us() - s->started_real_us) / 1000000);
        stat_set(l, stat_of(s->scope, SS_CONNECTIONS), atomic_load(&s->connections));
        cluster_manager_refresh_stats(s->clusters);
}

static void report_warnings(struct server *s, struct diags *d)
{
        if (d->n)
                log_diags(d);
}

static int serve(struct server *s)
{
        for (unsigned i = 0; i < s->nworkers; i++)
                if (!worker_start(s->workers[i]))
                        return 1;
        cluster_manager_publish(s->clusters);
        xds_link_start(s->xds);
        server_check_live(s);
        loop_run(s->loop);
        LOG(LOG_INFO, "main", "exiting");
        return s->exit_status;
}

int server_run(const struct server_opts *o)
{
        static const int signals[] = { SIGTERM, SIGINT, SIGUSR1, SIGHUP };
        struct server *s = MEM_NEW(struct server);
        struct diags d;
        int status = 1;

        diags_init(&d);
        arena_init(&s->arena, 65536);
        s->opts = *o;
        s->started_real_us = clock_real_us();
        raise_files();
        s->loop = loop_new();
        s->signals = loop_signal_new(s->loop, signals, ARRAY_LEN(signals), on_signal, s);
        if (!server_init(s, &d)) {
                log_diags(&d);
        } else {
                report_warnings(s, &d);
                status = o->mode == SERVER_VALIDATE ? 0 : serve(s);
        }
        diags_fini(&d);
        server_fini(s);
        return status;
}
