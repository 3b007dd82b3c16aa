/* `postern up` and `postern down`. Up prints a line a step, as kind does, and leaves a supervisor behind. */
#include "cmd/up.h"

#include "base/clock.h"
#include "base/mem.h"
#include "cmd/cluster.h"
#include "cmd/cmd.h"
#include "cmd/kubeconfig.h"
#include "node/node.h"

#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PEM_MAX_BYTES = 65536, LOG_TAIL_LINES = 5, DOWN_WAIT_MS = 25000 };

static bool in_path(const char *program)
{
        static const char path[] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
        struct str rest = str_of(path), dir;

        while (str_next(&rest, ':', &dir)) {
                char *p = mem_printf(STR_FMT "/%s", STR_ARG(dir), program);
                bool ok = access(p, X_OK) == 0;

                free(p);
                if (ok)
                        return true;
        }
        return false;
}

static int check_machine(bool offline)
{
        static const struct {
                const char *program, *package, *why;
                bool offline_only;
        } need[] = {
                { "runc", "runc", "it runs the pods' containers", false },
                { "gunicorn", "gunicorn", "it serves the offline Internet's httpbin", true },
        };

        for (size_t i = 0; i < ARRAY_LEN(need); i++)
                if (!in_path(need[i].program) && (offline || !need[i].offline_only))
                        return cmd_error("%s is missing (%s): apt-get install %s", need[i].program, need[i].why, need[i].package);
        if (offline && access("/usr/lib/python3/dist-packages/httpbin", F_OK) != 0)
                return cmd_error("python3-httpbin is missing (it is the offline Internet's httpbin.org): apt-get install python3-httpbin");
        return CMD_OK;
}

static void step_done(const char *text)
{
        printf(" ✓ %s\n", text);
        fflush(stdout);
}

/* The last lines of a role's log, to say why it did not start. */
static void show_log(const struct cluster *c, const char *role)
{
        char *path = mem_printf(STR_FMT "/%s.log", STR_ARG(c->log_dir), role);
        struct buf b = BUF_INIT;

        if (buf_read_file(&b, path, 64 << 20) == 0 && b.n) {
                size_t from = b.n - 1;

                for (int lines = 0; from > 0; from--)
                        if (b.p[from - 1] == '\n' && ++lines == LOG_TAIL_LINES)
                                break;
                fprintf(stderr, "its log (%s) ends:\n%.*s", path, (int)(b.n - from), b.p + from);
        }
        buf_fini(&b);
        free(path);
}

static pid_t start_supervisor(const struct cluster *c, const struct up_opts *o, int *report)
{
        int p[2];

        if (pipe2(p, O_CLOEXEC) < 0)
                return -1;
        pid_t pid = fork();

        if (pid == 0) {
                char fd[16], listen[32];
                char *log = mem_printf(STR_FMT "/supervisor.log", STR_ARG(c->log_dir));
                int null = open("/dev/null", O_RDWR | O_CLOEXEC), out = open(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);

                setsid();
                dup2(null, 0);
                dup2(null, 1);
                dup2(out >= 0 ? out : null, 2);
                fcntl(p[1], F_SETFD, 0);
                snprintf(fd, sizeof(fd), "%d", p[1]);
                snprintf(listen, sizeof(listen), "127.0.0.1:%ld", o->api_port);
                if (chdir("/") < 0)
                        _exit(127);
                execl(cmd_self(), "postern", "supervise", "--name", c->name.p, "--report-fd", fd, "--listen", listen,
                      o->offline ? "--offline" : (char *)NULL, (char *)NULL);
                _exit(127);
        }
        close(p[1]);
        *report = p[0];
        return pid;
}

/* Waits for "ready ROLE". */
static int wait_ready(const struct cluster *c, int fd, struct buf *in, const char *role, uint64_t until_ms)
{
        char *ready = mem_printf("ready %s\n", role), *failed = mem_printf("failed %s\n", role);
        int rc = CMD_FAILED;

        for (;;) {
                uint64_t now = clock_mono_ms();

                if (str_find(buf_view(in), str_of(ready)) >= 0) {
                        rc = CMD_OK;
                        break;
                }
                if (in->n && str_find(buf_view(in), str_of(failed)) >= 0) {
                        cmd_error("the %s did not start", role);
                        show_log(c, role);
                        break;
                }
                struct pollfd pfd = { fd, POLLIN, 0 };

                if (now >= until_ms || poll(&pfd, 1, (int)(until_ms - now)) == 0) {
                        cmd_error("the %s is not ready in time; see " STR_FMT, role, STR_ARG(c->log_dir));
                        break;
                }
                buf_reserve(in, 256);
                ssize_t n = read(fd, in->p + in->n, 256);

                if (n <= 0) {
                        cmd_error("the supervisor ended; see " STR_FMT "/supervisor.log", STR_ARG(c->log_dir));
                        show_log(c, "supervisor");
                        break;
                }
                in->n += (size_t)n;
        }
        free(ready);
        free(failed);
        return rc;
}

static bool read_pem(struct cluster *c, const char *file, struct str *out)
{
        struct buf b = BUF_INIT;
        struct str path = arena_printf(&c->arena, STR_FMT "/%s", STR_ARG(c->pki_dir), file);
        int rc = buf_read_file(&b, path.p, PEM_MAX_BYTES);

        if (rc < 0)
                cmd_error("%s: %s", path.p, strerror(-rc));
        *out = arena_str(&c->arena, buf_view(&b));
        buf_fini(&b);
        return rc == 0;
}

static int write_kubeconfig(struct cluster *c, const char *file)
{
        struct kubeconfig_entry e = { .name = c->context };
        struct buf port = BUF_INIT;
        struct diags d;
        int rc = buf_read_file(&port, c->port_file.p, 32);

        if (rc < 0)
                return cmd_error("%s: %s", c->port_file.p, strerror(-rc));
        while (port.n && port.p[port.n - 1] == '\n')
                port.n--;
        e.server = arena_printf(&c->arena, "https://127.0.0.1:" STR_FMT, STR_ARG(buf_view(&port)));
        buf_fini(&port);
        if (!read_pem(c, "ca.crt", &e.ca_pem) || !read_pem(c, "admin.crt", &e.cert_pem) || !read_pem(c, "admin.key", &e.key_pem))
                return CMD_FAILED;
        diags_init(&d);
        if (!kubeconfig_merge(file ? arena_str(&c->arena, str_of(file)) : kubeconfig_path(&c->arena), &e, &d)) {
                cmd_error("the cluster runs, but the kubeconfig was not written; give another file by --kubeconfig");
                cmd_diags(&d);
                rc = CMD_FAILED;
        }
        diags_fini(&d);
        return rc;
}

static int make_folders(const struct cluster *c)
{
        const struct {
                struct str path;
                unsigned mode;
        } t[] = { { c->run_dir, 0755 }, { c->state_dir, 0755 }, { c->log_dir, 0750 }, { c->pki_dir, 0700 } };

        for (size_t i = 0; i < ARRAY_LEN(t); i++) {
                int rc = cluster_mkdirs(t[i].path, t[i].mode);

                if (rc < 0)
                        return cmd_error(STR_FMT ": %s", STR_ARG(t[i].path), strerror(-rc));
        }
        return CMD_OK;
}

/* The kubeconfig must be writable before anything is started: an error later would leave a cluster that cannot be reached. */
static int check_kubeconfig(struct cluster *c, const char *file)
{
        struct str path = file ? arena_str(&c->arena, str_of(file)) : kubeconfig_path(&c->arena);
        struct stat st;
        struct diags d;
        int rc = CMD_OK;

        bool exists = stat(path.p, &st) == 0;

        if (exists && S_ISDIR(st.st_mode))
                return cmd_error("%s is a folder, not a kubeconfig; give another file by --kubeconfig or $KUBECONFIG", path.p);
        if (exists && access(path.p, W_OK) < 0)
                return cmd_error("%s: %s; give another file by --kubeconfig or $KUBECONFIG", path.p, strerror(errno));
        diags_init(&d);
        if (!kubeconfig_check(path, &d)) {
                rc = cmd_error(
                        "the kubeconfig could not be written; nothing was started. Give another file by --kubeconfig or $KUBECONFIG");
                cmd_diags(&d);
        }
        diags_fini(&d);
        return rc;
}

int up_cluster(const struct up_opts *o)
{
        struct cluster c;
        struct buf in = BUF_INIT;
        int rc, fd = -1;

        if (!cluster_init(&c, o->name))
                return CMD_USAGE;
        if (!cluster_need_root()) {
                rc = CMD_FAILED;
                goto out;
        }
        if (cluster_supervisor(&c)) {
                rc = cmd_error("cluster \"%s\" is up already (\"postern status\" shows it); take it down first, or give another --name",
                               o->name);
                goto out;
        }
        if ((rc = check_machine(o->offline)) != CMD_OK || (rc = check_kubeconfig(&c, o->kubeconfig)) != CMD_OK ||
            (rc = make_folders(&c)) != CMD_OK)
                goto out;
        printf("Creating cluster \"%s\" ...\n", o->name);
        step_done("Checked the machine");
        if (start_supervisor(&c, o, &fd) < 0) {
                rc = cmd_error("cannot start the supervisor: %s", strerror(errno));
                goto out;
        }
        uint64_t until = clock_mono_ms() + (uint64_t)o->wait_s * 1000;

        if ((rc = wait_ready(&c, fd, &in, "apiserver", until)) != CMD_OK)
                goto out;
        step_done("Started the API server");
        if ((rc = wait_ready(&c, fd, &in, "node", until)) != CMD_OK)
                goto out;
        step_done(o->offline ? "Started the node, with an Internet of its own (httpbin.org, example.com, api.example.net)"
                             : "Started the node");
        if ((rc = write_kubeconfig(&c, o->kubeconfig)) != CMD_OK)
                goto out;
        step_done("Wrote the kubeconfig");
        printf("Set kubectl context to \"%s\"\nYou can now use your cluster with:\n\nkubectl cluster-info --context %s\n", c.context.p,
               c.context.p);
out:
        if (fd >= 0)
                close(fd);
        buf_fini(&in);
        cluster_fini(&c);
        return rc;
}

static int rm_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
        (void)st;
        (void)type;
        (void)ftw;
        return remove(path) < 0 && errno != ENOENT ? -1 : 0;
}

/* Removes a folder of ours. Mounts in it are not crossed. */
static void rm_tree(struct str path)
{
        nftw(path.p, rm_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

int down_cluster(const char *name)
{
        struct cluster c;
        struct diags d;
        int rc = CMD_OK;

        if (!cluster_init(&c, name))
                return CMD_USAGE;
        if (!cluster_need_root()) {
                cluster_fini(&c);
                return CMD_FAILED;
        }
        if (!cluster_exists(&c)) {
                printf("There is no cluster \"%s\".\n", name);
                cluster_fini(&c);
                return CMD_OK;
        }
        printf("Deleting cluster \"%s\" ...\n", name);
        fflush(stdout);
        pid_t pid = cluster_supervisor(&c);

        if (pid) {
                kill(pid, SIGTERM);
                for (uint64_t until = clock_mono_ms() + DOWN_WAIT_MS; cluster_supervisor(&c) && clock_mono_ms() < until;)
                        poll(NULL, 0, 10);
        }
        diags_init(&d);
        if (!node_teardown(c.name, &d))
                rc = CMD_FAILED;
        rm_tree(c.run_dir);
        rm_tree(c.state_dir);
        if (!kubeconfig_remove(c.context, &d))
                rc = CMD_FAILED;
        if (rc != CMD_OK) {
                cmd_error("not everything could be removed");
                cmd_diags(&d);
        }
        diags_fini(&d);
        cluster_fini(&c);
        return rc;
}

static int run_up(struct cmd_args *a)
{
        struct up_opts o = { .name = cmd_value(a, "name", "default"),
                             .offline = cmd_flag(a, "offline"),
                             .kubeconfig = cmd_value(a, "kubeconfig", NULL),
                             .wait_s = 30 };

        if (!cmd_number(a, "api-port", 0, 65535, &o.api_port) || !cmd_number(a, "wait", 1, 600, &o.wait_s))
                return CMD_USAGE;
        return up_cluster(&o);
}

static int run_down(struct cmd_args *a)
{
        return down_cluster(cmd_value(a, "name", "default"));
}

static const struct cmd_opt up_opts_table[] = {
        { "name", 'n', "NAME", "the cluster's name (default)", false },
        { "offline", 0, NULL, "no real network: a namespace plays the Internet, with httpbin.org, example.com and api.example.net", false },
        { "api-port", 0, "PORT", "the API server's port on 127.0.0.1 (any that is free)", false },
        { "kubeconfig", 0, "FILE", "write the context there instead of $KUBECONFIG or ~/.kube/config", false },
        { "wait", 0, "SECONDS", "how long to wait until it is ready (30)", false },
        { 0 },
};

static const struct cmd_opt down_opts[] = {
        { "name", 'n', "NAME", "the cluster's name (default)", false },
        { 0 },
};

static const char *const up_examples[] = {
        "postern up --offline",
        "a cluster with an Internet of its own",
        "postern up --name second",
        "another one beside it, context postern-second",
        NULL,
};

const struct cmd cmd_up = {
        .name = "up",
        .summary = "start a one-machine cluster (what kind create cluster does)",
        .operands = "",
        .description = "Starts a Kubernetes-compatible cluster on this machine, without a container engine: an API server that serves "
                       "kubectl, and a node that runs "
                       "pods in network namespaces of their own. The context postern-NAME is merged into the kubeconfig and made "
                       "current.\n\nNothing outside of "
                       "Postern's own namespaces, one nftables table and its folders under /run/postern and /var/lib/postern is changed; "
                       "\"postern down\" removes "
                       "all of it. After a crash, up starts the cluster again with what was stored.",
        .opts = up_opts_table,
        .examples = up_examples,
        .run = run_up,
        .max_operands = 0,
};

const struct cmd cmd_down = {
        .name = "down",
        .summary = "remove a cluster and everything it made",
        .operands = "",
        .description = "Stops a cluster and removes its pods, namespaces, tables, folders and kubeconfig context, also when its processes "
                       "were killed.",
        .opts = down_opts,
        .run = run_down,
        .max_operands = 0,
};
