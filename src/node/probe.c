/* Probes: HTTP and TCP from the node's namespace to the pod's address, commands inside the container.
 *
 * One thing is quicker than elsewhere: until its first success a startup or readiness probe over HTTP or TCP is also tried between its
 * periods, every few milliseconds at first. Only tries at the period count as failures, so thresholds mean what they say; but a proxy that
 * is up in 20 ms is not waited for a second. */
#include "base/mem.h"
#include "http/simple.h"
#include "node/pod.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { EAGER_FIRST_MS = 10, EAGER_MAX_MS = 200, EAGER_TRIES = 100 };

static const char *const use_names[] = { "Startup", "Readiness", "Liveness" };
static const char *const use_fields[] = { "startupProbe", "readinessProbe", "livenessProbe" };

static const struct pb_node *probe_spec(const struct probe *p)
{
        return pb_get(ctr_spec(p->ctr), use_fields[p->use]);
}

static struct loop *probe_loop(const struct probe *p)
{
        return p->ctr->pod->node->loop;
}

static unsigned period_ms(const struct pb_node *spec)
{
        int64_t s = spec_int(spec, "periodSeconds", 10);

        return (unsigned)(s < 1 ? 1 : s > 86400 ? 86400 : s) * 1000;
}

static unsigned timeout_ms(const struct pb_node *spec)
{
        int64_t s = spec_int(spec, "timeoutSeconds", 1);

        return (unsigned)(s < 1 ? 1 : s > 3600 ? 3600 : s) * 1000;
}

static bool probe_eager(const struct probe *p)
{
        return p->use != PROBE_LIVENESS && !p->passed && !pb_get(probe_spec(p), "exec") && p->tries < EAGER_TRIES;
}

static void probe_next(struct probe *p)
{
        unsigned period = period_ms(probe_spec(p)), eager = EAGER_FIRST_MS << (p->tries < 5 ? p->tries : 5);

        if (eager > EAGER_MAX_MS)
                eager = EAGER_MAX_MS;
        loop_timer_arm(probe_loop(p), &p->timer, probe_eager(p) && eager < period ? eager : period);
}

/* ---- what an answer means ---- */

static void startup_passed(struct ctr *c)
{
        c->started = true;
        c->ready = !pb_get(ctr_spec(c), "readinessProbe");
        probe_start(c, PROBE_READINESS);
        probe_start(c, PROBE_LIVENESS);
}

static void probe_success(struct probe *p)
{
        struct ctr *c = p->ctr;

        p->failures = 0;
        p->successes++;
        if (p->successes < (unsigned)spec_int(probe_spec(p), "successThreshold", 1))
                return;
        bool news = !p->passed;
        p->passed = true;
        if (p->use == PROBE_STARTUP) {
                probe_stop(c, PROBE_STARTUP);
                startup_passed(c);
        } else if (p->use == PROBE_READINESS) {
                news = !c->ready;
                c->ready = true;
        }
        if (news) {
                status_touch(c->pod);
                pod_touch(c->pod);
        }
}

static void probe_failure(struct probe *p, struct str why)
{
        struct ctr *c = p->ctr;
        const struct pb_node *spec = probe_spec(p);

        p->successes = 0;
        p->failures++;
        event_pod(c->pod, c, true, "Unhealthy", "%s probe failed: " STR_FMT, use_names[p->use], STR_ARG(str_sub(why, 0, 512)));
        if (p->failures < (unsigned)spec_int(spec, "failureThreshold", 3))
                return;
        if (p->use == PROBE_READINESS) {
                if (c->ready) {
                        c->ready = false;
                        status_touch(c->pod);
                        pod_touch(c->pod);
                }
                return;
        }
        int64_t grace = spec_int(spec, "terminationGracePeriodSeconds",
                                 spec_int(c->pod->obj->node, "spec.terminationGracePeriodSeconds", 30));
        event_pod(c->pod, c, false, "Killing", "Container %s failed %s probe, will be restarted", c->name,
                  p->use == PROBE_STARTUP ? "startup" : "liveness");
        ctr_stop(c, "Unhealthy", (uint64_t)(grace < 0 ? 0 : grace) * 1000);
}

static void probe_answer(struct probe *p, bool ok, struct str why)
{
        bool counts = ok || !probe_eager(p);

        p->fetch = NULL;
        p->exec = NULL;
        p->tries++;
        if (p->running)
                probe_next(p); /* before the verdict, which may stop us */
        if (ok)
                probe_success(p);
        else if (counts)
                probe_failure(p, why);
}

/* ---- HTTP ---- */

static void on_fetch(void *arg, const struct http_head *m, struct str body, const char *error)
{
        char text[64];

        (void)body;
        if (m)
                snprintf(text, sizeof(text), "HTTP probe failed with statuscode: %d", m->status);
        probe_answer(arg, m && m->status >= 200 && m->status < 400, str_of(m ? text : error));
}

/* A port by number or by the name of one of the container's ports; 0: neither. */
static uint16_t probe_port(const struct probe *p, const struct pb_node *from)
{
        struct str text = spec_str(from, "port");
        const struct pb_node *ports = spec_list(ctr_spec(p->ctr), "ports");
        uint64_t port;

        if (str_u64(text, &port))
                return port >= 1 && port <= 65535 ? (uint16_t)port : 0;
        for (size_t i = 0; i < ports->n; i++)
                if (str_eq(spec_str(ports->v[i], "name"), text))
                        return (uint16_t)spec_int(ports->v[i], "containerPort", 0);
        return 0;
}

static bool probe_target(const struct probe *p, const struct pb_node *from, struct addr *to)
{
        struct str host = spec_str(from, "host");
        uint16_t port = probe_port(p, from);

        *to = p->ctr->pod->ip;
        if (host.n && !addr_parse_ip(to, host, 0))
                return false;
        addr_set_port(to, port);
        return port != 0;
}

enum { PROBE_HEADERS_MAX = 32 };

struct fetch_job {
        struct probe *p;
        struct http_fetch_opts o;
};

static int fetch_start(void *arg)
{
        struct fetch_job *j = arg;

        j->p->fetch = http_fetch(probe_loop(j->p), &j->o, on_fetch, j->p);
        return j->p->fetch ? 0 : -EIO;
}

static bool probe_http(struct probe *p, const struct pb_node *get)
{
        struct http_hdr headers[PROBE_HEADERS_MAX] = {
                { .name = STR("user-agent"), .value = STR("kube-probe/1.32"), .id = (uint16_t)http_name_id(STR("user-agent")) }
        };
        const struct pb_node *more = spec_list(get, "httpHeaders");
        struct fetch_job j = {
                p, { .path = spec_str(get, "path"), .headers = headers, .nheaders = 1, .timeout_ms = timeout_ms(probe_spec(p)) }
        };
        char names[PROBE_HEADERS_MAX][128];
        struct tls_ctx *tls = NULL;
        struct addr to;

        if (!probe_target(p, get, &to))
                return false;
        for (size_t i = 0; i < more->n && j.o.nheaders < PROBE_HEADERS_MAX; i++) {
                struct str name = spec_str(more->v[i], "name");
                char *lower = names[j.o.nheaders];
                if (!name.n || name.n >= sizeof(names[0]))
                        continue;
                for (size_t k = 0; k < name.n; k++)
                        lower[k] = ascii_lower(name.p[k]);
                name.p = lower;
                if (str_eqc(name, "host"))
                        j.o.authority = spec_str(more->v[i], "value");
                else
                        headers[j.o.nheaders++] = (struct http_hdr){ .name = name,
                                                                     .value = spec_str(more->v[i], "value"),
                                                                     .id = (uint16_t)http_name_id(name) };
        }
        if (str_eqc(spec_str(get, "scheme"), "HTTPS")) {
                struct diags d;
                diags_init(&d);
                tls = tls_ctx_new(&(struct tls_ctx_opts){ 0 }, &d); /* as kubelets do, the certificate is not checked */
                diags_fini(&d);
                if (!tls)
                        return false;
        }
        j.o.to = &to;
        j.o.tls = tls;
        bool ok = netns_run(p->ctr->pod->node->net.netns, fetch_start, &j) == 0;
        tls_ctx_unref(tls);
        return ok;
}

/* ---- TCP ---- */

struct tcp_try {
        struct probe *p;
        struct loop_watch watch;
        struct loop_timer timer;
};

static void tcp_end(struct tcp_try *t, bool ok, const char *why)
{
        struct probe *p = t->p;
        int fd = t->watch.fd;

        loop_timer_stop(probe_loop(p), &t->timer);
        loop_unwatch(probe_loop(p), &t->watch);
        close(fd);
        p->tcp = NULL;
        free(t);
        if (why)
                probe_answer(p, ok, str_of(why));
}

static void on_tcp(struct loop_watch *w, unsigned ready)
{
        struct tcp_try *t = w->arg;
        int err = sock_error(w->fd);
        char why[128], to[ADDR_TEXT_MAX];
        struct addr peer;

        (void)ready;
        if (sock_peer(w->fd, &peer))
                addr_text(&peer, to);
        else
                addr_ip_text(&t->p->ctr->pod->ip, to);
        snprintf(why, sizeof(why), "dial tcp %.60s: connect: %s", to, strerror(err));
        tcp_end(t, err == 0, why);
}

static void on_tcp_timeout(struct loop_timer *timer)
{
        tcp_end(timer->arg, false, "dial tcp: i/o timeout");
}

static int tcp_connect(void *arg)
{
        return sock_connect(arg, NULL, 0);
}

static bool probe_tcp(struct probe *p, const struct pb_node *socket)
{
        struct addr to;

        if (!probe_target(p, socket, &to))
                return false;
        int fd = netns_run(p->ctr->pod->node->net.netns, tcp_connect, &to);
        if (fd < 0) {
                probe_answer(p, false, str_of(strerror(-fd)));
                return true;
        }
        struct tcp_try *t = MEM_NEW(struct tcp_try);
        *t = (struct tcp_try){ .p = p, .watch = { .fd = -1 }, .timer = { .fn = on_tcp_timeout, .arg = t } };
        loop_watch(probe_loop(p), &t->watch, fd, LOOP_WRITE | LOOP_LEVEL, on_tcp, t);
        loop_timer_arm(probe_loop(p), &t->timer, timeout_ms(probe_spec(p)));
        p->tcp = t;
        return true;
}

/* ---- commands ---- */

static void on_exec(void *arg, int code, struct str output)
{
        probe_answer(arg, code == 0, code == -2 ? STR("command timed out") : output);
}

static bool probe_exec(struct probe *p, const struct pb_node *exec)
{
        const struct pb_node *command = spec_list(exec, "command");
        char **args = mem_calloc(command->n + 1, sizeof(*args));

        for (size_t i = 0; i < command->n; i++)
                args[i] = str_dup(command->v[i]->text);
        if (command->n)
                p->exec = exec_start(p->ctr, (const char *const *)args, command->n, timeout_ms(probe_spec(p)), on_exec, p);
        for (size_t i = 0; i < command->n; i++)
                free(args[i]);
        free(args);
        return p->exec != NULL;
}

/* ---- */

static void on_timer(struct loop_timer *t)
{
        struct probe *p = t->arg;
        const struct pb_node *spec = probe_spec(p), *get = pb_get(spec, "httpGet"), *tcp = pb_get(spec, "tcpSocket"),
                             *exec = pb_get(spec, "exec");
        bool ok = false;

        if (get)
                ok = probe_http(p, get);
        else if (tcp)
                ok = probe_tcp(p, tcp);
        else if (exec)
                ok = probe_exec(p, exec);
        if (!ok)
                probe_answer(p, false,
                             STR("the probe's target cannot be reached: its port names none of the container's ports, or its host is not "
                                 "an address"));
}

void probe_start(struct ctr *c, enum probe_use use)
{
        struct probe *p = &c->probe[use];
        const struct pb_node *spec = probe_spec(p);
        int64_t delay = spec_int(spec, "initialDelaySeconds", 0);

        if (!spec || p->running)
                return;
        *p = (struct probe){ .ctr = c, .use = use, .running = true, .timer = { .fn = on_timer, .arg = p } };
        loop_timer_arm(probe_loop(p), &p->timer, delay > 0 ? (uint64_t)delay * 1000 : EAGER_FIRST_MS);
}

void probe_stop(struct ctr *c, enum probe_use use)
{
        struct probe *p = &c->probe[use];

        if (!p->running)
                return;
        p->running = false;
        loop_timer_stop(probe_loop(p), &p->timer);
        if (p->fetch)
                http_fetch_cancel(p->fetch);
        if (p->exec)
                exec_cancel(p->exec);
        if (p->tcp)
                tcp_end(p->tcp, false, NULL);
        p->fetch = NULL;
        p->exec = NULL;
}
