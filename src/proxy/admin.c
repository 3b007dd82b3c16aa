/* The admin interface: a table of paths. What changes something wants POST, as in Envoy, so that no web page that a browser shows can make
 * it happen by an image's address. */
#include "proxy/admin.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "http/simple.h"
#include "proxy/access_log.h"
#include "proxy/admin_dump.h"
#include "proxy/ext.h"
#include "proxy/listener_manager.h"
#include "proxy/xds_link.h"

#include "envoy/bootstrap.pb-c.h"
#include "envoy/core.pb-c.h"
#include "google/any.pb-c.h"

#include <errno.h>
#include <malloc.h>
#include <regex.h>
#include <stdio.h>
#include <stdlib.h>

enum { ISTIO_HEALTH_PORT = 15021, ISTIO_STATS_PORT = 15090 };

static const char json[] = "application/json", text[] = "text/plain; charset=UTF-8",
                  prometheus[] = "text/plain; version=0.0.4; charset=utf-8";

struct admin {
        struct server *server;
        struct http_service *main, *health, *stats;
        struct loop_task stop;
};

struct reply {
        int status;
        const char *type;
        struct buf body;
};

struct request {
        struct admin *admin;
        struct server *s;
        struct str path, query;
};

/* ---- queries ---- */

static int hex(char c)
{
        return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : c >= 'A' && c <= 'F' ? c - 'A' + 10 : -1;
}

/* The value of a parameter, percent-decoded into `out`. False: not there. */
static bool param(const struct request *q, const char *name, struct buf *out)
{
        struct str rest = q->query, part;

        out->n = 0;
        while (rest.n && str_next(&rest, '&', &part)) {
                ptrdiff_t eq = str_chr(part, '=');
                struct str key = eq < 0 ? part : str_sub(part, 0, (size_t)eq), v = eq < 0 ? STR("") : str_sub(part, (size_t)eq + 1, part.n);

                if (!str_eqc(key, name))
                        continue;
                for (size_t i = 0; i < v.n; i++)
                        if (v.p[i] == '%' && i + 2 < v.n && hex(v.p[i + 1]) >= 0 && hex(v.p[i + 2]) >= 0) {
                                buf_char(out, (char)(hex(v.p[i + 1]) << 4 | hex(v.p[i + 2])));
                                i += 2;
                        } else {
                                buf_char(out, v.p[i] == '+' ? ' ' : v.p[i]);
                        }
                return true;
        }
        return false;
}

static bool flag(const struct request *q, const char *name)
{
        struct buf b = BUF_INIT;
        bool yes = param(q, name, &b);

        buf_fini(&b);
        return yes;
}

static bool param_is(const struct request *q, const char *name, const char *value)
{
        struct buf b = BUF_INIT;
        bool yes = param(q, name, &b) && str_eqc(buf_view(&b), value);

        buf_fini(&b);
        return yes;
}

/* ---- handlers ---- */

static void h_ready(struct request *q, struct reply *r)
{
        const char *state = server_state_name(q->s);

        r->status = strcmp(state, "LIVE") == 0 ? 200 : 503;
        buf_printf(&r->body, "%s\n", state);
}

static void h_config_dump(struct request *q, struct reply *r)
{
        struct buf resource = BUF_INIT, mask = BUF_INIT, name = BUF_INIT, why = BUF_INIT;

        param(q, "resource", &resource);
        param(q, "mask", &mask);
        param(q, "name_regex", &name);
        r->type = json;
        if (!admin_config_dump(q->s, buf_view(&resource), buf_view(&mask), buf_view(&name), flag(q, "include_eds"), &r->body, &why)) {
                r->status = 404;
                r->type = text;
                buf_str(&r->body, buf_view(&why));
        }
        buf_fini(&resource);
        buf_fini(&mask);
        buf_fini(&name);
        buf_fini(&why);
}

static void h_clusters(struct request *q, struct reply *r)
{
        struct buf filter = BUF_INIT;

        if (param_is(q, "format", "json")) {
                r->type = json;
                admin_clusters_json(q->s, &r->body);
                return;
        }
        param(q, "filter", &filter);
        admin_clusters_text(q->s, buf_view(&filter), &r->body);
        buf_fini(&filter);
}

static void h_listeners(struct request *q, struct reply *r)
{
        if (param_is(q, "format", "json")) {
                r->type = json;
                admin_listeners_json(q->s, &r->body);
        } else {
                admin_listeners_text(q->s, &r->body);
        }
}

static void h_server_info(struct request *q, struct reply *r)
{
        r->type = json;
        admin_server_info(q->s, &r->body);
}

static bool regex_match(void *arg, struct str name)
{
        char *z = str_dup(name);
        bool yes = regexec(arg, z, 0, NULL, 0) == 0;

        free(z);
        return yes;
}

/* False: the answer is an error. */
static bool stats_options(struct request *q, struct reply *r, struct stats_print *o, regex_t *re)
{
        struct buf b = BUF_INIT;
        bool ok = true;

        o->used_only = flag(q, "usedonly");
        o->istio = q->s->opts.istio_role != NULL;
        if (param(q, "type", &b)) {
                if (str_eqc(buf_view(&b), "Counters"))
                        o->type = STATS_COUNTERS;
                else if (str_eqc(buf_view(&b), "Gauges"))
                        o->type = STATS_GAUGES;
                else if (str_eqc(buf_view(&b), "Histograms"))
                        o->type = STATS_HISTOGRAMS;
        }
        if (param(q, "filter", &b) && b.n) {
                ok = b.n < 512 && regcomp(re, buf_z(&b), REG_EXTENDED | REG_NOSUB) == 0;
                if (ok) {
                        o->match = regex_match;
                        o->arg = re;
                } else {
                        r->status = 400;
                        buf_cstr(&r->body, "Invalid regex: \"");
                        buf_str(&r->body, buf_view(&b));
                        buf_cstr(&r->body, "\"\n");
                }
        }
        buf_fini(&b);
        return ok;
}

static void stats_answer(struct request *q, struct reply *r, void (*print)(struct stats *, const struct stats_print *, struct buf *))
{
        struct stats_print o = { 0 };
        regex_t re;

        server_refresh_stats(q->s);
        if (!stats_options(q, r, &o, &re))
                return;
        print(q->s->stats, &o, &r->body);
        if (o.match)
                regfree(&re);
}

static void h_stats_prometheus(struct request *q, struct reply *r)
{
        r->type = prometheus;
        stats_answer(q, r, stats_print_prometheus);
}

static void h_stats(struct request *q, struct reply *r)
{
        if (param_is(q, "format", "prometheus")) {
                h_stats_prometheus(q, r);
        } else if (param_is(q, "format", "json")) {
                r->type = json;
                stats_answer(q, r, stats_print_json);
        } else {
                stats_answer(q, r, stats_print_text);
        }
}

static void h_reset_counters(struct request *q, struct reply *r)
{
        stats_reset_counters(q->s->stats);
        buf_cstr(&r->body, "OK\n");
}

/* One level for everything: this proxy's log has components, and no levels of their own. */
static void h_logging(struct request *q, struct reply *r)
{
        struct buf b = BUF_INIT;
        enum log_level l;

        if (param(q, "level", &b)) {
                if (!log_level_parse(buf_z(&b), &l)) {
                        r->status = 400;
                        buf_cstr(&r->body, "error: unknown logger level\n\nusage: /logging?level=<level>\nlevels: trace debug info warning "
                                           "error critical off\n");
                        buf_fini(&b);
                        return;
                }
                log_set_level(l);
        } else if (q->query.n) {
                r->status = 400;
                buf_cstr(&r->body,
                         "usage: /logging?level=<level> (change all levels)\nlevels: trace debug info warning error critical off\n");
                buf_fini(&b);
                return;
        }
        buf_printf(&r->body, "active loggers:\n  all: %s\n", log_level_name((enum log_level)log_level_now));
        buf_fini(&b);
}

static void h_memory(struct request *q, struct reply *r)
{
        struct mallinfo2 m = mallinfo2();
        FILE *f = fopen("/proc/self/statm", "r");
        unsigned long size = 0, resident = 0;

        if (f) {
                if (fscanf(f, "%lu %lu", &size, &resident) != 2)
                        resident = 0;
                fclose(f);
        }
        r->type = json;
        buf_printf(&r->body,
                   "{\n \"allocated\": \"%zu\",\n \"heap_size\": \"%zu\",\n \"pageheap_unmapped\": \"0\",\n \"pageheap_free\": \"%zu\",\n"
                   " \"total_thread_cache\": \"0\",\n \"total_physical_bytes\": \"%lu\"\n}\n",
                   m.uordblks + m.hblkhd, m.arena + m.hblkhd, m.fordblks, resident * 4096);
}

static void h_certs(struct request *q, struct reply *r)
{
        r->type = json;
        buf_cstr(&r->body, "{\n \"certificates\": []\n}\n");
}

static void h_drain_listeners(struct request *q, struct reply *r)
{
        bool graceful = flag(q, "graceful");

        listener_manager_drain(q->s->listeners, flag(q, "inboundonly"), !graceful);
        buf_cstr(&r->body, "OK\n");
}

static void h_health_fail(struct request *q, struct reply *r)
{
        q->s->health_failed = true;
        buf_cstr(&r->body, "OK\n");
}

static void h_health_ok(struct request *q, struct reply *r)
{
        q->s->health_failed = false;
        buf_cstr(&r->body, "OK\n");
}

static void stop_now(struct loop_task *t)
{
        server_shutdown(((struct admin *)t->arg)->server);
}

static void h_quit(struct request *q, struct reply *r)
{
        buf_cstr(&r->body, "OK\n");
        loop_defer(q->s->loop, &q->admin->stop);
}

static void h_reopen(struct request *q, struct reply *r)
{
        log_sinks_reopen(q->s->sinks);
        buf_cstr(&r->body, "OK\n");
}

static void h_init_dump(struct request *q, struct reply *r)
{
        struct buf *b = &r->body;
        bool first = true;

        r->type = json;
        buf_cstr(b, "{\n \"unready_targets_dumps\": [");
        for (size_t i = 0; i < listener_manager_count(q->s->listeners); i++) {
                struct listener_main *l = listener_manager_at(q->s->listeners, i);

                if (!l->warming)
                        continue;
                buf_cstr(b, first ? "{\"name\": " : ", {\"name\": ");
                buf_json(b, l->name);
                buf_cstr(b, "}");
                first = false;
        }
        buf_cstr(b, "]\n}\n");
}

static void h_help(struct request *q, struct reply *r);
static void h_home(struct request *q, struct reply *r);

static const struct path {
        const char *path;
        bool post;
        void (*fn)(struct request *q, struct reply *r);
        const char *help;
} paths[] = {
        { "/", false, h_home, "Admin home page" },
        { "/certs", false, h_certs, "print certs on machine" },
        { "/clusters", false, h_clusters, "upstream cluster status" },
        { "/config_dump", false, h_config_dump, "dump current configs (resource, mask, name_regex, include_eds)" },
        { "/drain_listeners", true, h_drain_listeners, "drain listeners (graceful, inboundonly)" },
        { "/healthcheck/fail", true, h_health_fail, "cause the server to fail health checks" },
        { "/healthcheck/ok", true, h_health_ok, "cause the server to pass health checks" },
        { "/help", false, h_help, "print out list of admin commands" },
        { "/init_dump", false, h_init_dump, "dump what is not initialized yet" },
        { "/listeners", false, h_listeners, "print listener info" },
        { "/logging", true, h_logging, "query/change logging levels" },
        { "/memory", false, h_memory, "print current allocation/heap usage" },
        { "/quitquitquit", true, h_quit, "exit the server" },
        { "/ready", false, h_ready, "print server state, return 200 if LIVE, otherwise return 503" },
        { "/reopen_logs", true, h_reopen, "reopen access logs" },
        { "/reset_counters", true, h_reset_counters, "reset all counters to zero" },
        { "/server_info", false, h_server_info, "print server version/status information" },
        { "/stats", false, h_stats, "print server stats (usedonly, filter, type, format)" },
        { "/stats/prometheus", false, h_stats_prometheus, "print server stats in prometheus format" },
};

static void h_help(struct request *q, struct reply *r)
{
        buf_cstr(&r->body, "admin commands are:\n");
        for (unsigned i = 0; i < ARRAY_LEN(paths); i++)
                buf_printf(&r->body, "  %s%s: %s\n", paths[i].path, paths[i].post ? " (POST)" : "", paths[i].help);
}

static void h_home(struct request *q, struct reply *r)
{
        r->type = "text/html; charset=UTF-8";
        buf_cstr(&r->body, "<!DOCTYPE html><title>Postern Admin</title><h1>Postern Admin</h1><ul>");
        for (unsigned i = 0; i < ARRAY_LEN(paths); i++)
                if (!paths[i].post)
                        buf_printf(&r->body, "<li><a href=\"%s\">%s</a> %s", paths[i].path, paths[i].path, paths[i].help);
        buf_cstr(&r->body, "</ul>\n");
}

/* ---- serving ---- */

static void answer(struct admin *a, struct http_stream *st, const struct http_head *m, const struct path *only, unsigned nonly)
{
        struct request q = { .admin = a, .s = a->server, .path = m->path };
        struct reply r = { 200, text, BUF_INIT };
        ptrdiff_t mark = str_chr(m->path, '?');
        const struct path *p = NULL;

        if (mark >= 0) {
                q.path = str_sub(m->path, 0, (size_t)mark);
                q.query = str_sub(m->path, (size_t)mark + 1, m->path.n);
        }
        for (unsigned i = 0; i < nonly; i++)
                if (str_eqc(q.path, only[i].path))
                        p = &only[i];
        if (!p) {
                r.status = 404;
                buf_cstr(&r.body, "invalid path. ");
                if (only == paths)
                        h_help(&q, &r);
        } else if (p->post && !str_eqc(m->method, "POST")) {
                r.status = 405;
                buf_printf(&r.body, "Method %.*s not allowed, POST required.", STR_ARG(m->method));
        } else {
                p->fn(&q, &r);
        }
        http_answer(st, r.status, r.type, buf_view(&r.body));
        buf_fini(&r.body);
}

static void on_admin(struct http_stream *st, void *arg, struct http_head *m, struct str body)
{
        answer(arg, st, m, paths, ARRAY_LEN(paths));
}

static const struct path health_paths[] = { { "/healthz/ready", false, h_ready, "" } };
static const struct path stats_paths[] = { { "/stats/prometheus", false, h_stats_prometheus, "" } };

static void on_health(struct http_stream *st, void *arg, struct http_head *m, struct str body)
{
        answer(arg, st, m, health_paths, ARRAY_LEN(health_paths));
}

static void on_stats(struct http_stream *st, void *arg, struct http_head *m, struct str body)
{
        answer(arg, st, m, stats_paths, ARRAY_LEN(stats_paths));
}

static struct http_service *serve(struct admin *a, const struct addr *ad, http_body_fn *fn, const struct diag_at *at, struct diags *d)
{
        struct http_service_opts o = { .listen = ad };
        int err = 0;
        struct http_service *s = http_service_new(a->server->loop, &o, fn, a, &err);
        char t[ADDR_TEXT_MAX];

        if (!s)
                diag_add(d, DIAG_ERROR, NULL, at, "cannot listen on %.*s: %s", (int)addr_text(ad, t), t, strerror(-err));
        else
                LOG(LOG_INFO, "admin", "listening on %.*s", (int)addr_text(http_service_addr(s), t), t);
        return s;
}

static struct http_service *istio_port(struct admin *a, uint16_t port, http_body_fn *fn, struct diags *d)
{
        struct addr ad;
        struct diag_at at = { 0 };

        addr_parse_ip(&ad, STR("0.0.0.0"), port);
        return serve(a, &ad, fn, &at, d);
}

struct admin *admin_new(struct server *s, struct diags *d)
{
        struct admin *a = MEM_NEW(struct admin);
        const Xds__Admin *p = s->bootstrap->admin;
        struct diag_at at = { .path = STR("admin.address") };
        size_t errors = d->errors;
        struct addr ad;

        a->server = s;
        a->stop.fn = stop_now;
        a->stop.arg = a;
        if (p && p->address && address_read(p->address, &ad, &at, d))
                a->main = serve(a, &ad, on_admin, &at, d);
        if (s->opts.istio_role) {
                a->health = istio_port(a, ISTIO_HEALTH_PORT, on_health, d);
                a->stats = istio_port(a, ISTIO_STATS_PORT, on_stats, d);
        }
        if (d->errors != errors) {
                admin_free(a);
                return NULL;
        }
        return a;
}

void admin_free(struct admin *a)
{
        if (!a)
                return;
        loop_undefer(a->server->loop, &a->stop);
        http_service_free(a->main);
        http_service_free(a->health);
        http_service_free(a->stats);
        free(a);
}
