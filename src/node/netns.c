/* A namespace is made by a thread that lives for nothing else: it unshares, mounts its own /proc/thread-self/ns/net on the file, and
 * ends. The caller's thread never leaves its own namespace. */
#include "node/netns.h"
#include "node/netlink.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/vfs.h>
#include <unistd.h>

void netns_path(const char *name, char out[NETNS_PATH_MAX])
{
        snprintf(out, NETNS_PATH_MAX, NETNS_DIR "/%s", name);
}

bool netns_exists(const char *name)
{
        char path[NETNS_PATH_MAX];
        struct statfs fs;

        netns_path(name, path);
        return statfs(path, &fs) == 0 && fs.f_type == NSFS_MAGIC;
}

struct creation {
        const char *path;
        int err;
};

static void *creation_thread(void *arg)
{
        struct creation *c = arg;
        struct nl nl;

        if (unshare(CLONE_NEWNET) < 0) {
                c->err = -errno;
                return NULL;
        }
        c->err = nl_open(&nl);
        if (c->err)
                return NULL;
        c->err = nl_link_up(&nl, "lo");
        nl_close(&nl);
        if (!c->err && mount("/proc/thread-self/ns/net", c->path, NULL, MS_BIND, NULL) < 0)
                c->err = -errno;
        return NULL;
}

int netns_create(const char *name)
{
        char path[NETNS_PATH_MAX];
        struct creation c = { .path = path };
        pthread_t thread;

        netns_path(name, path);
        if (netns_exists(name))
                return 0;
        if (mkdir(NETNS_DIR, 0755) < 0 && errno != EEXIST)
                return -errno;
        int fd = open(path, O_RDONLY | O_CREAT | O_CLOEXEC, 0444);
        if (fd < 0)
                return -errno;
        close(fd);
        int err = pthread_create(&thread, NULL, creation_thread, &c);
        if (err)
                c.err = -err;
        else
                pthread_join(thread, NULL);
        if (c.err)
                unlink(path);
        return c.err ? c.err : 1;
}

int netns_delete(const char *name)
{
        char path[NETNS_PATH_MAX];

        netns_path(name, path);
        while (umount2(path, MNT_DETACH) == 0)
                ;
        return unlink(path) < 0 && errno != ENOENT ? -errno : 0;
}

int netns_run(const char *name, int (*fn)(void *arg), void *arg)
{
        char path[NETNS_PATH_MAX];

        netns_path(name, path);
        return sock_in_netns(path, fn, arg);
}

int netns_sysctl(const char *key, const char *value)
{
        char path[256];

        snprintf(path, sizeof(path), "/proc/sys/net/%s", key);
        int fd = open(path, O_WRONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        int err = write(fd, value, strlen(value)) < 0 ? -errno : 0;
        close(fd);
        return err;
}

int netns_sysctl_get(const char *key, char *out, size_t cap)
{
        char path[256];

        snprintf(path, sizeof(path), "/proc/sys/net/%s", key);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        ssize_t n = read(fd, out, cap - 1);
        int err = n < 0 ? -errno : 0;
        close(fd);
        while (n > 0 && (out[n - 1] == '\n' || out[n - 1] == ' '))
                n--;
        out[n > 0 ? n : 0] = 0;
        return err;
}
