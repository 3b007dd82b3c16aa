/* `postern controller`: watches Kubernetes, keeps the model, and tells every connected proxy what follows from it.
 *
 * Changes are gathered: a push starts when nothing has changed for 10 ms, and 100 ms after the first change at the latest, so one `kubectl
 * apply` of a file full of objects is one push, and a steady stream of changes does not put it off. Until everything that is watched has
 * been listed once, nobody is told anything: half a model would take away what a proxy has from before a restart. */
#include "cmd/controller.h"

#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "cmd/cmd.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>

enum { QUIET_MS = 10, LATEST_MS = 100, WARNED_MAX = 10000, MESH_CONFIG_MAX_BYTES = 1 << 20 };

static const struct {
        const char *path, *query, *kind;
} watched[] = {
        { "/api/v1/namespaces/istio-system/configmaps", "fieldSelector=metadata.name%3Distio", "ConfigMap" },
        { "/api/v1/namespaces", "", "Namespace" },
        { "/api/v1/pods", "", "Pod" },
        { "/api/v1/services", "", "Service" },
        { "/api/v1/endpoints", "", "Endpoints" },
        { "/apis/discovery.k8s.io/v1/endpointslices", "", "EndpointSlice" },
        { "/apis/networking.istio.io/v1/serviceentries", "", "ServiceEntry" },
        { "/apis/networking.istio.io/v1/gateways", "", "Gateway" },
        { "/apis/networking.istio.io/v1/virtualservices", "", "VirtualService" },
        { "/apis/networking.istio.io/v1/destinationrules", "", "DestinationRule" },
        { "/apis/networking.istio.io/v1/sidecars", "", "Sidecar" },
        { "/apis/networking.istio.io/v1/workloadentries", "", "WorkloadEntry" },
};

/* ---- what translate makes, as the server takes it ---- */

struct wrapped {
        struct xds_config base;
        struct translate_config *config;
        struct arena arena; /* what was changed for a stock Envoy */
};

static void wrapped_free(struct xds_config *c)
{
        struct wrapped *w = CONTAINER_OF(c, struct wrapped, base);

        for (int t = 0; t < TRANSLATE_TYPES; t++)
                free((void *)c->of[t].v);
        translate_config_unref(w->config);
        arena_fini(&w->arena);
        free(w);
}

/* The same order of types on both sides. */
_Static_assert((int)TRANSLATE_CLUSTERS == (int)XDS_CDS && (int)TRANSLATE_ENDPOINTS == (int)XDS_EDS &&
                       (int)TRANSLATE_LISTENERS == (int)XDS_LDS && (int)TRANSLATE_ROUTES == (int)XDS_RDS,
               "types in another order");

/* Takes the reference to `cfg`. */
static struct xds_config *wrap(struct translate_config *cfg, bool stock)
{
        struct wrapped *w = MEM_NEW(struct wrapped);

        w->config = cfg;
        arena_init(&w->arena, 65536);
        w->base.refs = 1;
        w->base.free_fn = wrapped_free;
        for (int t = 0; t < TRANSLATE_TYPES; t++) {
                struct xds_item *v = mem_calloc(cfg->of[t].n, sizeof(*v));

                for (size_t i = 0; i < cfg->of[t].n; i++) {
                        v[i] = (struct xds_item){ cfg->of[t].v[i]->name, cfg->of[t].v[i]->bytes, cfg->of[t].v[i]->hash };
                        if (stock)
                                controller_strip(t, &v[i], &w->arena);
                }
                w->base.of[t].v = v;
                w->base.of[t].n = cfg->of[t].n;
                w->base.of[t].hash = cfg->of[t].hash;
        }
        return &w->base;
}

static bool same(const struct xds_config *a, const struct translate_config *b)
{
        for (int t = 0; t < TRANSLATE_TYPES; t++)
                if (!a || a->of[t].hash != b->of[t].hash || a->of[t].n != b->of[t].n)
                        return false;
        return true;
}

/* ---- warnings, once each ---- */

static void say_once(struct controller *c, const struct diags *d)
{
        for (size_t i = 0; i < d->n; i++) {
                struct buf b = BUF_INIT;

                diag_format(&d->v[i], &b);
                if (c->warned.live < WARNED_MAX && !strmap_set(&c->warned, buf_view(&b), c))
                        LOG(d->v[i].severity == DIAG_INFO ? LOG_INFO : LOG_WARN, "controller", "%s", buf_z(&b));
                buf_fini(&b);
        }
}

/* ---- pushing ---- */

/* A stock Envoy need not say its labels: its pod has them. */
static void fill_in(const struct mesh_snapshot *s, const struct translate_proxy *who, struct translate_proxy *out)
{
        const struct mesh_pod *pod = mesh_pod_by_ip(s, who->ip);

        *out = *who;
        if (!pod)
                return;
        if (!out->labels.n)
                out->labels = pod->labels;
        if (!out->service_account.n)
                out->service_account = pod->service_account;
}

static void push_one(struct controller *c, struct mesh_snapshot *s, struct proxy *p, struct diags *d)
{
        struct translate_proxy who;

        fill_in(s, &p->who, &who);
        struct translate_config *cfg = translate_build(c->translator, s, &who, d);
        if (same(p->config, cfg)) {
                translate_config_unref(cfg);
                return;
        }
        struct xds_config *now = wrap(cfg, p->stock);
        for (int t = 0; t < TRANSLATE_TYPES; t++)
                c->pushes[t] += !p->config || p->config->of[t].hash != now->of[t].hash;
        xds_config_unref(p->config);
        p->config = now;
        p->pushed_ms = c->change_ms ? c->change_ms : loop_now_ms(c->loop);
        p->synced_ms = 0;
        xds_peer_push(p->peer, now);
}

static void push_all(struct controller *c)
{
        struct mesh_snapshot *s = mesh_snapshot(c->mesh);
        uint64_t began = clock_mono_us();
        struct diags d;

        diags_init(&d);
        for (struct proxy *p = c->proxies; p; p = p->next)
                push_one(c, s, p, &d);
        translator_sweep(c->translator);
        say_once(c, &d);
        diags_fini(&d);
        mesh_snapshot_unref(s);
        c->build_us_last = clock_mono_us() - began;
        if (c->build_us_last > c->build_us_max)
                c->build_us_max = c->build_us_last;
        c->rounds++;
        c->change_ms = 0;
}

static void on_push(struct loop_timer *t)
{
        push_all(t->arg);
}

static void schedule(struct controller *c)
{
        uint64_t now = clock_mono_ms();

        c->changes++;
        if (!c->synced)
                return;
        if (!c->change_ms)
                c->change_ms = now;
        uint64_t left = c->change_ms + LATEST_MS > now ? c->change_ms + LATEST_MS - now : 0;
        loop_timer_arm(c->loop, &c->push, left < QUIET_MS ? left : QUIET_MS);
}

/* ---- proxies ---- */

static bool on_peer(void *arg, struct xds_peer *peer, const Xds__Node *node, struct buf *why)
{
        struct controller *c = arg;
        struct proxy *p = MEM_NEW(struct proxy);
        struct diags d;

        arena_init(&p->arena, 1024);
        diags_init(&d);
        bool ok = translate_proxy_parse(node, &p->arena, &p->who, &d);
        if (!ok) {
                diags_format(&d, why);
                arena_fini(&p->arena);
                free(p);
        }
        diags_fini(&d);
        if (!ok)
                return false;
        p->ctl = c;
        p->peer = peer;
        p->stock = controller_is_stock(node);
        p->next = c->proxies;
        p->pprev = &c->proxies;
        if (p->next)
                p->next->pprev = &p->next;
        c->proxies = p;
        xds_peer_set_data(peer, p);
        if (c->synced) {
                struct mesh_snapshot *s = mesh_snapshot(c->mesh);

                diags_init(&d);
                push_one(c, s, p, &d);
                say_once(c, &d);
                diags_fini(&d);
                mesh_snapshot_unref(s);
        }
        return true;
}

static void on_gone(void *arg, struct xds_peer *peer)
{
        struct proxy *p = xds_peer_data(peer);

        *p->pprev = p->next;
        if (p->next)
                p->next->pprev = p->pprev;
        xds_config_unref(p->config);
        arena_fini(&p->arena);
        free(p);
}

static void on_nack(void *arg, struct xds_peer *peer, enum xds_type t, struct str error)
{
        ((struct controller *)arg)->nacks[t]++;
}

static void on_synced(void *arg, struct xds_peer *peer)
{
        struct controller *c = arg;
        struct proxy *p = xds_peer_data(peer);

        p->synced_ms = clock_mono_ms();
        uint64_t took = p->synced_ms - p->pushed_ms;
        c->converged++;
        c->converge_us_sum += took * 1000;
        for (size_t i = 0; i < ARRAY_LEN(c->converge_le); i++)
                c->converge_le[i] += (double)took / 1000 <= controller_bounds[i];
        LOG(LOG_DEBUG, "controller", STR_FMT ": up to date %llu ms after the change", STR_ARG(xds_peer_id(peer)), (unsigned long long)took);
}

static const struct xds_server_ops server_ops = { on_peer, on_gone, on_nack, on_synced };

/* ---- sources ---- */

static void on_set(void *arg, struct kube_object *now, struct kube_object *before)
{
        struct source *s = arg;
        struct controller *c = s->ctl;
        struct diags d;

        diags_init(&d);
        switch (mesh_set(c->mesh, now->node, &d)) {
        case MESH_CHANGED:
                schedule(c);
                break;
        case MESH_REFUSED:
                c->refused++;
                break;
        case MESH_IGNORED:
        case MESH_UNCHANGED:
                break;
        }
        say_once(c, &d);
        diags_fini(&d);
}

static void on_delete(void *arg, struct kube_object *last)
{
        struct source *s = arg;

        if (mesh_delete(s->ctl->mesh, str_of(s->kind), last->namespace_, last->name) == MESH_CHANGED)
                schedule(s->ctl);
}

static void on_listed(void *arg)
{
        struct controller *c = ((struct source *)arg)->ctl;

        if (c->synced)
                return;
        for (unsigned i = 0; i < c->nsources; i++)
                if (!kube_informer_synced(c->sources[i].informer))
                        return;
        c->synced = true;
        LOG(LOG_INFO, "controller", "everything is listed; telling proxies");
        push_all(c);
}

/* Once when it begins; the informer itself says at level debug how it goes on. */
static void on_trouble(void *arg, const char *why)
{
        struct source *s = arg;

        if (s->troubled)
                return;
        s->troubled = true;
        LOG(LOG_WARN, "controller", "%s: %s; trying again", s->path, why);
}

static void watch_all(struct controller *c, bool with_mesh_config)
{
        static const struct kube_informer_ops ops = { on_set, on_delete, on_listed, on_trouble };

        for (size_t i = with_mesh_config ? 0 : 1; i < ARRAY_LEN(watched); i++)
                c->sources[c->nsources++] = (struct source){ .ctl = c, .path = watched[i].path, .kind = watched[i].kind };
        for (unsigned k = 0, i = with_mesh_config ? 0 : 1; k < c->nsources; k++, i++)
                c->sources[k].informer = kube_informer_new(c->client, str_of(watched[i].path), str_of(watched[i].query), &ops,
                                                           &c->sources[k]);
}

/* ---- starting ---- */

static int report(const struct diags *d)
{
        struct buf b = BUF_INIT;

        diags_format(d, &b);
        cmd_error("%s", buf_z(&b));
        buf_fini(&b);
        return CMD_FAILED;
}

/* The file takes the place of the ConfigMap istio-system/istio. */
static bool use_mesh_config(struct controller *c, const char *path, struct diags *d)
{
        struct buf text = BUF_INIT;
        struct diag_at at = { .file = str_of(path) };
        struct arena a;

        int r = buf_read_file(&text, path, MESH_CONFIG_MAX_BYTES);
        if (r < 0) {
                diag_add(d, DIAG_ERROR, NULL, &at, "cannot be read: %s", strerror(-r));
                return false;
        }
        arena_init(&a, 0);
        struct pb_node *o = pb_new(&a, PB_MAP, STR("")), *meta = pb_new(&a, PB_MAP, STR("")), *data = pb_new(&a, PB_MAP, STR(""));
        pb_put_str(&a, o, "apiVersion", STR("v1"));
        pb_put_str(&a, o, "kind", STR("ConfigMap"));
        pb_put_str(&a, meta, "name", STR("istio"));
        pb_put_str(&a, meta, "namespace", STR("istio-system"));
        pb_put(&a, o, STR("metadata"), meta);
        pb_put_str(&a, data, "mesh", buf_view(&text));
        pb_put(&a, o, STR("data"), data);
        bool ok = mesh_set(c->mesh, o, d) != MESH_REFUSED;
        arena_fini(&a);
        buf_fini(&text);
        return ok;
}

static bool connect_to_kubernetes(struct controller *c, const struct cmd_args *a, struct diags *d)
{
        struct kube_client_config cfg;
        struct arena arena;

        arena_init(&arena, 4096);
        if (kube_client_config_load(str_of(cmd_value(a, "kubeconfig", "")), str_of(cmd_value(a, "context", "")), &arena, &cfg, d))
                c->client = kube_client_new(c->loop, &cfg, d);
        arena_fini(&arena);
        return c->client != NULL;
}

static bool parse_listen(const struct cmd_args *a, const char *option, const char *otherwise, struct addr *out)
{
        const char *text = cmd_value(a, option, otherwise);

        if (addr_parse(out, str_of(text)))
                return true;
        cmd_error("--%s: \"%s\" is not an address; give IP:PORT, [IPv6]:PORT or unix:/PATH", option, text);
        return false;
}

static int serve(struct controller *c, const struct cmd_args *a, struct diags *d)
{
        struct addr ads, monitoring;
        const char *file = cmd_value(a, "mesh-config", NULL);
        int err = 0;

        if (!parse_listen(a, "ads-listen", "0.0.0.0:15010", &ads) || !parse_listen(a, "monitoring", "0.0.0.0:15014", &monitoring))
                return CMD_USAGE;
        if ((file && !use_mesh_config(c, file, d)) || !connect_to_kubernetes(c, a, d))
                return report(d);
        struct xds_server_opts o = { .listen = &ads, .identifier = STR("postern/" POSTERN_VERSION) };
        c->server = xds_server_new(c->loop, &o, &server_ops, c, &err);
        if (!c->server)
                return cmd_error("cannot listen on %s: %s", cmd_value(a, "ads-listen", "0.0.0.0:15010"), strerror(-err));
        if (!controller_monitor_start(c, &monitoring, &err))
                return cmd_error("cannot listen on %s: %s", cmd_value(a, "monitoring", "0.0.0.0:15014"), strerror(-err));
        watch_all(c, file == NULL);
        loop_run(c->loop);
        LOG(LOG_INFO, "controller", "stopping");
        return CMD_OK;
}

static void on_signal(void *arg, int signo)
{
        loop_stop(arg);
}

static void controller_fini(struct controller *c)
{
        loop_timer_stop(c->loop, &c->push);
        http_service_free(c->monitor);
        while (c->proxies)
                on_gone(c, c->proxies->peer);
        xds_server_free(c->server);
        for (unsigned i = 0; i < c->nsources; i++)
                kube_informer_free(c->sources[i].informer);
        kube_client_free(c->client);
        for (int i = 0; i < 4; i++) /* connections end */
                loop_turn(c->loop, 0);
        translator_free(c->translator);
        mesh_free(c->mesh);
        strmap_fini(&c->warned);
        loop_free(c->loop);
}

static int run(struct cmd_args *a)
{
        static const int signals[] = { SIGTERM, SIGINT };
        struct controller c = { .loop = loop_new() };
        enum log_level level = LOG_INFO;
        const char *name = cmd_value(a, "log-level", "info");
        struct diags d;

        if (!log_level_parse(name, &level)) {
                loop_free(c.loop);
                cmd_error("--log-level: \"%s\" is none of trace, debug, info, warning, error, critical, off", name);
                return CMD_USAGE;
        }
        log_set_level(level);
        signal(SIGPIPE, SIG_IGN);
        struct loop_signal *s = loop_signal_new(c.loop, signals, ARRAY_LEN(signals), on_signal, c.loop);
        c.mesh = mesh_new();
        c.translator = translator_new();
        c.push = (struct loop_timer){ .fn = on_push, .arg = &c };
        diags_init(&d);
        int r = serve(&c, a, &d);
        say_once(&c, &d);
        diags_fini(&d);
        loop_signal_free(s);
        controller_fini(&c);
        return r;
}

static const struct cmd_opt opts[] = {
        { "kubeconfig", 0, "FILE",
          "the API server to watch and how to reach it; default: the pod's service account, else $KUBECONFIG, else ~/.kube/config", false },
        { "context", 0, "NAME", "the kubeconfig's context to use instead of its current one", false },
        { "ads-listen", 0, "ADDRESS", "where proxies connect, in clear text (default 0.0.0.0:15010)", false },
        { "monitoring", 0, "ADDRESS", "where /ready, /metrics, /version and /debug are served (default 0.0.0.0:15014)", false },
        { "mesh-config", 0, "FILE", "a mesh configuration (YAML) to use instead of the ConfigMap istio-system/istio", false },
        { "log-level", 'l', "LEVEL", "trace, debug, info (default), warning, error, critical or off", false },
        { 0 },
};

static const char *const examples[] = {
        "postern controller --kubeconfig ~/.kube/config --ads-listen 127.0.0.1:15010 --monitoring 127.0.0.1:15014",
        "run it outside of the cluster",
        "curl -s 127.0.0.1:15014/debug/syncz",
        "what each proxy has been sent and has acknowledged",
        "curl -s '127.0.0.1:15014/debug/config_dump?proxyID=curl.curl'",
        "the configuration that was last sent to a proxy",
        NULL,
};

const struct cmd cmd_controller = {
        .name = "controller",
        .summary = "watch Kubernetes and tell the proxies (runs in the istiod pod)",
        .operands = "",
        .description = "Watches Services, Pods, Endpoints and Istio's networking resources, and serves each connected proxy (ours, or an "
                       "Envoy) its clusters, endpoints, "
                       "listeners and routes over ADS, state of the world or delta.\n\n"
                       "Changes reach the proxies within 200 ms, in an order in which nothing ever refers to what is not there yet. "
                       "Objects that cannot be used, and "
                       "updates that a proxy refuses, are logged with their reason; what was there before stays.",
        .opts = opts,
        .examples = examples,
        .run = run,
        .hidden = true,
};
