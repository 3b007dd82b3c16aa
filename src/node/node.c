/* The node as a whole: what it watches, and what it does when that changes. */
#include "node/node.h"
#include "base/clock.h"
#include "base/log.h"
#include "base/mem.h"
#include "node/cgroup.h"
#include "node/dnsserver.h"
#include "node/internet.h"
#include "node/kubelet.h"
#include "node/pod.h"
#include "node/services.h"

#include <dirent.h>
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sysinfo.h>
#include <sys/utsname.h>
#include <unistd.h>

enum { HEARTBEAT_MS = 10000, HEARTBEAT_RETRY_MS = 500, ADOPT_SWEEP_MS = 200 };

static bool fail(struct diags *d, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static bool fail(struct diags *d, const char *fmt, ...)
{
        struct buf b = BUF_INIT;
        va_list ap;

        va_start(ap, fmt);
        buf_vprintf(&b, fmt, ap);
        va_end(ap);
        diag_add(d, DIAG_ERROR, NULL, NULL, "%s", buf_z(&b));
        buf_fini(&b);
        return false;
}

/* ---- objects that pods use ---- */

const struct pb_node *node_object(struct node *n, const char *kind, struct str ns, struct str name)
{
        struct kube_object *o = kube_informer_get(strcmp(kind, "Secret") == 0 ? n->secrets : n->configmaps, ns, name);

        return o ? o->node : NULL;
}

/* ---- ready, and what a crash left ---- */

static bool pod_known(void *arg, struct str uid)
{
        return strmap_has(&((struct node *)arg)->by_uid, uid);
}

/* Folders named by uid whose pod is no more. */
static void sweep_folder(struct node *n, const char *dir, bool volumes)
{
        DIR *d = opendir(dir);

        for (struct dirent *e; d && (e = readdir(d));) {
                if (e->d_name[0] == '.' || strmap_has(&n->by_uid, str_of(e->d_name)))
                        continue;
                char *path = mem_printf("%s/%s", dir, e->d_name);
                if (volumes)
                        volume_remove(path, path);
                else
                        rootfs_remove(path);
                free(path);
        }
        if (d)
                closedir(d);
}

/* Containers of pods that were deleted while no node ran. */
static void sweep_containers(struct node *n)
{
        char *root = mem_printf("%s/ctr", n->run_dir);
        DIR *d = opendir(root);

        for (struct dirent *e; d && (e = readdir(d));) {
                if (e->d_name[0] == '.' || strmap_has(&n->by_uid, str_of(e->d_name)))
                        continue;
                char *path = mem_printf("%s/%s", root, e->d_name);
                DIR *runs = opendir(path);
                LOG(LOG_INFO, "node", "removing what is left of pod %s", e->d_name);
                for (struct dirent *r; runs && (r = readdir(runs));) {
                        char *run = mem_printf("%s/%s", path, r->d_name);
                        if (r->d_name[0] != '.' && shim_alive(run))
                                shim_kill(run, SIGKILL);
                        free(run);
                }
                if (runs)
                        closedir(runs);
                network_pod_del(&n->net, str_of(e->d_name));
                free(path);
        }
        if (d)
                closedir(d);
        sweep_folder(n, root, false);
        free(root);
}

static void sweep_logs(struct node *n)
{
        char *dir = mem_printf("%s/logs", n->state_dir);
        DIR *d = opendir(dir);

        for (struct dirent *e; d && (e = readdir(d));) {
                ptrdiff_t at = str_rchr(str_of(e->d_name), '_');
                if (at < 0 || strmap_has(&n->by_uid, str_of(e->d_name + at + 1)))
                        continue;
                char *path = mem_printf("%s/%s", dir, e->d_name);
                rootfs_remove(path);
                free(path);
        }
        if (d)
                closedir(d);
        free(dir);
}

static void on_adopted(struct loop_timer *t)
{
        struct node *n = t->arg;
        char *pods = mem_printf("%s/pods", n->state_dir), *volumes = mem_printf("%s/volumes", n->run_dir);

        sweep_containers(n);
        sweep_folder(n, volumes, true);
        sweep_folder(n, pods, false);
        sweep_logs(n);
        ipam_sweep(&n->ipam, pod_known, n);
        free(pods);
        free(volumes);
}

static void node_check_ready(struct node *n)
{
        if (n->ready_told || !n->registered || !kube_informer_synced(n->pods) || !kube_informer_synced(n->services) ||
            !kube_informer_synced(n->slices) || !kube_informer_synced(n->configmaps) || !kube_informer_synced(n->secrets))
                return;
        n->ready_told = true;
        loop_timer_arm(n->loop, &n->adopt, ADOPT_SWEEP_MS);
        LOG(LOG_INFO, "node", "node %s is ready", n->node_name);
        event_node(n, false, "Starting", "Starting postern node.");
        if (n->on_ready)
                n->on_ready(n->on_ready_arg);
}

/* ---- pods ---- */

static void on_pod_set(void *arg, struct kube_object *now, struct kube_object *before)
{
        struct node *n = arg;
        struct pod *p = strmap_get(&n->by_uid, now->uid);

        (void)before;
        if (!str_eqc(spec_str(now->node, "spec.nodeName"), n->node_name))
                return;
        /* Deleted and made again under the same name between two events. */
        if (before && !str_eq(before->uid, now->uid)) {
                struct pod *old = strmap_get(&n->by_uid, before->uid);
                if (old)
                        pod_gone(old);
        }
        if (p) {
                pod_update(p, now);
                return;
        }
        p = pod_new(n, now);
        strmap_set(&n->by_uid, now->uid, p);
}

static void on_pod_delete(void *arg, struct kube_object *last)
{
        struct node *n = arg;
        struct pod *p = strmap_get(&n->by_uid, last->uid);

        if (p)
                pod_gone(p);
}

static void on_synced(void *arg)
{
        node_check_ready(arg);
}

static void on_trouble(void *arg, const char *why)
{
        (void)arg;
        LOG(LOG_WARN, "node", "watching the API server: %s", why);
}

/* ---- ConfigMaps and Secrets ---- */

static void config_changed(struct node *n, const char *kind, struct kube_object *o)
{
        STRMAP_EACH (&n->by_uid, e) {
                struct pod *p = e->value;
                if (str_eqc(o->namespace_, p->ns) && volume_uses(p->obj->node, kind, o->name))
                        pod_config_changed(p);
        }
}

static void on_configmap_set(void *arg, struct kube_object *now, struct kube_object *before)
{
        (void)before;
        config_changed(arg, "ConfigMap", now);
}

static void on_configmap_delete(void *arg, struct kube_object *last)
{
        config_changed(arg, "ConfigMap", last);
}

static void on_secret_set(void *arg, struct kube_object *now, struct kube_object *before)
{
        (void)before;
        config_changed(arg, "Secret", now);
}

static void on_secret_delete(void *arg, struct kube_object *last)
{
        config_changed(arg, "Secret", last);
}

/* ---- Services ---- */

static void on_services_task(struct loop_task *t)
{
        services_apply(t->arg);
}

static void services_touch(struct node *n)
{
        loop_defer(n->loop, &n->services_task);
}

static void on_services_retry(struct loop_timer *t)
{
        services_touch(t->arg);
}

static void on_service_set(void *arg, struct kube_object *now, struct kube_object *before)
{
        (void)now;
        (void)before;
        services_touch(arg);
}

static void on_service_delete(void *arg, struct kube_object *last)
{
        (void)last;
        services_touch(arg);
}

static const struct kube_informer_ops pod_ops = { on_pod_set, on_pod_delete, on_synced, on_trouble };
static const struct kube_informer_ops service_ops = { on_service_set, on_service_delete, on_synced, NULL };
static const struct kube_informer_ops configmap_ops = { on_configmap_set, on_configmap_delete, on_synced, NULL };
static const struct kube_informer_ops secret_ops = { on_secret_set, on_secret_delete, on_synced, NULL };

/* All pods, not by a field selector: this is the only node, and a pod that is bound to it then arrives as a change of one that is known. */
static bool node_watch(struct node *n)
{
        /* What pods need comes before the pods. */
        n->configmaps = kube_informer_new(n->client, STR("/api/v1/configmaps"), STR(""), &configmap_ops, n);
        n->secrets = kube_informer_new(n->client, STR("/api/v1/secrets"), STR(""), &secret_ops, n);
        n->services = kube_informer_new(n->client, STR("/api/v1/services"), STR(""), &service_ops, n);
        n->slices = kube_informer_new(n->client, STR("/apis/discovery.k8s.io/v1/endpointslices"), STR(""), &service_ops, n);
        n->pods = kube_informer_new(n->client, STR("/api/v1/pods"), STR(""), &pod_ops, n);
        return n->configmaps && n->secrets && n->services && n->slices && n->pods;
}

/* ---- the Node object ---- */

static void put_conditions(struct node *n, struct buf *b)
{
        static const struct {
                const char *type, *status, *reason, *message;
        } conditions[] = {
                { "MemoryPressure", "False", "KubeletHasSufficientMemory", "kubelet has sufficient memory available" },
                { "DiskPressure", "False", "KubeletHasNoDiskPressure", "kubelet has no disk pressure" },
                { "PIDPressure", "False", "KubeletHasSufficientPID", "kubelet has sufficient PID available" },
                { "Ready", "True", "KubeletReady", "postern node is posting ready status" },
        };
        char now[40], since[40];

        clock_rfc3339(clock_real_us(), 0, now);
        clock_rfc3339(n->started_us, 0, since);
        buf_cstr(b, "\"conditions\":[");
        for (size_t i = 0; i < ARRAY_LEN(conditions); i++)
                buf_printf(b,
                           "%s{\"type\":\"%s\",\"status\":\"%s\",\"reason\":\"%s\",\"message\":\"%s\",\"lastHeartbeatTime\":\"%s\","
                           "\"lastTransitionTime\":\"%s\"}",
                           i ? "," : "", conditions[i].type, conditions[i].status, conditions[i].reason, conditions[i].message, now, since);
        buf_char(b, ']');
}

static void os_name(struct buf *out)
{
        struct buf b = BUF_INIT;
        struct str text, line;

        buf_read_file(&b, "/etc/os-release", 1 << 16);
        for (text = buf_view(&b); text.n && str_next(&text, '\n', &line);)
                if (str_starts(line, STR("PRETTY_NAME=\"")) && line.n > 14)
                        buf_str(out, str_sub(line, 13, line.n - 14));
        if (!out->n)
                buf_cstr(out, "Linux");
        buf_fini(&b);
}

static void put_status(struct node *n, struct buf *b)
{
        struct utsname u;
        struct buf os = BUF_INIT;
        char *amounts = mem_printf("{\"cpu\":\"%lld\",\"memory\":\"%lldKi\",\"pods\":\"110\",\"ephemeral-storage\":\"100Gi\"}",
                                   (long long)(n->cpu_milli / 1000), (long long)(n->memory_bytes / 1024));

        uname(&u);
        os_name(&os);
        buf_printf(b, "\"status\":{\"capacity\":%s,\"allocatable\":%s,", amounts, amounts);
        put_conditions(n, b);
        buf_printf(b, ",\"addresses\":[{\"type\":\"InternalIP\",\"address\":\"" STR_FMT "\"},{\"type\":\"Hostname\",\"address\":\"%s\"}]",
                   STR_ARG(n->host_ip), n->node_name);
        buf_printf(b, ",\"nodeInfo\":{\"machineID\":\"\",\"systemUUID\":\"\",\"bootID\":\"\",\"kernelVersion\":\"%s\",\"osImage\":",
                   u.release);
        buf_json(b, buf_view(&os));
        buf_printf(b,
                   ",\"containerRuntimeVersion\":\"runc://"
                   "postern-%s\",\"kubeletVersion\":\"v1.32.0+postern\",\"kubeProxyVersion\":\"\",\"operatingSystem\":"
                   "\"linux\",\"architecture\":\"%s\"}}",
                   POSTERN_VERSION,
                   strcmp(u.machine, "x86_64") == 0    ? "amd64"
                   : strcmp(u.machine, "aarch64") == 0 ? "arm64"
                                                       : u.machine);
        buf_fini(&os);
        free(amounts);
}

static void heartbeat(struct node *n);

static void on_registered(void *arg, const struct kube_response *r)
{
        struct node *n = arg;

        if (r->status == 201 || r->status == 200 || r->status == 409) {
                n->registered = true;
                heartbeat(n); /* creation does not take a status */
                return;
        }
        LOG(LOG_WARN, "node", "registering with the API server: %d %s", r->status, r->error ? r->error : "");
        loop_timer_arm(n->loop, &n->heartbeat, HEARTBEAT_RETRY_MS);
}

static void node_register(struct node *n)
{
        struct buf b = BUF_INIT;
        struct utsname u;

        uname(&u);
        const char *arch = strcmp(u.machine, "x86_64") == 0 ? "amd64" : strcmp(u.machine, "aarch64") == 0 ? "arm64" : u.machine;
        buf_printf(&b,
                   "{\"apiVersion\":\"v1\",\"kind\":\"Node\",\"metadata\":{\"name\":\"%s\",\"labels\":{\"kubernetes.io/"
                   "hostname\":\"%s\",\"kubernetes.io/os\":"
                   "\"linux\",\"kubernetes.io/arch\":\"%s\",\"node-role.kubernetes.io/control-plane\":\"\"}},",
                   n->node_name, n->node_name, arch);
        char net[ADDR_TEXT_MAX];
        addr_ip_text(&n->net.pods.base, net);
        buf_printf(&b, "\"spec\":{\"podCIDR\":\"%s/%u\",\"podCIDRs\":[\"%s/%u\"]},", net, n->net.pods.bits, net, n->net.pods.bits);
        put_status(n, &b);
        buf_char(&b, '}');
        kube_request(n->client, "POST", STR("/api/v1/nodes"), STR("application/json"), buf_view(&b), on_registered, n);
        buf_fini(&b);
}

static void on_heartbeat_answer(void *arg, const struct kube_response *r)
{
        struct node *n = arg;

        if (r->status == 404) { /* somebody deleted it */
                n->registered = false;
                node_register(n);
                return;
        }
        if (r->status >= 200 && r->status < 300)
                node_check_ready(n);
        else
                LOG(LOG_WARN, "node", "heartbeat: %d %s", r->status, r->error ? r->error : "");
        loop_timer_arm(n->loop, &n->heartbeat, r->status >= 200 && r->status < 300 ? HEARTBEAT_MS : HEARTBEAT_RETRY_MS);
}

static void heartbeat(struct node *n)
{
        struct buf b = BUF_INIT, path = BUF_INIT;

        buf_printf(&path, "/api/v1/nodes/%s/status", n->node_name);
        buf_char(&b, '{');
        put_status(n, &b);
        buf_char(&b, '}');
        kube_request(n->client, "PATCH", buf_view(&path), STR("application/merge-patch+json"), buf_view(&b), on_heartbeat_answer, n);
        buf_fini(&b);
        buf_fini(&path);
}

static void on_heartbeat(struct loop_timer *t)
{
        struct node *n = t->arg;

        if (n->registered)
                heartbeat(n);
        else
                node_register(n);
}

/* ---- making and ending ---- */

static char *text_or(struct str s, const char *fmt, const char *name) __attribute__((format(printf, 2, 0)));
static char *text_or(struct str s, const char *fmt, const char *name)
{
        return s.n ? str_dup(s) : mem_printf(fmt, name);
}

static struct str or_default(struct str s, struct str otherwise)
{
        return s.n ? s : otherwise;
}

static bool node_files(struct node *n, const struct node_opts *o, struct diags *d)
{
        static const char *const run[] = { "runc", "ctr", "volumes" }, *const state[] = { "pods", "logs", "base" };
        struct buf error = BUF_INIT;
        char *ipam = mem_printf("%s/addresses", n->run_dir), *base = mem_printf("%s/base", n->state_dir);
        bool ok = true;

        for (size_t i = 0; i < 3 && ok; i++) {
                char *a = mem_printf("%s/%s", n->run_dir, run[i]), *b = mem_printf("%s/%s", n->state_dir, state[i]);
                int err = rootfs_mkdirs(a, 0700);
                if (!err)
                        err = rootfs_mkdirs(b, 0700);
                if (err)
                        ok = fail(d, "%s, %s: %s", a, b, strerror(-err));
                free(a);
                free(b);
        }
        if (ok && !ipam_init(&n->ipam, &n->net.pods, ipam, &error))
                ok = fail(d, "%s", buf_z(&error));
        struct buf ca = BUF_INIT;
        if (ok && o->offline && !internet_ca(n->state_dir, &ca, d))
                ok = false;
        if (ok && rootfs_base_make(&n->base, base, n->binary, buf_view(&ca), &error) < 0)
                ok = fail(d, "%s", buf_z(&error));
        buf_fini(&ca);
        buf_fini(&error);
        free(ipam);
        free(base);
        return ok;
}

static bool node_start(struct node *n, const struct node_opts *o, struct diags *d)
{
        struct buf error = BUF_INIT;
        char ip[ADDR_TEXT_MAX];
        bool ok = network_init(&n->net, n->name, n->run_dir, or_default(o->pod_cidr, STR("10.244.0.0/16")),
                               or_default(o->service_cidr, STR("10.96.0.0/16")), o->offline, &error);

        if (ok) {
                addr_ip_text(&n->net.gateway, ip);
                n->host_ip = str_of(mem_strdup(ip));
                ok = rootfs_mkdirs(n->run_dir, 0755) == 0 && network_up(&n->net, &error) == 0;
        }
        if (!ok)
                fail(d, "%s", error.n ? buf_z(&error) : "the node's folders cannot be made");
        buf_fini(&error);
        if (!ok || !node_files(n, o, d))
                return false;
        n->no_cgroup = !cgroup_usable(n->name);
        n->dns = dns_server_new(n, d);
        if (!n->dns)
                return false;
        if (o->offline && !(n->internet = internet_start(n, d)))
                return false;
        n->kubelet = kubelet_new(n, d);
        if (!n->kubelet)
                return false;
        n->client = kube_client_new(n->loop, &o->api, d);
        if (!n->client || !node_watch(n))
                return n->client ? fail(d, "the API server cannot be watched") : false;
        node_register(n);
        return true;
}

struct node *node_new(struct loop *l, const struct node_opts *o, struct diags *d)
{
        struct node *n = MEM_NEW(struct node);
        struct sysinfo info;

        n->loop = l;
        n->name = str_dup(o->name);
        n->node_name = text_or(o->node_name, "%s-control-plane", n->name);
        n->run_dir = text_or(o->run_dir, "/run/postern/%s", n->name);
        n->state_dir = text_or(o->state_dir, "/var/lib/postern/%s", n->name);
        n->domain = text_or(o->cluster_domain, "%s", "cluster.local");
        n->binary = str_dup(o->binary);
        n->runtime_root = mem_printf("%s/runc", n->run_dir);
        n->on_ready = o->on_ready;
        n->on_ready_arg = o->arg;
        n->started_us = clock_real_us();
        n->cpu_milli = sysconf(_SC_NPROCESSORS_ONLN) * 1000l;
        n->memory_bytes = sysinfo(&info) == 0 ? (int64_t)info.totalram * info.mem_unit : 0;
        n->services_task = (struct loop_task){ .fn = on_services_task, .arg = n };
        n->services_timer = (struct loop_timer){ .fn = on_services_retry, .arg = n };
        n->heartbeat = (struct loop_timer){ .fn = on_heartbeat, .arg = n };
        n->adopt = (struct loop_timer){ .fn = on_adopted, .arg = n };
        if (!node_start(n, o, d)) {
                node_free(n);
                return NULL;
        }
        return n;
}

void node_free(struct node *n)
{
        struct kube_informer *informers[] = { n->pods, n->services, n->slices, n->configmaps, n->secrets };

        n->closing = true;
        for (size_t i = 0; i < ARRAY_LEN(informers); i++)
                if (informers[i])
                        kube_informer_free(informers[i]);
        kubelet_free(n->kubelet);
        dns_server_free(n->dns);
        internet_free(n->internet);
        STRMAP_EACH (&n->by_uid, e)
                pod_free(e->value);
        strmap_fini(&n->by_uid);
        loop_timer_stop(n->loop, &n->services_timer);
        loop_timer_stop(n->loop, &n->heartbeat);
        loop_timer_stop(n->loop, &n->adopt);
        loop_undefer(n->loop, &n->services_task);
        if (n->client)
                kube_client_free(n->client);
        rootfs_base_free(&n->base);
        if (n->ipam.path)
                ipam_fini(&n->ipam);
        network_fini(&n->net);
        char *all[] = { n->name, n->node_name, n->run_dir, n->state_dir, n->domain, n->binary, n->runtime_root, (char *)n->host_ip.p };
        for (size_t i = 0; i < ARRAY_LEN(all); i++)
                free(all[i]);
        free(n);
}
