/* postern proxy: the data plane, from an Envoy bootstrap file; or, as `postern proxy sidecar` and `postern proxy router`, from the
 * environment of a pod in an Istio mesh. */
#include "base/log.h"
#include "cmd/cmd.h"
#include "cmd/istio_bootstrap.h"
#include "proxy/server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

extern char **environ;

static const struct cmd_opt opts[] = {
        { "config-path", 'c', "FILE", "bootstrap file, YAML or JSON", false },
        { "config-yaml", 0, "TEXT", "bootstrap text, merged over the file", false },
        { "mode", 0, "MODE", "serve (default), or validate: check the configuration and exit", false },
        { "concurrency", 0, "N", "worker threads (default: one for each CPU)", false },
        { "service-node", 0, "ID", "the node's id for the control plane", false },
        { "service-cluster", 0, "NAME", "the node's cluster for the control plane", false },
        { "service-zone", 0, "ZONE", "the node's zone", false },
        { "log-level", 'l', "LEVEL", "trace, debug, info (default), warning, error, critical or off", false },
        { "drain-time-s", 0, "SECONDS", "how long connections of a replaced listener may go on (default 600)", false },
        { "parent-shutdown-time-s", 0, "SECONDS", "shown by /server_info (default 900)", false },
        { "drain-strategy", 0, "STRATEGY", "gradual (default) or immediate", false },
        { "xds-state", 0, "FILE", "where the last good configuration from the control plane is kept", false },
        { "domain", 0, "NAME", "sidecar, router: DNS domain of the node (default NAMESPACE.svc.cluster.local)", false },
        { "proxyLogLevel", 0, "LEVEL", "sidecar, router: as --log-level (default warning)", false },
        { "serviceCluster", 0, "NAME", "sidecar, router: as --service-cluster", false },
        { 0 },
};

static const char *const examples[] = {
        "postern proxy -c envoy.yaml",
        "run an Envoy configuration",
        "postern proxy -c envoy.yaml --mode validate",
        "check it, and say what is wrong where",
        NULL,
};

static const char *env_get(void *arg, const char *name)
{
        return getenv(name);
}

static const char *env_at(void *arg, unsigned i)
{
        return environ[i]; /* NULL behind the last */
}

static bool set_level(const char *name)
{
        enum log_level l;

        if (!log_level_parse(name, &l)) {
                cmd_error("\"%s\" is not a log level; use trace, debug, info, warning, error, critical or off", name);
                return false;
        }
        log_set_level(l);
        return true;
}

static bool read_common(struct cmd_args *a, struct server_opts *o)
{
        const char *mode = cmd_value(a, "mode", "serve"), *strategy = cmd_value(a, "drain-strategy", "gradual");
        long n = 0, drain = 600, parent = 900;

        if (strcmp(mode, "validate") == 0) {
                o->mode = SERVER_VALIDATE;
        } else if (strcmp(mode, "serve") != 0) {
                cmd_error("--mode is serve or validate, not \"%s\"", mode);
                return false;
        }
        if (strcmp(strategy, "gradual") != 0 && strcmp(strategy, "immediate") != 0) {
                cmd_error("--drain-strategy is gradual or immediate, not \"%s\"", strategy);
                return false;
        }
        o->drain_immediately = strcmp(strategy, "immediate") == 0;
        if (!cmd_number(a, "concurrency", 0, 256, &n) || !cmd_number(a, "drain-time-s", 0, 86400, &drain) ||
            !cmd_number(a, "parent-shutdown-time-s", 0, 86400, &parent))
                return false;
        o->concurrency = (unsigned)n;
        o->drain_time_s = (unsigned)drain;
        o->parent_shutdown_time_s = (unsigned)parent;
        o->config_path = str_of(cmd_value(a, "config-path", NULL));
        o->config_yaml = str_of(cmd_value(a, "config-yaml", NULL));
        o->service_node = str_of(cmd_value(a, "service-node", NULL));
        o->service_cluster = str_of(cmd_value(a, "service-cluster", NULL));
        o->service_zone = str_of(cmd_value(a, "service-zone", NULL));
        o->state_path = str_of(cmd_value(a, "xds-state", NULL));
        return true;
}

static struct str read_podinfo(struct arena *a, const char *path)
{
        struct buf b = BUF_INIT;
        struct str s = { 0 };

        if (buf_read_file(&b, path, 1 << 20) == 0)
                s = arena_str(a, buf_view(&b));
        buf_fini(&b);
        return s;
}

static int run_istio(struct cmd_args *a, struct server_opts *o)
{
        static const char state_dir[] = "/var/lib/istio/data";
        struct istio_bootstrap ib = { 0 };
        struct istio_env env = { .get = env_get, .at = env_at };
        struct arena arena;
        struct diags d;
        int rc = CMD_FAILED;

        arena_init(&arena, 8192);
        diags_init(&d);
        env.labels = read_podinfo(&arena, "/etc/istio/pod/labels");
        env.annotations = read_podinfo(&arena, "/etc/istio/pod/annotations");
        if (!istio_bootstrap_make(o->istio_role, cmd_value(a, "domain", NULL), cmd_value(a, "serviceCluster", NULL), &env, &arena, &ib,
                                  &d)) {
                cmd_diags(&d);
                goto out;
        }
        o->config_yaml = ib.json;
        o->config_name = STR("the pod's environment");
        if (!o->concurrency)
                o->concurrency = ib.concurrency;
        o->drain_time_s = ib.drain_s;
        o->shutdown_drain_s = ib.termination_drain_s;
        if (!o->state_path.n && access(state_dir, W_OK) == 0)
                o->state_path = arena_printf(&arena, "%s/xds.state", state_dir);
        rc = server_run(o) == 0 ? CMD_OK : CMD_FAILED;
out:
        diags_fini(&d);
        arena_fini(&arena);
        return rc;
}

static int run(struct cmd_args *a)
{
        struct server_opts o = { 0 };
        const char *role = a->noperands ? a->operands[0] : NULL;

        if (role && strcmp(role, "sidecar") != 0 && strcmp(role, "router") != 0)
                return cmd_error("the role is sidecar or router, not \"%s\"; without a role it runs a bootstrap file (-c)", role);
        if (!set_level(cmd_value(a, "log-level", role ? cmd_value(a, "proxyLogLevel", "warning") : "info")) || !read_common(a, &o))
                return CMD_USAGE;
        if (role) {
                if (o.config_path.n || o.config_yaml.n)
                        return cmd_error("\"proxy %s\" makes its own configuration: leave -c and --config-yaml out", role);
                o.istio_role = role;
                return run_istio(a, &o);
        }
        if (!o.config_path.n && !o.config_yaml.n)
                return cmd_error("no configuration: give -c FILE, or --config-yaml TEXT, or a role (sidecar, router)");
        if (server_run(&o) != 0)
                return CMD_FAILED;
        if (o.mode == SERVER_VALIDATE)
                printf("configuration '%.*s' OK\n", STR_ARG(o.config_path));
        return CMD_OK;
}

const struct cmd cmd_proxy = {
        .name = "proxy",
        .summary = "run the data plane",
        .operands = "[sidecar|router]",
        .description = "Runs a proxy: listeners, filter chains, clusters and routes from an Envoy v3 bootstrap file, with what the file "
                       "says comes from "
                       "files or from a control plane (ADS). It takes the subset of Envoy's configuration that Postern supports, and "
                       "refuses the rest "
                       "by the name and place of the field.\n\n"
                       "With the operand sidecar or router it is the proxy container of a mesh: it makes the bootstrap from the pod's "
                       "environment as "
                       "Istio's agent does, asks the control plane for the rest, answers probes on port 15021 and serves metrics on port "
                       "15090.\n\n"
                       "SIGTERM ends it (a mesh proxy drains first); SIGUSR1 makes it reopen its access logs.",
        .opts = opts,
        .examples = examples,
        .run = run,
        .max_operands = 1,
};
