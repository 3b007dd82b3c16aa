/* Both layouts are walked the same way: with version 2 there is one tree at /sys/fs/cgroup, with version 1 one a controller below it. */
#include "node/cgroup.h"
#include "base/buf.h"
#include "base/log.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <linux/magic.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

#define CGROUP_ROOT "/sys/fs/cgroup"

enum { CGROUP_DEPTH_MAX = 8 };

/* Calls fn with the path of /postern/CLUSTER in each hierarchy in which it is. */
static void each_hierarchy(const char *cluster, void (*fn)(const char *path, void *arg), void *arg)
{
        DIR *d = opendir(CGROUP_ROOT);
        char *path = mem_printf(CGROUP_ROOT "/postern/%s", cluster);

        if (access(path, F_OK) == 0)
                fn(path, arg);
        free(path);
        for (struct dirent *e; d && (e = readdir(d));) {
                if (e->d_name[0] == '.' || strcmp(e->d_name, "postern") == 0)
                        continue;
                path = mem_printf(CGROUP_ROOT "/%s/postern/%s", e->d_name, cluster);
                if (access(path, F_OK) == 0)
                        fn(path, arg);
                free(path);
        }
        if (d)
                closedir(d);
}

static void each_child(const char *path, void (*fn)(const char *path, void *arg, int depth), void *arg, int depth)
{
        DIR *d = depth < CGROUP_DEPTH_MAX ? opendir(path) : NULL;

        for (struct dirent *e; d && (e = readdir(d));) {
                if (e->d_name[0] == '.' || e->d_type != DT_DIR)
                        continue;
                char *child = mem_printf("%s/%s", path, e->d_name);
                fn(child, arg, depth + 1);
                free(child);
        }
        if (d)
                closedir(d);
}

bool cgroup_usable(const char *cluster)
{
        struct statfs fs;
        bool v2 = statfs(CGROUP_ROOT, &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
        char *top = mem_strdup(v2 ? CGROUP_ROOT "/postern" : CGROUP_ROOT "/memory/postern"), *path = mem_printf("%s/%s", top, cluster);
        bool ok = (mkdir(top, 0755) == 0 || errno == EEXIST) && (mkdir(path, 0755) == 0 || errno == EEXIST);

        if (!ok)
                LOG(LOG_WARN, "node", "%s: %s: control groups cannot be used here, so limits of memory and processors are not kept", path,
                    strerror(errno));
        free(top);
        free(path);
        return ok;
}

static void kill_group(const char *path, void *arg, int depth)
{
        char *file = mem_printf("%s/cgroup.procs", path);
        FILE *f = fopen(file, "re");
        unsigned *found = arg;
        int pid;

        each_child(path, kill_group, arg, depth);
        while (f && fscanf(f, "%d", &pid) == 1)
                if (pid > 1 && kill(pid, SIGKILL) == 0)
                        ++*found;
        if (f)
                fclose(f);
        free(file);
}

static void kill_tree(const char *path, void *arg)
{
        kill_group(path, arg, 0);
}

unsigned cgroup_kill(const char *cluster)
{
        unsigned found = 0;

        each_hierarchy(cluster, kill_tree, &found);
        return found;
}

static void remove_group(const char *path, void *arg, int depth)
{
        bool *ok = arg;

        each_child(path, remove_group, arg, depth);
        if (rmdir(path) < 0 && errno != ENOENT)
                *ok = false;
}

static void remove_tree(const char *path, void *arg)
{
        char *parent = mem_strdup(path);

        remove_group(path, arg, 0);
        *strrchr(parent, '/') = 0;
        rmdir(parent); /* /postern itself goes with the last cluster */
        free(parent);
}

bool cgroup_remove(const char *cluster)
{
        bool ok = true;

        each_hierarchy(cluster, remove_tree, &ok);
        return ok;
}
