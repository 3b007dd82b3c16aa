/* What the controller tells of itself: readiness, Prometheus metrics with istiod's names, and what each proxy was sent. */
#include "base/clock.h"
#include "base/mem.h"
#include "cmd/controller.h"
#include "pb/pb.h"

#include <inttypes.h>
#include <stdio.h>

const double controller_bounds[8] = { 0.01, 0.05, 0.1, 0.2, 0.5, 1, 3, 10 };

static const char *const istio_kind[XDS_TYPES] = { "cds", "eds", "lds", "rds", "sds" };

static void metric(struct buf *b, const char *name, const char *type, const char *help)
{
        buf_printf(b, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static void simple(struct buf *b, const char *name, const char *type, const char *help, uint64_t v)
{
        metric(b, name, type, help);
        buf_printf(b, "%s %" PRIu64 "\n", name, v);
}

static void per_type(struct buf *b, const char *name, const char *help, const uint64_t *v)
{
        metric(b, name, "counter", help);
        for (int t = 0; t < XDS_TYPES; t++)
                if (t != XDS_SDS)
                        buf_printf(b, "%s{type=\"%s\"} %" PRIu64 "\n", name, istio_kind[t], v[t]);
}

static void metrics(struct controller *c, struct buf *b)
{
        struct mesh_snapshot *s = mesh_snapshot(c->mesh);
        struct translator_stats ts;
        uint64_t proxies = 0;

        for (struct proxy *p = c->proxies; p; p = p->next)
                proxies++;
        metric(b, "istio_build", "gauge", "The version that runs.");
        buf_printf(b, "istio_build{component=\"pilot\",tag=\"postern-%s\"} 1\n", POSTERN_VERSION);
        simple(b, "pilot_xds", "gauge", "Proxies that are connected.", proxies);
        per_type(b, "pilot_xds_pushes", "Configurations sent, by type.", c->pushes);
        per_type(b, "pilot_total_xds_rejects", "Updates that proxies refused.", c->nacks);
        simple(b, "pilot_inbound_updates", "counter", "Changes of the model.", c->changes);
        simple(b, "pilot_push_triggers", "counter", "Rounds of pushing.", c->rounds);
        simple(b, "postern_objects_refused", "counter", "Objects that could not be used, at the time they came.", c->refused);
        simple(b, "pilot_services", "gauge", "Hosts in the registry.", s->nservices);
        simple(b, "pilot_virt_services", "gauge", "VirtualServices.", s->nvs);
        metric(b, "pilot_proxy_convergence_time", "histogram", "Seconds from a change until a proxy has acknowledged it.");
        for (size_t i = 0; i < ARRAY_LEN(controller_bounds); i++)
                buf_printf(b, "pilot_proxy_convergence_time_bucket{le=\"%g\"} %" PRIu64 "\n", controller_bounds[i], c->converge_le[i]);
        buf_printf(b, "pilot_proxy_convergence_time_bucket{le=\"+Inf\"} %" PRIu64 "\n", c->converged);
        buf_printf(b, "pilot_proxy_convergence_time_sum %.6f\npilot_proxy_convergence_time_count %" PRIu64 "\n",
                   (double)c->converge_us_sum / 1e6, c->converged);
        metric(b, "postern_build_seconds", "gauge", "How long the last round's configurations took to make.");
        buf_printf(b, "postern_build_seconds %.6f\n", (double)c->build_us_last / 1e6);
        metric(b, "postern_build_seconds_max", "gauge", "The longest that a round's configurations took to make.");
        buf_printf(b, "postern_build_seconds_max %.6f\n", (double)c->build_us_max / 1e6);
        translator_get_stats(c->translator, &ts);
        simple(b, "postern_parts_made", "counter", "Parts of configurations that were made.", ts.parts_made);
        simple(b, "postern_parts_reused", "counter", "Parts of configurations that were used again.", ts.parts_reused);
        mesh_snapshot_unref(s);
}

/* As istiod's /debug/syncz: a list of proxies with the nonces sent and acknowledged. */
static void syncz(struct controller *c, struct buf *b)
{
        static const char *const name[XDS_TYPES] = { "cluster", "endpoint", "listener", "route", "secret" };
        bool first = true;

        buf_char(b, '[');
        for (struct proxy *p = c->proxies; p; p = p->next) {
                buf_cstr(b, first ? "\n  {\"cluster_id\":" : ",\n  {\"cluster_id\":");
                first = false;
                buf_json(b, p->who.cluster_id);
                buf_cstr(b, ",\"proxy\":");
                buf_json(b, p->who.id);
                buf_printf(b, ",\"proxy_type\":\"%s\",\"node\":", p->who.role == TRANSLATE_ROUTER ? "router" : "sidecar");
                buf_json(b, xds_peer_id(p->peer));
                buf_printf(b, ",\"delta\":%s", xds_peer_delta(p->peer) ? "true" : "false");
                for (int t = 0; t < XDS_TYPES; t++) {
                        struct xds_peer_type st;

                        xds_peer_status(p->peer, t, &st);
                        if (!st.subscribed)
                                continue;
                        buf_printf(b, ",\"%s_sent\":", name[t]);
                        buf_json(b, st.nonce_sent);
                        buf_printf(b, ",\"%s_acked\":", name[t]);
                        buf_json(b, st.nonce_acked);
                        if (st.error.n) {
                                buf_printf(b, ",\"%s_error\":", name[t]);
                                buf_json(b, st.error);
                        }
                }
                buf_printf(b, ",\"synced\":%s}", p->synced_ms ? "true" : "false");
        }
        buf_cstr(b, first ? "]\n" : "\n]\n");
}

static void dump_item(enum xds_type t, const struct xds_item *i, struct buf *b)
{
        struct arena a;
        struct diags d;

        arena_init(&a, 0);
        diags_init(&d);
        ProtobufCMessage *m = pb_unpack_any(str_of(xds_type_url(t)), i->bytes, &a, NULL, &d);
        buf_cstr(b, "{\"name\":");
        buf_json(b, i->name);
        buf_printf(b, ",\"version\":\"%016" PRIx64 "\",\"resource\":", i->hash);
        if (m)
                pb_to_json(m, 0, b);
        else
                buf_cstr(b, "null");
        buf_char(b, '}');
        diags_fini(&d);
        arena_fini(&a);
}

static void dump(const struct proxy *p, struct buf *b)
{
        static const char *const name[XDS_TYPES] = { "clusters", "endpoints", "listeners", "routes", "secrets" };

        buf_cstr(b, "{\"proxy\":");
        buf_json(b, p->who.id);
        for (int t = 0; t < TRANSLATE_TYPES; t++) {
                buf_printf(b, ",\n\"%s\":[", name[t]);
                for (size_t i = 0; p->config && i < p->config->of[t].n; i++) {
                        buf_cstr(b, i ? ",\n" : "\n");
                        dump_item(t, &p->config->of[t].v[i], b);
                }
                buf_char(b, ']');
        }
        buf_cstr(b, "}\n");
}

/* The value of a query parameter, as it stands; {NULL,0}: absent. */
static struct str parameter(struct str query, const char *name)
{
        struct str part;

        while (query.p && str_next(&query, '&', &part)) {
                ptrdiff_t eq = str_chr(part, '=');

                if (eq > 0 && str_eqc(str_sub(part, 0, (size_t)eq), name))
                        return str_sub(part, (size_t)eq + 1, part.n);
        }
        return (struct str){ NULL, 0 };
}

static const struct proxy *find_proxy(struct controller *c, struct str id)
{
        for (struct proxy *p = c->proxies; p; p = p->next)
                if (str_eq(p->who.id, id) || str_eq(xds_peer_id(p->peer), id))
                        return p;
        return NULL;
}

static void on_request(struct http_stream *s, void *arg, struct http_head *m, struct str body)
{
        struct controller *c = arg;
        ptrdiff_t q = str_chr(m->path, '?');
        struct str path = q >= 0 ? str_sub(m->path, 0, (size_t)q) : m->path;
        struct str query = q >= 0 ? str_sub(m->path, (size_t)q + 1, m->path.n) : (struct str){ NULL, 0 };
        const char *type = "application/json";
        struct buf b = BUF_INIT;
        int status = 200;

        if (!str_eqc(m->method, "GET") && !str_eqc(m->method, "HEAD")) {
                status = 405;
                type = "text/plain";
                buf_cstr(&b, "only GET is answered here\n");
        } else if (str_eqc(path, "/ready")) {
                status = c->synced ? 200 : 503;
                type = "text/plain";
                for (unsigned i = 0; i < c->nsources; i++)
                        if (!kube_informer_synced(c->sources[i].informer))
                                buf_printf(&b, "not listed yet: %s\n", c->sources[i].path);
                if (c->synced)
                        buf_cstr(&b, "ready\n");
        } else if (str_eqc(path, "/metrics")) {
                type = "text/plain; version=0.0.4";
                metrics(c, &b);
        } else if (str_eqc(path, "/version")) {
                buf_printf(&b, "{\"version\":\"%s\",\"name\":\"postern\"}\n", POSTERN_VERSION);
        } else if (str_eqc(path, "/debug/syncz")) {
                syncz(c, &b);
        } else if (str_eqc(path, "/debug/config_dump")) {
                const struct proxy *p = find_proxy(c, parameter(query, "proxyID"));

                if (p) {
                        dump(p, &b);
                } else {
                        status = 404;
                        type = "text/plain";
                        buf_cstr(&b, "no such proxy; give ?proxyID=POD.NAMESPACE of one in /debug/syncz\n");
                }
        } else {
                status = 404;
                type = "text/plain";
                buf_cstr(&b, "there is /ready, /metrics, /version, /debug/syncz and /debug/config_dump?proxyID=POD.NAMESPACE\n");
        }
        http_answer(s, status, type, buf_view(&b));
        buf_fini(&b);
}

bool controller_monitor_start(struct controller *c, const struct addr *listen, int *err)
{
        struct http_service_opts o = { .listen = listen };

        c->monitor = http_service_new(c->loop, &o, on_request, c, err);
        return c->monitor != NULL;
}
