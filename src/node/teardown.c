/* Taking a cluster's node down by what is there, not by what anybody remembers: processes by namespace and control group, mounts by the
 * mount table, namespaces by their names, folders by their paths. The order is: processes (they hold everything else), mounts, network,
 * groups, folders. */
#include "base/log.h"
#include "base/mem.h"
#include "node/cgroup.h"
#include "node/leftover.h"
#include "node/network.h"
#include "node/node.h"
#include "node/rootfs.h"
#include "node/shim.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <unistd.h>

enum { TEARDOWN_SHIMS_MS = 3000, TEARDOWN_POLL_MS = 10 };

static void kill_pods(const char *cluster)
{
        char *prefix = mem_printf("postern-%s.", cluster);
        DIR *d = opendir(NETNS_DIR);

        for (struct dirent *e; d && (e = readdir(d));)
                if (strncmp(e->d_name, prefix, strlen(prefix)) == 0)
                        leftover_kill_in_netns(e->d_name);
        if (d)
                closedir(d);
        free(prefix);
        cgroup_kill(cluster);
}

/* Calls fn for each run folder of a container; returns for how many it said true. */
static unsigned each_run(const char *run_dir, bool (*fn)(const char *dir))
{
        char *root = mem_printf("%s/ctr", run_dir);
        DIR *d = opendir(root);
        unsigned n = 0;

        for (struct dirent *e; d && (e = readdir(d));) {
                char *pod = mem_printf("%s/%s", root, e->d_name);
                DIR *runs = e->d_name[0] == '.' ? NULL : opendir(pod);
                for (struct dirent *r; runs && (r = readdir(runs));) {
                        char *run = mem_printf("%s/%s", pod, r->d_name);
                        n += r->d_name[0] != '.' && fn(run);
                        free(run);
                }
                if (runs)
                        closedir(runs);
                free(pod);
        }
        if (d)
                closedir(d);
        free(root);
        return n;
}

static bool run_kill(const char *dir)
{
        return shim_alive(dir) && shim_kill(dir, SIGKILL) == 0;
}

/* Shims end by themselves once their container has; they are waited for, because they write into the folders that go next. One that was
 * just starting its container has to be told again. */
static void stop_pods(const char *cluster, const char *run_dir)
{
        for (int waited = 0;; waited += TEARDOWN_POLL_MS) {
                each_run(run_dir, run_kill);
                kill_pods(cluster);
                if (!each_run(run_dir, shim_alive) || waited >= TEARDOWN_SHIMS_MS)
                        return;
                poll(NULL, 0, TEARDOWN_POLL_MS);
        }
}

/* Undoes the octal escapes of /proc/self/mountinfo, in place. */
static void unescape(char *s)
{
        char *out = s;

        for (; *s; s++, out++) {
                if (s[0] == '\\' && s[1] && s[2] && s[3]) {
                        *out = (char)((unsigned)(s[1] - '0') << 6 | (unsigned)(s[2] - '0') << 3 | (unsigned)(s[3] - '0'));
                        s += 3;
                } else {
                        *out = *s;
                }
        }
        *out = 0;
}

static void unmount_below(const char *dir)
{
        struct buf b = BUF_INIT;
        struct str text, line, field;
        char **v = NULL;
        size_t n = 0, cap = 0, len = strlen(dir);

        buf_read_file(&b, "/proc/self/mountinfo", 16 << 20);
        for (text = buf_view(&b); text.n && str_next(&text, '\n', &line);) {
                for (int i = 0; i < 5; i++)
                        if (!str_next(&line, ' ', &field))
                                field = STR("");
                char *path = str_dup(field);
                unescape(path);
                if (strncmp(path, dir, len) == 0 && path[len] == '/')
                        VEC_PUSH(v, n, cap) = path;
                else
                        free(path);
        }
        while (n-- > 0) { /* the last mounted first */
                umount2(v[n], MNT_DETACH | UMOUNT_NOFOLLOW);
                free(v[n]);
        }
        free(v);
        buf_fini(&b);
}

static bool remove_folders(const char *run_dir, const char *state_dir, struct diags *d)
{
        static const char *const run[] = { "ctr", "runc", "volumes", "addresses", "internet.sock", "node.sock" };
        static const char *const state[] = { "pods", "logs", "base", "internet" };
        bool ok = true;

        for (size_t i = 0; i < ARRAY_LEN(run) + ARRAY_LEN(state); i++) {
                bool is_run = i < ARRAY_LEN(run);
                char *path = mem_printf("%s/%s", is_run ? run_dir : state_dir, is_run ? run[i] : state[i - ARRAY_LEN(run)]);
                int err = rootfs_remove(path);
                if (err) {
                        diag_add(d, DIAG_ERROR, NULL, NULL, "%s cannot be removed: %s", path, strerror(-err));
                        ok = false;
                }
                free(path);
        }
        rmdir(run_dir); /* when nobody else has anything in them */
        rmdir(state_dir);
        return ok;
}

bool node_teardown(struct str name, struct diags *d)
{
        char *cluster = str_dup(name), *run_dir = mem_printf("/run/postern/%s", cluster),
             *state_dir = mem_printf("/var/lib/postern/%s", cluster);
        bool ok = true;

        stop_pods(cluster, run_dir);
        unmount_below(run_dir);
        unmount_below(state_dir);
        network_down(cluster, run_dir);
        if (!cgroup_remove(cluster)) {
                diag_add(d, DIAG_ERROR, NULL, NULL, "control groups of cluster %s cannot be removed: a process is left in them", cluster);
                ok = false;
        }
        ok = remove_folders(run_dir, state_dir, d) && ok;
        free(cluster);
        free(run_dir);
        free(state_dir);
        return ok;
}
