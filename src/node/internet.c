/* The process is found again by a socket on which it listens and never answers: a connection to it ends when, and only when, the process
 * does. */
#include "node/internet.h"
#include "base/log.h"
#include "base/mem.h"
#include "net/tls.h"
#include "node/leftover.h"
#include "node/pod.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

enum { INTERNET_RESTART_MS = 500, INTERNET_TTL_S = 60, PEM_MAX = 1 << 16 };

static const struct {
        const char *name; /* "*.": any host below */
        const char *ip;
} hosts[] = {
        { "httpbin.org", "198.18.0.10" },     { "www.httpbin.org", "198.18.0.10" }, { "example.com", "198.18.0.20" },
        { "www.example.com", "198.18.0.21" }, { "*.example.com", "198.18.0.21" },   { "api.example.net", "198.18.0.30" },
};

struct internet {
        struct node *node;
        struct loop_watch alive;
        struct loop_child *child;
        struct loop_timer restart;
        char *dir, *socket;
};

void internet_lookup(struct str name, struct dns_found *found)
{
        for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
                struct str host = str_of(hosts[i].name);
                bool wild = host.p[0] == '*';
                struct addr ip;
                if (wild ? !str_ends(name, str_sub(host, 1, host.n)) || name.n < host.n : !str_eq(name, host))
                        continue;
                found->exists = true;
                found->ttl_s = INTERNET_TTL_S;
                if (addr_parse_ip(&ip, str_of(hosts[i].ip), 0))
                        dns_found_add(found, DNS_A, &ip, STR(""), 0);
                return;
        }
        /* "example.net" has a host below it, so the name itself is there, empty (RFC 8020). */
        found->exists = str_eqc(name, "org") || str_eqc(name, "com") || str_eqc(name, "net") || str_eqc(name, "example.net");
}

/* ---- certificates ---- */

static int write_secret(const char *path, const struct buf *b)
{
        return buf_write_file(b, path, 0600);
}

/* Makes STATE/internet/{ca,cert}.{pem,key} unless they are there. */
static bool certificates(const char *dir, struct diags *d)
{
        struct str names[ARRAY_LEN(hosts)];
        struct buf ca = BUF_INIT, ca_key = BUF_INIT, cert = BUF_INIT, key = BUF_INIT;
        char *paths[4] = { mem_printf("%s/ca.pem", dir), mem_printf("%s/ca.key", dir), mem_printf("%s/cert.pem", dir),
                           mem_printf("%s/cert.key", dir) };
        struct tls_cert_req root = { .cn = STR("Postern offline Internet CA (only pods trust it)"), .ca = true, .days = 365 };
        struct tls_cert_req leaf = { .cn = STR("httpbin.org"), .dns = names, .ndns = ARRAY_LEN(hosts), .server = true, .days = 365 };
        const struct buf *contents[4] = { &ca, &ca_key, &cert, &key };
        bool ok = true;

        for (size_t i = 0; i < ARRAY_LEN(hosts); i++)
                names[i] = str_of(hosts[i].name);
        if (access(paths[3], F_OK) < 0) {
                int err = rootfs_mkdirs(dir, 0700);
                ok = err == 0 && tls_cert_make(&root, STR(""), STR(""), &ca, &ca_key, d) == 0 &&
                     tls_cert_make(&leaf, buf_view(&ca), buf_view(&ca_key), &cert, &key, d) == 0;
                for (int i = 0; i < 4 && ok; i++)
                        if ((err = write_secret(paths[i], contents[i])) < 0)
                                ok = false;
                if (!ok)
                        diag_add(d, DIAG_ERROR, NULL, NULL, "%s: the offline Internet's certificates cannot be made: %s", dir,
                                 strerror(-err));
        }
        for (int i = 0; i < 4; i++)
                free(paths[i]);
        buf_fini(&ca);
        buf_fini(&ca_key);
        buf_fini(&cert);
        buf_fini(&key);
        return ok;
}

bool internet_ca(const char *state_dir, struct buf *ca_pem, struct diags *d)
{
        char *dir = mem_printf("%s/internet", state_dir), *path = mem_printf("%s/ca.pem", dir);
        bool ok = certificates(dir, d);

        if (ok && buf_read_file(ca_pem, path, PEM_MAX) < 0) {
                diag_add(d, DIAG_ERROR, NULL, NULL, "%s cannot be read", path);
                ok = false;
        }
        free(dir);
        free(path);
        return ok;
}

/* ---- the process ---- */

static void on_alive(struct loop_watch *w, unsigned ready)
{
        struct internet *i = w->arg;
        int fd = w->fd;

        (void)ready;
        loop_unwatch(i->node->loop, w);
        close(fd);
        LOG(LOG_WARN, "node", "the offline Internet ended; starting it again");
        loop_timer_arm(i->node->loop, &i->restart, INTERNET_RESTART_MS);
}

static void on_child(void *arg, pid_t pid, int status)
{
        struct internet *i = arg;

        (void)pid;
        (void)status;
        i->child = NULL; /* on_alive() sees it too */
}

static bool unix_address(const char *path, struct addr *a)
{
        return addr_unix(a, str_of(path));
}

static bool internet_connect(struct internet *i)
{
        struct addr a;
        int fd;

        if (!unix_address(i->socket, &a))
                return false;
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
        if (fd < 0 || connect(fd, &a.sa, a.len) < 0 || loop_watch(i->node->loop, &i->alive, fd, LOOP_READ | LOOP_LEVEL, on_alive, i) < 0) {
                if (fd >= 0)
                        close(fd);
                i->alive.fd = -1;
                return false;
        }
        return true;
}

static void child_exec(struct internet *i, int listen_fd)
{
        char ns[NETNS_PATH_MAX], *cert = mem_printf("%s/cert.pem", i->dir), *key = mem_printf("%s/cert.key", i->dir);
        char *log = mem_printf("%s/internet.log", i->dir), *binary = mem_printf("%s/bin/postern", i->node->base.dir), number[16];
        sigset_t none;

        netns_path(i->node->net.inet_netns, ns);
        int fd = open(ns, O_RDONLY | O_CLOEXEC), out = open(log, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600),
            null = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (fd < 0 || setns(fd, CLONE_NEWNET) < 0)
                _exit(126);
        setsid();
        dup2(null, 0);
        dup2(null, 1);
        dup2(out >= 0 ? out : null, 2);
        fcntl(listen_fd, F_SETFD, 0);
        snprintf(number, sizeof(number), "%d", listen_fd);
        sigemptyset(&none);
        sigprocmask(SIG_SETMASK, &none, NULL);
        execl(binary, "postern", "internet", "--cert", cert, "--key", key, "--alive-fd", number, (char *)NULL);
        _exit(127);
}

static bool internet_spawn(struct internet *i)
{
        struct sock_listen_opts o = { .backlog = 8, .unix_mode = 0600 };
        struct addr a;

        leftover_kill_in_netns(i->node->net.inet_netns); /* a web server without its supervisor would hold the ports */
        if (!unix_address(i->socket, &a))
                return false;
        unlink(i->socket);
        int lfd = sock_listen(&a, &o);
        if (lfd < 0) {
                LOG(LOG_ERROR, "node", "%s: %s", i->socket, strerror(-lfd));
                return false;
        }
        pid_t pid = fork();
        if (pid == 0)
                child_exec(i, lfd);
        bool ok = pid > 0 && internet_connect(i); /* while we still hold the listener: no race */
        close(lfd);
        if (pid > 0)
                i->child = loop_child_new(i->node->loop, pid, on_child, i);
        return ok;
}

static void on_restart(struct loop_timer *t)
{
        struct internet *i = t->arg;

        if (!internet_connect(i) && !internet_spawn(i))
                loop_timer_arm(i->node->loop, &i->restart, INTERNET_RESTART_MS);
}

static bool addresses(struct node *n, struct diags *d)
{
        for (size_t i = 0; i < ARRAY_LEN(hosts); i++) {
                struct addr ip;
                int err = addr_parse_ip(&ip, str_of(hosts[i].ip), 0) ? network_inet_address(&n->net, &ip) : -EINVAL;
                if (err) {
                        diag_add(d, DIAG_ERROR, NULL, NULL, "the offline Internet's address %s: %s", hosts[i].ip, strerror(-err));
                        return false;
                }
        }
        return true;
}

struct internet *internet_start(struct node *n, struct diags *d)
{
        struct internet *i = MEM_NEW(struct internet);

        *i = (struct internet){ .node = n, .alive = { .fd = -1 }, .restart = { .fn = on_restart, .arg = i } };
        i->dir = mem_printf("%s/internet", n->state_dir);
        i->socket = mem_printf("%s/internet.sock", n->run_dir);
        if (!addresses(n, d)) {
                internet_free(i);
                return NULL;
        }
        if (!internet_connect(i) && !internet_spawn(i)) {
                diag_add(d, DIAG_ERROR, NULL, NULL, "the offline Internet's process cannot be started");
                internet_free(i);
                return NULL;
        }
        return i;
}

void internet_free(struct internet *i)
{
        if (!i)
                return;
        loop_timer_stop(i->node->loop, &i->restart);
        if (i->child)
                loop_child_forget(i->child);
        if (i->alive.fd >= 0) {
                int fd = i->alive.fd;
                loop_unwatch(i->node->loop, &i->alive);
                close(fd);
        }
        free(i->dir);
        free(i->socket);
        free(i);
}
