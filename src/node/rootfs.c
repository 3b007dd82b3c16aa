/* Why not an overlay: the upper directory would have to lie on a file system that allows it, and every container would carry the
 * mount. A root of about forty entries costs half a millisecond to make and nothing to keep.
 *
 * The running binary is linked (or, across file systems, copied) into the base: a rebuild or upgrade on the host then replaces its name,
 * not the file that containers and shims run. */
#include "node/rootfs.h"
#include "base/mem.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

int rootfs_mkdirs(const char *dir, unsigned mode)
{
        char *path = mem_strdup(dir);
        int err = 0;

        for (char *p = path + 1; !err; p++) {
                if (*p && *p != '/')
                        continue;
                char keep = *p;
                *p = 0;
                if (mkdir(path, *p == keep ? mode : 0755) < 0 && errno != EEXIST)
                        err = -errno;
                *p = keep;
                if (!keep)
                        break;
        }
        free(path);
        return err;
}

/* ---- removal ---- */

enum { ROOTFS_DEPTH_MAX = 256 };

static int remove_at(int parent, const char *name, dev_t dev, int depth)
{
        struct stat st;

        if (fstatat(parent, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
                return errno == ENOENT ? 0 : -errno;
        if (!S_ISDIR(st.st_mode))
                return unlinkat(parent, name, 0) < 0 ? -errno : 0;
        if (st.st_dev != dev)
                return -EXDEV; /* something is mounted there: not ours to empty */
        if (depth >= ROOTFS_DEPTH_MAX)
                return -ELOOP;
        int fd = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (fd < 0)
                return -errno;
        DIR *d = fdopendir(fd);
        if (!d) {
                close(fd);
                return -ENOMEM;
        }
        int err = 0;
        for (struct dirent *e; (e = readdir(d));) {
                if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
                        continue;
                int one = remove_at(fd, e->d_name, dev, depth + 1);
                if (one)
                        err = one;
        }
        closedir(d);
        if (!err && unlinkat(parent, name, AT_REMOVEDIR) < 0)
                err = -errno;
        return err;
}

int rootfs_remove(const char *dir)
{
        struct stat st;

        if (lstat(dir, &st) < 0)
                return errno == ENOENT ? 0 : -errno;
        return remove_at(AT_FDCWD, dir, st.st_dev, 0);
}

/* ---- small files ---- */

static int put_file(int root, const char *name, struct str text, unsigned mode)
{
        int fd = openat(root, name, O_WRONLY | O_CREAT | O_TRUNC | O_NOFOLLOW | O_CLOEXEC, mode);

        if (fd < 0)
                return -errno;
        int err = 0;
        while (text.n && !err) {
                ssize_t n = write(fd, text.p, text.n);
                if (n < 0)
                        err = -errno;
                else
                        text = str_sub(text, (size_t)n, text.n);
        }
        if (fchmod(fd, mode) < 0 && !err)
                err = -errno;
        close(fd);
        return err;
}

/* Running containers have the file mounted: it is never seen half written, and not touched when it is right. */
static int replace_file(const char *path, const struct buf *b)
{
        struct buf old = BUF_INIT;
        bool same = buf_read_file(&old, path, 32 << 20) == 0 && str_eq(buf_view(&old), buf_view(b));

        buf_fini(&old);
        return same ? 0 : buf_write_file(b, path, 0644);
}

static int copy_file(const char *from, const char *to, unsigned mode)
{
        int in = open(from, O_RDONLY | O_CLOEXEC), err = 0;

        if (in < 0)
                return -errno;
        int out = open(to, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
        if (out < 0) {
                err = -errno;
                close(in);
                return err;
        }
        for (ssize_t n; (n = sendfile(out, in, NULL, 1 << 24)) != 0;)
                if (n < 0) {
                        err = -errno;
                        break;
                }
        close(in);
        if (close(out) < 0 && !err)
                err = -errno;
        return err;
}

/* ---- the base ---- */

static void base_mount(struct rootfs_base *b, const char *name, const char *to)
{
        struct oci_mount *m = &VEC_PUSH(b->mounts, b->nmounts, b->cap_mounts);

        *m = (struct oci_mount){ .to = mem_strdup(to), .from = mem_printf("%s/%s", b->dir, name), .read_only = true };
}

/* Debian's /usr/bin has links such as awk -> /etc/alternatives/awk -> /usr/bin/mawk. Only those that lead back into /usr are taken. */
static int base_alternatives(struct rootfs_base *b)
{
        char *dir = mem_printf("%s/alternatives", b->dir);
        int err = rootfs_mkdirs(dir, 0755);
        DIR *d = opendir("/etc/alternatives");

        for (struct dirent *e; !err && d && (e = readdir(d));) {
                char target[4096];
                ssize_t n = readlinkat(dirfd(d), e->d_name, target, sizeof(target) - 1);
                if (n <= 0)
                        continue;
                target[n] = 0;
                if (strncmp(target, "/usr/", 5) != 0 && strncmp(target, "/bin/", 5) != 0 && strncmp(target, "/sbin/", 6) != 0)
                        continue;
                char *link = mem_printf("%s/%s", dir, e->d_name);
                if (symlink(target, link) < 0 && errno != EEXIST)
                        err = -errno;
                free(link);
        }
        if (d)
                closedir(d);
        free(dir);
        if (!err)
                base_mount(b, "alternatives", "/etc/alternatives");
        return err;
}

static int base_binary(struct rootfs_base *b, const char *binary)
{
        char *dir = mem_printf("%s/bin", b->dir), *to = mem_printf("%s/postern", dir), *made = mem_printf("%s/postern.new", dir);
        int err = rootfs_mkdirs(dir, 0755);

        unlink(made);
        if (!err && linkat(AT_FDCWD, binary, AT_FDCWD, made, AT_SYMLINK_FOLLOW) < 0)
                err = copy_file(binary, made, 0755);
        if (!err && rename(made, to) < 0)
                err = -errno;
        unlink(made); /* rename(2) of two links to one file does nothing, and leaves both */
        if (!err)
                base_mount(b, "bin/postern", ROOTFS_POSTERN);
        free(dir);
        free(to);
        free(made);
        return err;
}

static int base_ca_bundle(struct rootfs_base *b, struct str extra)
{
        struct buf all = BUF_INIT;
        char *path = mem_printf("%s/ca-certificates.crt", b->dir);

        buf_read_file(&all, "/etc/ssl/certs/ca-certificates.crt", 16 << 20); /* a host without the package has none: neither have pods */
        buf_str(&all, extra);
        int err = replace_file(path, &all);
        buf_fini(&all);
        free(path);
        if (!err)
                base_mount(b, "ca-certificates.crt", "/etc/ssl/certs/ca-certificates.crt");
        return err;
}

int rootfs_base_make(struct rootfs_base *b, const char *dir, const char *binary, struct str extra_ca_pem, struct buf *error)
{
        *b = (struct rootfs_base){ .dir = mem_strdup(dir) };
        char *cache = mem_printf("%s/ld.so.cache", dir);
        struct buf linker = BUF_INIT;
        const char *what = dir;
        int err = rootfs_mkdirs(dir, 0755);

        if (!err) {
                what = "/etc/alternatives";
                err = base_alternatives(b);
        }
        if (!err) {
                what = binary;
                err = base_binary(b, binary);
        }
        if (!err) {
                what = "the CA bundle";
                err = base_ca_bundle(b, extra_ca_pem);
        }
        if (!err && buf_read_file(&linker, "/etc/ld.so.cache", 16 << 20) == 0 && replace_file(cache, &linker) == 0)
                base_mount(b, "ld.so.cache", "/etc/ld.so.cache");
        if (err)
                buf_printf(error, "preparing %s for pods: %s", what, strerror(-err));
        buf_fini(&linker);
        free(cache);
        return err;
}

void rootfs_base_free(struct rootfs_base *b)
{
        for (size_t i = 0; i < b->nmounts; i++) {
                free((char *)b->mounts[i].to);
                free((char *)b->mounts[i].from);
        }
        free(b->mounts);
        free(b->dir);
        memset(b, 0, sizeof(*b));
}

/* ---- a container's root ---- */

static const struct {
        const char *path;
        unsigned mode;
} root_dirs[] = {
        { "usr", 0755 },
        { "etc", 0755 },
        { "etc/ssl", 0755 },
        { "etc/ssl/certs", 0755 },
        { "etc/alternatives", 0755 },
        { "proc", 0555 },
        { "sys", 0555 },
        { "dev", 0755 },
        { "home", 0755 },
        { "root", 0700 },
        { "run", 0755 },
        { "run/lock", 01777 },
        { "tmp", 01777 },
        { "var", 0755 },
        { "var/tmp", 01777 },
        { "var/lib", 0755 },
        { "var/log", 0755 },
        { "var/cache", 0755 },
        { "var/spool", 0755 },
        { "opt", 0755 },
        { "opt/postern", 0755 },
        { "opt/postern/bin", 0755 },
        { "mnt", 0755 },
        { "srv", 0755 },
        { "home/app", 0777 },
};

static const char *const root_links[][2] = {
        { "usr/bin", "bin" },
        { "usr/sbin", "sbin" },
        { "usr/lib", "lib" },
        { "usr/lib64", "lib64" },
        { "usr/lib32", "lib32" },
        { "usr/libx32", "libx32" },
        { "/run", "var/run" },
        { "/proc/self/mounts", "etc/mtab" },
        { "/usr/share/zoneinfo/Etc/UTC", "etc/localtime" },
};

/* Files of the distribution without anything of this host in them. */
static const char *const root_copies[] = { "services", "protocols", "mime.types", "ssl/openssl.cnf", "debian_version" };

static void passwd_text(const struct rootfs_opts *o, struct buf *passwd, struct buf *group)
{
        buf_cstr(passwd, "root:x:0:0:root:/root:/bin/sh\n"
                         "nobody:x:65534:65534:nobody:/nonexistent:/usr/sbin/nologin\n"
                         "istio-proxy:x:1337:1337:istio-proxy:/home/app:/usr/sbin/nologin\n");
        buf_cstr(group, "root:x:0:\ntty:x:5:\nnogroup:x:65534:\nistio-proxy:x:1337:\n");
        if (o->uid != 0 && o->uid != 65534 && o->uid != 1337)
                buf_printf(passwd, "app:x:%u:%u:app:/home/app:/bin/sh\n", o->uid, o->gid);
        if (o->gid != 0 && o->gid != 5 && o->gid != 65534 && o->gid != 1337)
                buf_printf(group, "app:x:%u:\n", o->gid);
}

static int root_files(int root, const struct rootfs_opts *o)
{
        static const char nsswitch[] =
                "passwd: files\ngroup: files\nshadow: files\nhosts: files dns\nnetworks: files\nprotocols: files\nservices: files\n";
        struct buf passwd = BUF_INIT, group = BUF_INIT, hostname = BUF_INIT;
        int err = 0;

        passwd_text(o, &passwd, &group);
        buf_printf(&hostname, "%s\n", o->hostname);
        const struct {
                const char *name;
                struct str text;
        } files[] = {
                { "etc/passwd", buf_view(&passwd) },
                { "etc/group", buf_view(&group) },
                { "etc/hostname", buf_view(&hostname) },
                { "etc/hosts", o->hosts },
                { "etc/resolv.conf", o->resolv_conf },
                { "etc/nsswitch.conf", str_of(nsswitch) },
                { "etc/os-release", STR("NAME=\"Postern pod\"\nID=postern\nPRETTY_NAME=\"Postern pod (the host's /usr, read-only)\"\n") },
                { "etc/ld.so.cache", STR("") }, /* mount points */
                { "etc/ssl/certs/ca-certificates.crt", STR("") },
                { "opt/postern/bin/postern", STR("") },
        };
        for (size_t i = 0; i < ARRAY_LEN(files) && !err; i++)
                err = put_file(root, files[i].name, files[i].text, 0644);
        buf_fini(&passwd);
        buf_fini(&group);
        buf_fini(&hostname);
        return err;
}

static int root_copy(int root, const char *name)
{
        char from[128], to[128];
        struct buf b = BUF_INIT;

        snprintf(from, sizeof(from), "/etc/%s", name);
        snprintf(to, sizeof(to), "etc/%s", name);
        int err = buf_read_file(&b, from, 1 << 20) ? 0 : put_file(root, to, buf_view(&b), 0644); /* absent on the host: absent here */
        buf_fini(&b);
        return err;
}

int rootfs_make(const char *dir, const struct rootfs_opts *o, struct buf *error)
{
        int err = rootfs_mkdirs(dir, 0755), root = -1;

        if (!err) {
                root = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
                err = root < 0 ? -errno : 0;
        }
        for (size_t i = 0; i < ARRAY_LEN(root_dirs) && !err; i++)
                if (mkdirat(root, root_dirs[i].path, root_dirs[i].mode) < 0 || fchmodat(root, root_dirs[i].path, root_dirs[i].mode, 0) < 0)
                        err = -errno;
        for (size_t i = 0; i < ARRAY_LEN(root_links) && !err; i++)
                if (symlinkat(root_links[i][0], root, root_links[i][1]) < 0)
                        err = -errno;
        if (!err)
                err = root_files(root, o);
        for (size_t i = 0; i < ARRAY_LEN(root_copies) && !err; i++)
                err = root_copy(root, root_copies[i]);
        if (root >= 0)
                close(root);
        if (err)
                buf_printf(error, "making the container's root in %s: %s", dir, strerror(-err));
        return err;
}
