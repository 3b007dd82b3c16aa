/* The order is what matters: new folder, its files, the swap of ..data, then links for names that are new, then removal of links whose
 * names are gone and of the old folder. A reader that holds a path through ..data sees either the old or the new content of every file. */
#include "node/payload.h"
#include "base/clock.h"
#include "base/hash.h"
#include "base/mem.h"
#include "node/rootfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PAYLOAD_PATH_MAX = 1024 };

void payload_init(struct payload *p)
{
        memset(p, 0, sizeof(*p));
        arena_init(&p->arena, 4096);
}

void payload_fini(struct payload *p)
{
        free(p->v);
        arena_fini(&p->arena);
}

static bool path_good(struct str path)
{
        struct str rest = path, part;

        if (!path.n || path.n > PAYLOAD_PATH_MAX || path.p[0] == '/' || str_starts(path, STR("..")) || memchr(path.p, 0, path.n))
                return false;
        while (str_next(&rest, '/', &part))
                if (!part.n || str_eqc(part, ".") || str_eqc(part, "..") || part.n > 255)
                        return false;
        return true;
}

bool payload_add(struct payload *p, struct str path, struct str data, unsigned mode)
{
        struct payload_file *f = NULL;

        if (!path_good(path))
                return false;
        for (size_t i = 0; i < p->n && !f; i++)
                if (str_eq(p->v[i].path, path))
                        f = &p->v[i];
        if (!f)
                f = &VEC_PUSH(p->v, p->n, p->cap);
        *f = (struct payload_file){ arena_str(&p->arena, path), arena_str(&p->arena, data), mode };
        return true;
}

uint64_t payload_hash(const struct payload *p)
{
        uint64_t h = p->n;

        for (size_t i = 0; i < p->n; i++) {
                h = hash_bytes(p->v[i].path.p, p->v[i].path.n, h);
                h = hash_bytes(p->v[i].data.p, p->v[i].data.n, h ^ p->v[i].mode);
        }
        return h;
}

static int write_file(int dir, const struct payload_file *f, int64_t gid)
{
        char path[PAYLOAD_PATH_MAX + 1];
        int err = 0;

        snprintf(path, sizeof(path), STR_FMT, STR_ARG(f->path));
        for (char *p = strchr(path, '/'); p; p = strchr(p + 1, '/')) {
                *p = 0;
                if (mkdirat(dir, path, 0755) < 0 && errno != EEXIST)
                        return -errno;
                *p = '/';
        }
        int fd = openat(dir, path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        if (fd < 0)
                return -errno;
        if (write(fd, f->data.p, f->data.n) != (ssize_t)f->data.n)
                err = errno ? -errno : -ENOSPC;
        if (!err && gid >= 0 && fchown(fd, (uid_t)-1, (gid_t)gid) < 0)
                err = -errno;
        if (!err && fchmod(fd, (f->mode & 0777) | (gid >= 0 ? 0040 : 0)) < 0)
                err = -errno;
        close(fd);
        return err;
}

/* The first part of each path gets a link; two files in one folder share it. */
static struct str first_part(struct str path)
{
        struct str part;

        str_next(&path, '/', &part);
        return part;
}

static int link_names(const struct payload *p, int dir)
{
        for (size_t i = 0; i < p->n; i++) {
                char name[256], target[280];
                snprintf(name, sizeof(name), STR_FMT, STR_ARG(first_part(p->v[i].path)));
                snprintf(target, sizeof(target), "..data/%s", name);
                if (symlinkat(target, dir, name) < 0 && errno != EEXIST)
                        return -errno;
        }
        return 0;
}

static void remove_stale(const struct payload *p, const char *path, int dir, const char *keep)
{
        DIR *d = opendir(path);

        for (struct dirent *e; d && (e = readdir(d));) {
                bool wanted = strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0 || strcmp(e->d_name, "..data") == 0 ||
                              strcmp(e->d_name, keep) == 0;
                for (size_t i = 0; i < p->n && !wanted; i++)
                        wanted = str_eqc(first_part(p->v[i].path), e->d_name);
                if (wanted)
                        continue;
                if (strncmp(e->d_name, "..", 2) == 0) {
                        char *old = mem_printf("%s/%s", path, e->d_name);
                        rootfs_remove(old);
                        free(old);
                } else {
                        unlinkat(dir, e->d_name, 0);
                }
        }
        if (d)
                closedir(d);
}

int payload_write(const struct payload *p, const char *path, int64_t gid)
{
        char name[64];
        int dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC), sub = -1, err = 0;

        if (dir < 0)
                return -errno;
        snprintf(name, sizeof(name), "..%llu.%08x", (unsigned long long)clock_real_us(), (unsigned)rand_u64());
        if (mkdirat(dir, name, 0755) < 0 || (sub = openat(dir, name, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0)
                err = -errno;
        for (size_t i = 0; i < p->n && !err; i++)
                err = write_file(sub, &p->v[i], gid);
        if (!err) {
                unlinkat(dir, "..data_new", 0);
                if (symlinkat(name, dir, "..data_new") < 0 || renameat(dir, "..data_new", dir, "..data") < 0)
                        err = -errno;
        }
        if (!err)
                err = link_names(p, dir);
        if (!err) {
                remove_stale(p, path, dir, name);
        } else if (sub >= 0) {
                char *half = mem_printf("%s/%s", path, name);
                rootfs_remove(half);
                free(half);
        }
        if (sub >= 0)
                close(sub);
        close(dir);
        return err;
}
