#include "cmd/cluster.h"

#include "base/mem.h"
#include "cmd/cmd.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define RUN_ROOT   "/run/postern"
#define STATE_ROOT "/var/lib/postern"

static bool good_name(struct str s)
{
        if (!s.n || s.n > CLUSTER_NAME_MAX || s.p[0] == '-' || s.p[s.n - 1] == '-')
                return false;
        for (size_t i = 0; i < s.n; i++)
                if (!((s.p[i] >= 'a' && s.p[i] <= 'z') || (s.p[i] >= '0' && s.p[i] <= '9') || s.p[i] == '-'))
                        return false;
        return true;
}

bool cluster_init(struct cluster *c, const char *name)
{
        struct str n = str_of(name);

        if (!good_name(n)) {
                cmd_error("\"%s\" cannot name a cluster: use at most %d lower-case letters, digits and '-', not at the ends", name,
                          CLUSTER_NAME_MAX);
                return false;
        }
        arena_init(&c->arena, 1024);
        struct arena *a = &c->arena;

        c->name = arena_str(a, n);
        c->context = arena_printf(a, "postern-%s", name);
        c->run_dir = arena_printf(a, RUN_ROOT "/%s", name);
        c->state_dir = arena_printf(a, STATE_ROOT "/%s", name);
        c->log_dir = arena_printf(a, STATE_ROOT "/%s/log", name);
        c->pki_dir = arena_printf(a, STATE_ROOT "/%s/pki", name);
        c->netns = arena_printf(a, "/run/netns/postern-%s", name);
        c->lock_file = arena_printf(a, RUN_ROOT "/%s/supervisor.lock", name);
        c->port_file = arena_printf(a, RUN_ROOT "/%s/apiserver.port", name);
        c->offline_file = arena_printf(a, STATE_ROOT "/%s/offline", name);
        return true;
}

void cluster_fini(struct cluster *c)
{
        arena_fini(&c->arena);
}

int cluster_lock(const struct cluster *c)
{
        int fd = open(c->lock_file.p, O_RDWR | O_CREAT | O_CLOEXEC, 0644);

        if (fd < 0)
                return -1;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0) {
                close(fd);
                return -1;
        }
        if (ftruncate(fd, 0) < 0 || dprintf(fd, "%d\n", (int)getpid()) < 0) {
                close(fd);
                return -1;
        }
        return fd;
}

pid_t cluster_supervisor(const struct cluster *c)
{
        int fd = open(c->lock_file.p, O_RDWR | O_CLOEXEC);
        char text[16] = "";
        pid_t pid = 0;

        if (fd < 0)
                return 0;
        if (flock(fd, LOCK_EX | LOCK_NB) < 0 && read(fd, text, sizeof(text) - 1) > 0)
                pid = (pid_t)atoi(text);
        close(fd);
        return pid;
}

bool cluster_exists(const struct cluster *c)
{
        return access(c->run_dir.p, F_OK) == 0 || access(c->state_dir.p, F_OK) == 0 || access(c->netns.p, F_OK) == 0;
}

int cluster_mkdirs(struct str path, unsigned mode)
{
        char *p = str_dup(path);
        int err = 0;

        for (char *s = p + 1; !err; s++) {
                if (*s && *s != '/')
                        continue;
                char was = *s;

                *s = '\0';
                if (mkdir(p, was ? 0755 : (mode_t)mode) < 0 && errno != EEXIST)
                        err = -errno;
                *s = was;
                if (!was)
                        break;
        }
        free(p);
        return err;
}

size_t cluster_list(struct arena *a, struct str **names)
{
        static const char *const roots[] = { RUN_ROOT, STATE_ROOT };
        struct str *v = NULL;
        size_t n = 0, cap = 0;

        for (size_t r = 0; r < ARRAY_LEN(roots); r++) {
                DIR *dir = opendir(roots[r]);
                struct dirent *e;

                while (dir && (e = readdir(dir))) {
                        bool known = false;

                        if (!good_name(str_of(e->d_name)))
                                continue;
                        for (size_t i = 0; i < n; i++)
                                known |= str_eqc(v[i], e->d_name);
                        if (!known)
                                VEC_PUSH(v, n, cap) = arena_str(a, str_of(e->d_name));
                }
                if (dir)
                        closedir(dir);
        }
        *names = arena_dup(a, v, n * sizeof(*v));
        free(v);
        return n;
}

bool cluster_need_root(void)
{
        if (geteuid() == 0)
                return true;
        cmd_error("needs root, because it makes network namespaces and runs containers: try sudo");
        return false;
}
