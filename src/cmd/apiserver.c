/* `postern apiserver`: the embedded Kubernetes API server as a process. */
#include "kube/apiserver.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"
#include "cmd/admission.h"
#include "cmd/cmd.h"

#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { DRAIN_MS = 1500, SANS_MAX = 16 };

struct server {
        struct loop *loop;
        struct kube_apiserver *s;
        bool stopping;
};

static void on_drained(void *arg)
{
        loop_stop(arg);
}

static void on_signal(void *arg, int signo)
{
        struct server *sv = arg;

        if (sv->stopping) {
                loop_stop(sv->loop);
                return;
        }
        sv->stopping = true;
        LOG(LOG_INFO, "apiserver", "stopping");
        kube_apiserver_drain(sv->s, DRAIN_MS, on_drained, sv->loop);
}

static int report(const struct diags *d)
{
        struct buf b = BUF_INIT;

        diags_format(d, &b);
        cmd_error("%s", str_trim(buf_view(&b)).n ? buf_z(&b) : "could not start");
        buf_fini(&b);
        return CMD_FAILED;
}

static bool write_port(const char *path, uint16_t port)
{
        struct buf b = BUF_INIT;

        buf_printf(&b, "%u\n", port);
        int err = buf_write_file(&b, path, 0644);
        buf_fini(&b);
        if (err < 0)
                cmd_error("%s: cannot be written: %s", path, strerror(-err));
        return err >= 0;
}

static void tell_ready(int fd)
{
        if (fd < 0)
                return;
        if (write(fd, "ready\n", 6) != 6)
                LOG(LOG_WARN, "apiserver", "nobody reads the ready descriptor: %s", strerror(errno));
        close(fd);
}

static bool read_options(struct cmd_args *a, struct kube_apiserver_opts *o, struct str sans[SANS_MAX], long *ready_fd)
{
        const char *san;

        *o = (struct kube_apiserver_opts){
                .state_dir = str_of(cmd_value(a, "state", "")),
                .pki_dir = str_of(cmd_value(a, "pki", "")),
                .listen = str_of(cmd_value(a, "listen", "127.0.0.1:6443")),
                .unix_path = str_of(cmd_value(a, "unix", "")),
                .node_netns = str_of(cmd_value(a, "node-netns", "")),
                .node_listen = str_of(cmd_value(a, "node-listen", "")),
                .node_socket = str_of(cmd_value(a, "node-socket", "")),
                .service_cidr = str_of(cmd_value(a, "service-cidr", "")),
                .cluster_domain = str_of(cmd_value(a, "cluster-domain", "")),
                .no_controllers = cmd_flag(a, "no-controllers"),
                .extra_sans = sans,
        };
        while (o->nextra_sans < SANS_MAX && (san = cmd_nth(a, "san", o->nextra_sans)))
                sans[o->nextra_sans++] = str_of(san);
        if (!o->state_dir.n || !o->pki_dir.n) {
                cmd_error("--state and --pki are needed: where the store and the certificates live");
                return false;
        }
        return cmd_number(a, "ready-fd", 0, 1 << 20, ready_fd);
}

/* Port 0 means the port of the last start while that is free: kubeconfigs go on working after a crash. */
static struct kube_apiserver *start(struct loop *l, struct kube_apiserver_opts *o, const char *port_file, struct diags *d)
{
        struct buf b = BUF_INIT, at = BUF_INIT;
        uint64_t port;
        struct kube_apiserver *s = NULL;
        struct str asked = o->listen;

        if (port_file && str_ends(asked, STR(":0")) && buf_read_file(&b, port_file, 16) == 0 &&
            str_u64(str_sub(buf_view(&b), 0, b.n ? b.n - 1 : 0), &port) && port && port < 65536) {
                buf_printf(&at, STR_FMT "%u", STR_ARG(str_sub(asked, 0, asked.n - 1)), (unsigned)port);
                o->listen = buf_view(&at);
                s = kube_apiserver_new(l, o, d);
                if (!s && d->n && str_eqc(str_of(d->v[0].code), "KUB0401"))
                        diags_clear(d);
        }
        if (!s && !d->errors) {
                o->listen = asked;
                s = kube_apiserver_new(l, o, d);
        }
        buf_fini(&at);
        buf_fini(&b);
        return s;
}

static int run(struct cmd_args *a)
{
        static const int signals[] = { SIGTERM, SIGINT };
        struct kube_apiserver_opts o;
        struct str sans[SANS_MAX];
        struct server sv = { .loop = loop_new() };
        const char *port_file = cmd_value(a, "port-file", NULL);
        long ready_fd = -1;
        struct diags d;
        int rc = CMD_OK;

        if (!read_options(a, &o, sans, &ready_fd))
                return CMD_USAGE;
        struct admission *admission = admission_new();
        diags_init(&d);
        o.admission = admission_hooks(admission, &o.nadmission);
        struct loop_signal *sig = loop_signal_new(sv.loop, signals, ARRAY_LEN(signals), on_signal, &sv);
        sv.s = start(sv.loop, &o, port_file, &d);
        if (!sv.s) {
                rc = report(&d);
        } else if (port_file && !write_port(port_file, kube_apiserver_port(sv.s))) {
                rc = CMD_FAILED;
        } else {
                LOG(LOG_INFO, "apiserver", "listening on port %u", kube_apiserver_port(sv.s));
                tell_ready((int)ready_fd);
                loop_run(sv.loop);
        }
        kube_apiserver_free(sv.s);
        loop_signal_free(sig);
        loop_free(sv.loop);
        diags_fini(&d);
        admission_free(admission);
        return rc;
}

static const struct cmd_opt opts[] = {
        { "state", 0, "DIR", "where the store lives (store.db)", false },
        { "pki", 0, "DIR", "where certificates and keys live; made on the first start", false },
        { "listen", 0, "ADDR:PORT", "where to listen (127.0.0.1:6443; port 0 chooses one)", false },
        { "port-file", 0, "FILE", "where to write the port", false },
        { "unix", 0, "PATH", "also listen on a Unix socket, for root and the server's own user", false },
        { "node-netns", 0, "PATH", "the network namespace of --node-listen", false },
        { "node-listen", 0, "ADDR:PORT", "also listen there, for pods", false },
        { "node-socket", 0, "PATH", "the node's socket, for logs, exec and port-forward", false },
        { "service-cidr", 0, "CIDR", "addresses of Services (10.96.0.0/16)", false },
        { "cluster-domain", 0, "NAME", "domain of the cluster (cluster.local)", false },
        { "san", 0, "NAME", "a further name or address of the server certificate", true },
        { "no-controllers", 0, NULL, "only serve: no Deployments, Endpoints, scheduling or garbage collection", false },
        { "ready-fd", 0, "FD", "a descriptor to write \"ready\" to", false },
        { 0 },
};

static const char *const examples[] = {
        "postern apiserver --state /tmp/s --pki /tmp/p --listen 127.0.0.1:0 --port-file /tmp/port",
        "a server to try kubectl on",
        NULL,
};

const struct cmd cmd_apiserver = {
        .name = "apiserver",
        .summary = "serve the Kubernetes API to kubectl and to the cluster's other roles",
        .operands = "",
        .description = "The embedded Kubernetes API server and its controllers, on a store in one SQLite file. `postern up` starts it; it "
                       "can be started alone.\n\n"
                       "It answers nobody without a client certificate of its own authority, a service-account token that it issued, or "
                       "(on its Unix socket) the same "
                       "user or root.",
        .opts = opts,
        .examples = examples,
        .run = run,
        .hidden = true,
};
