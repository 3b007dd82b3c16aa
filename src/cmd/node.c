/* `postern node`, and the two roles that it starts itself: `postern shim` beside each container, `postern internet` for --offline. */
#include "node/node.h"
#include "base/log.h"
#include "base/mem.h"
#include "cmd/cmd.h"
#include "node/inetserver.h"
#include "node/shim.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { NODE_PEM_MAX = 1 << 16 };

static void on_stop(void *arg, int signo)
{
        LOG(LOG_INFO, "node", "signal %d: ending", signo);
        loop_stop(arg);
}

static void on_ready(void *arg)
{
        int *fd = arg;

        if (*fd < 0)
                return;
        if (write(*fd, "ready\n", 6) != 6)
                LOG(LOG_WARN, "node", "telling that it is ready: %s", strerror(errno));
        close(*fd);
        *fd = -1;
}

static bool read_option(const struct cmd_args *a, const char *name, struct arena *arena, struct str *out)
{
        const char *path = cmd_value(a, name, NULL);
        struct buf b = BUF_INIT;

        if (!path)
                return true;
        int err = buf_read_file(&b, path, NODE_PEM_MAX);
        if (err)
                cmd_error("--%s %s: %s", name, path, strerror(-err));
        else
                *out = arena_str(arena, buf_view(&b));
        buf_fini(&b);
        return err == 0;
}

/* Where the API server is: a kubeconfig, or --server with files. */
static bool api_config(const struct cmd_args *a, struct arena *arena, struct kube_client_config *c, struct diags *d)
{
        const char *server = cmd_value(a, "server", NULL), *file = cmd_value(a, "kubeconfig", NULL);

        if (!server == !file) {
                cmd_error("give either --kubeconfig or --server");
                return false;
        }
        if (file)
                return kube_client_config_load(str_of(file), STR(""), arena, c, d);
        c->server = str_of(server);
        return read_option(a, "ca", arena, &c->ca_pem) && read_option(a, "cert", arena, &c->cert_pem) &&
               read_option(a, "key", arena, &c->key_pem);
}

static int node_run(struct cmd_args *a, const struct kube_client_config *api, int ready_fd, struct diags *d)
{
        static const int signals[] = { SIGTERM, SIGINT };
        struct loop *l = loop_new();
        struct loop_signal *sig = loop_signal_new(l, signals, ARRAY_LEN(signals), on_stop, l);
        struct node_opts o = {
                .name = str_of(cmd_value(a, "name", "default")),
                .node_name = str_of(cmd_value(a, "node-name", NULL)),
                .api = *api,
                .run_dir = str_of(cmd_value(a, "run", NULL)),
                .state_dir = str_of(cmd_value(a, "state", NULL)),
                .pod_cidr = str_of(cmd_value(a, "pod-cidr", NULL)),
                .service_cidr = str_of(cmd_value(a, "service-cidr", NULL)),
                .cluster_domain = str_of(cmd_value(a, "cluster-domain", NULL)),
                .binary = str_of(cmd_self()),
                .offline = cmd_flag(a, "offline"),
                .on_ready = on_ready,
                .arg = &ready_fd,
        };
        struct node *n = node_new(l, &o, d);

        if (n) {
                loop_run(l);
                node_free(n);
        }
        loop_signal_free(sig);
        loop_free(l);
        return n ? CMD_OK : CMD_FAILED;
}

static int run_node(struct cmd_args *a)
{
        struct kube_client_config api = { 0 };
        struct arena arena;
        struct diags d;
        long ready_fd = -1;
        int rc = CMD_FAILED;

        if (!cmd_number(a, "ready-fd", 3, 1 << 20, &ready_fd))
                return CMD_USAGE;
        if (geteuid() != 0)
                return cmd_error("needs root, because it makes network namespaces and runs containers");
        if (ready_fd >= 0)
                fcntl((int)ready_fd, F_SETFD, FD_CLOEXEC);
        arena_init(&arena, 0);
        diags_init(&d);
        if (cmd_flag(a, "remove"))
                rc = node_teardown(str_of(cmd_value(a, "name", "default")), &d) ? CMD_OK : CMD_FAILED;
        else if (api_config(a, &arena, &api, &d))
                rc = node_run(a, &api, (int)ready_fd, &d);
        cmd_diags(&d);
        diags_fini(&d);
        arena_fini(&arena);
        return rc;
}

static const struct cmd_opt node_opts[] = {
        { "name", 0, "NAME", "the cluster's name (default)", false },
        { "node-name", 0, "NAME", "the Node object's name (NAME-control-plane)", false },
        { "kubeconfig", 0, "FILE", "where the API server is, and who we are", false },
        { "server", 0, "URL", "the API server, instead of a kubeconfig", false },
        { "ca", 0, "FILE", "its certificate authority", false },
        { "cert", 0, "FILE", "our certificate", false },
        { "key", 0, "FILE", "its key", false },
        { "run", 0, "DIR", "sockets and run-time state (/run/postern/NAME)", false },
        { "state", 0, "DIR", "pods' folders and logs (/var/lib/postern/NAME)", false },
        { "pod-cidr", 0, "RANGE", "addresses of pods (10.244.0.0/16)", false },
        { "service-cidr", 0, "RANGE", "addresses of Services (10.96.0.0/16); the tenth is the cluster DNS", false },
        { "cluster-domain", 0, "NAME", "domain of the cluster's names (cluster.local)", false },
        { "offline", 0, NULL, "no way out of this machine: a namespace plays the Internet", false },
        { "ready-fd", 0, "FD", "descriptor to write to when ready", false },
        { "remove", 0, NULL, "remove everything that nodes of this cluster made (as down does), and end", false },
        { 0 },
};

const struct cmd cmd_node = {
        .name = "node",
        .summary = "run pods on this machine (started by up)",
        .operands = "",
        .description =
                "Runs the pods that the API server binds to this machine, each in a network namespace of its own, gives Services their "
                "virtual addresses and "
                "answers DNS.\n\nIt may be stopped, killed and started again at any time: containers run on beside it and are taken over.",
        .opts = node_opts,
        .run = run_node,
        .hidden = true,
        .max_operands = 0,
};

/* ---- postern shim ---- */

static int run_shim(struct cmd_args *a)
{
        struct shim_opts o = {
                .dir = cmd_value(a, "dir", NULL),
                .id = cmd_value(a, "id", NULL),
                .bundle = cmd_value(a, "bundle", NULL),
                .runtime_root = cmd_value(a, "runtime-root", NULL),
                .log = cmd_value(a, "log", NULL),
                .cgroup = cmd_value(a, "cgroup", NULL),
                .open_stdin = cmd_flag(a, "stdin"),
                .stdin_once = cmd_flag(a, "stdin-once"),
                .tty = cmd_flag(a, "tty"),
        };

        if (!o.dir || !o.id || !o.bundle || !o.runtime_root || !o.log)
                return cmd_error("--dir, --id, --bundle, --runtime-root and --log are needed; the node gives them");
        return shim_run(&o);
}

static const struct cmd_opt shim_opts[] = {
        { "dir", 0, "DIR", "folder of this run of the container", false },
        { "id", 0, "ID", "the container's id", false },
        { "bundle", 0, "DIR", "OCI bundle", false },
        { "runtime-root", 0, "DIR", "runc's state", false },
        { "log", 0, "FILE", "where output is kept", false },
        { "cgroup", 0, "PATH", "the container's control group", false },
        { "stdin", 0, NULL, "keep standard input open for attach", false },
        { "stdin-once", 0, NULL, "close it when the first attached client has ended it", false },
        { "tty", 0, NULL, "give the container a terminal", false },
        { 0 },
};

const struct cmd cmd_shim = {
        .name = "shim",
        .summary = "hold one container's streams (started by the node)",
        .operands = "",
        .description = "Starts a container, holds its standard streams, writes its log and its exit status.",
        .opts = shim_opts,
        .run = run_shim,
        .hidden = true,
        .max_operands = 0,
};

/* ---- postern internet ---- */

static int run_internet(struct cmd_args *a)
{
        static const int signals[] = { SIGTERM, SIGINT };
        struct inetserver_opts o = { 0 };
        struct arena arena;
        struct diags d;
        int rc = CMD_FAILED;

        arena_init(&arena, 0);
        diags_init(&d);
        if (read_option(a, "cert", &arena, &o.cert_pem) && read_option(a, "key", &arena, &o.key_pem)) {
                struct loop *l = loop_new();
                struct loop_signal *sig = loop_signal_new(l, signals, ARRAY_LEN(signals), on_stop, l);
                struct inetserver *s = inetserver_new(l, &o, &d);
                if (s) {
                        loop_run(l);
                        inetserver_free(s);
                        rc = CMD_OK;
                }
                loop_signal_free(sig);
                loop_free(l);
        }
        cmd_diags(&d);
        diags_fini(&d);
        arena_fini(&arena);
        return rc;
}

static const struct cmd_opt internet_opts[] = {
        { "cert", 0, "FILE", "certificate of every name", false },
        { "key", 0, "FILE", "its key", false },
        { "alive-fd", 0, "FD", "a listening socket that is kept open, by which the node sees that this process lives", false },
        { 0 },
};

const struct cmd cmd_internet = {
        .name = "internet",
        .summary = "play the Internet (started by the node)",
        .operands = "",
        .description = "Serves httpbin on port 80 and, over TLS and HTTP/2, on port 443 of the namespace that it runs in.",
        .opts = internet_opts,
        .run = run_internet,
        .hidden = true,
        .max_operands = 0,
};
