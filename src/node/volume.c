/* A volume's content is gathered as a payload first and written only when it differs from what is there; the hash of what was written lies
 * beside the folder, so that a node that starts again does not touch files that are right. */
#include "node/volume.h"
#include "base/mem.h"
#include "node/payload.h"
#include "node/quantity.h"
#include "node/rootfs.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

enum volume_kind { VOLUME_EMPTY_DIR, VOLUME_CONFIG_MAP, VOLUME_SECRET, VOLUME_DOWNWARD, VOLUME_PROJECTED, VOLUME_UNKNOWN };

static enum volume_kind kind_of(const struct pb_node *volume, struct str *name)
{
        static const char *const fields[] = { "emptyDir", "configMap", "secret", "downwardAPI", "projected" };

        *name = STR("a source");
        for (unsigned k = 0; k < ARRAY_LEN(fields); k++)
                if (pb_get(volume, fields[k])) {
                        *name = str_of(fields[k]);
                        return (enum volume_kind)k;
                }
        for (size_t i = 0; i < volume->n; i++)
                if (!str_eqc(volume->keys[i], "name"))
                        *name = volume->keys[i];
        return VOLUME_UNKNOWN;
}

static bool in_memory(const struct pb_node *volume, enum volume_kind k)
{
        return k == VOLUME_SECRET || k == VOLUME_PROJECTED ||
               (k == VOLUME_EMPTY_DIR && str_eqc(spec_str(volume, "emptyDir.medium"), "Memory"));
}

static char *volume_dir(const struct volume_ctx *x, const struct pb_node *volume, enum volume_kind k)
{
        return mem_printf("%s/" STR_FMT, in_memory(volume, k) ? x->memory_dir : x->disk_dir, STR_ARG(spec_str(volume, "name")));
}

static unsigned mode_of(const struct pb_node *item, const struct pb_node *source, unsigned otherwise)
{
        return (unsigned)spec_int(item, "mode", spec_int(source, "defaultMode", otherwise));
}

/* ---- gathering ---- */

struct gather {
        const struct volume_ctx *x;
        const struct pb_node *pod;
        struct payload out;
        unsigned default_mode;
        struct buf *error;
        bool waiting;
};

static bool put(struct gather *g, struct str path, struct str data, unsigned mode)
{
        if (payload_add(&g->out, path, data, mode))
                return true;
        buf_printf(g->error, "path \"" STR_FMT "\" must be relative and without \"..\"", STR_ARG(path));
        return false;
}

static bool data_bytes(const struct pb_node *object, bool secret, struct str key, struct buf *out)
{
        struct str v = spec_map_str(object, "data", key);

        if (v.p && secret)
                return spec_base64(v, out);
        if (v.p) {
                buf_str(out, v);
                return true;
        }
        v = spec_map_str(object, "binaryData", key);
        return v.p && spec_base64(v, out);
}

static bool gather_keys(struct gather *g, const struct pb_node *object, bool secret, const char *field, unsigned mode)
{
        const struct pb_node *m = pb_get(object, field);

        for (size_t i = 0; m && m->kind == PB_MAP && i < m->n; i++) {
                struct buf b = BUF_INIT;
                bool ok = data_bytes(object, secret, m->keys[i], &b) && put(g, m->keys[i], buf_view(&b), mode);
                buf_fini(&b);
                if (!ok)
                        return false;
        }
        return true;
}

/* A configMap or secret source, of a volume of its own (its name is in `name`/`secretName`) or of a projected one. */
static bool gather_object(struct gather *g, const struct pb_node *source, bool secret, struct str name)
{
        const char *kind = secret ? "Secret" : "ConfigMap", *lower = secret ? "secret" : "configmap";
        const struct pb_node *object = g->x->env->object(g->x->env->arg, kind, name), *items = spec_list(source, "items");
        bool optional = spec_bool(source, "optional", false);
        unsigned mode = mode_of(NULL, source, g->default_mode);

        if (!object) {
                if (!optional)
                        buf_printf(g->error, "%s \"" STR_FMT "\" not found", lower, STR_ARG(name));
                return optional;
        }
        if (!items->n)
                return gather_keys(g, object, secret, "data", mode) && (secret || gather_keys(g, object, secret, "binaryData", mode));
        for (size_t i = 0; i < items->n; i++) {
                struct str key = spec_str(items->v[i], "key");
                struct buf b = BUF_INIT;
                bool ok = data_bytes(object, secret, key, &b);
                if (!ok && !optional)
                        buf_printf(g->error, "%s \"" STR_FMT "\" has no key \"" STR_FMT "\"", lower, STR_ARG(name), STR_ARG(key));
                ok = ok ? put(g, spec_str(items->v[i], "path"), buf_view(&b), mode_of(items->v[i], NULL, mode)) : optional;
                buf_fini(&b);
                if (!ok)
                        return false;
        }
        return true;
}

static const struct pb_node *container_named(const struct pb_node *pod, struct str name)
{
        static const char *const lists[] = { "spec.containers", "spec.initContainers" };

        for (size_t i = 0; i < ARRAY_LEN(lists); i++) {
                const struct pb_node *l = spec_list(pod, lists[i]);
                for (size_t k = 0; k < l->n; k++)
                        if (str_eq(spec_str(l->v[k], "name"), name))
                                return l->v[k];
        }
        return NULL;
}

static bool gather_downward(struct gather *g, const struct pb_node *source)
{
        const struct pb_node *items = spec_list(source, "items");
        unsigned mode = mode_of(NULL, source, g->default_mode);

        for (size_t i = 0; i < items->n; i++) {
                const struct pb_node *field = pb_get(items->v[i], "fieldRef"), *resource = pb_get(items->v[i], "resourceFieldRef");
                struct str value, path = spec_str(items->v[i], "path");
                bool ok = false;
                if (field)
                        ok = spec_field(g->pod, g->x->env, spec_str(field, "fieldPath"), &g->out.arena, &value);
                else if (resource)
                        ok = spec_resource(container_named(g->pod, spec_str(resource, "containerName")), g->x->env,
                                           spec_str(resource, "resource"), spec_str(resource, "divisor"), &g->out.arena, &value);
                if (!ok) {
                        buf_printf(g->error, "item \"" STR_FMT "\" names no field that can be shown", STR_ARG(path));
                        return false;
                }
                if (!put(g, path, value, mode_of(items->v[i], NULL, mode)))
                        return false;
        }
        return true;
}

static bool gather_token(struct gather *g, const struct pb_node *source)
{
        struct str token;

        if (!g->x->token(g->x->arg, spec_str(source, "audience"), spec_int(source, "expirationSeconds", 3600), &token, g->error)) {
                g->waiting = g->error->n == 0;
                return false;
        }
        return put(g, spec_str(source, "path"), token, g->default_mode);
}

static bool gather_projected(struct gather *g, const struct pb_node *projected)
{
        const struct pb_node *sources = spec_list(projected, "sources"), *s;

        g->default_mode = mode_of(NULL, projected, 0644);
        for (size_t i = 0; i < sources->n; i++) {
                bool ok = false;
                if ((s = pb_get(sources->v[i], "serviceAccountToken")))
                        ok = gather_token(g, s);
                else if ((s = pb_get(sources->v[i], "configMap")))
                        ok = gather_object(g, s, false, spec_str(s, "name"));
                else if ((s = pb_get(sources->v[i], "secret")))
                        ok = gather_object(g, s, true, spec_str(s, "name"));
                else if ((s = pb_get(sources->v[i], "downwardAPI")))
                        ok = gather_downward(g, s);
                else
                        buf_printf(g->error, "sources[%zu] is of a kind that this node does not offer", i);
                if (!ok)
                        return false;
        }
        return true;
}

/* ---- writing ---- */

static bool unchanged(const char *dir, uint64_t hash, bool remember)
{
        char *path = mem_printf("%s.hash", dir), *data = mem_printf("%s/..data", dir);
        struct buf b = BUF_INIT;
        uint64_t was = 0;
        bool same = false;

        if (remember) {
                buf_printf(&b, "%llu", (unsigned long long)hash);
                int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
                if (fd >= 0) {
                        same = write(fd, b.p, b.n) == (ssize_t)b.n;
                        close(fd);
                }
        } else {
                same = buf_read_file(&b, path, 32) == 0 && str_u64(buf_view(&b), &was) && was == hash && access(data, F_OK) == 0;
        }
        buf_fini(&b);
        free(path);
        free(data);
        return same;
}

static int64_t fs_group(const struct pb_node *pod)
{
        return spec_int(pod, "spec.securityContext.fsGroup", -1);
}

static bool empty_dir(const struct pb_node *pod, const struct pb_node *volume, const char *dir, struct buf *error)
{
        struct str limit = spec_str(volume, "emptyDir.sizeLimit");
        int64_t bytes = 0, gid = fs_group(pod);
        struct stat st, parent;
        char *up = mem_printf("%s/..", dir);
        bool ok = true;

        if (limit.n && (!quantity_parse(limit, &bytes) || bytes <= 0)) {
                buf_printf(error, "sizeLimit \"" STR_FMT "\" is not a quantity", STR_ARG(limit));
                ok = false;
        }
        if (ok && in_memory(volume, VOLUME_EMPTY_DIR) && stat(dir, &st) == 0 && stat(up, &parent) == 0 && st.st_dev == parent.st_dev) {
                char options[64];
                snprintf(options, sizeof(options), bytes ? "mode=0777,size=%lld" : "mode=0777", (long long)(bytes / 1000));
                if (mount("tmpfs", dir, "tmpfs", MS_NOSUID | MS_NODEV, options) < 0) {
                        buf_printf(error, "mounting memory: %s", strerror(errno));
                        ok = false;
                }
        }
        free(up);
        if (!ok)
                return false;
        if (chmod(dir, gid >= 0 ? 02777 : 0777) < 0 || (gid >= 0 && chown(dir, (uid_t)-1, (gid_t)gid) < 0)) {
                buf_printf(error, "%s", strerror(errno));
                return false;
        }
        return true;
}

static enum volume_result one_volume(const struct pb_node *pod, const struct pb_node *volume, const struct volume_ctx *x, struct buf *error)
{
        struct gather g = { .x = x, .pod = pod, .default_mode = 0644, .error = error };
        struct str kind_name;
        enum volume_kind k = kind_of(volume, &kind_name);
        bool ok = false;

        if (k == VOLUME_UNKNOWN) {
                buf_printf(error,
                           STR_FMT " volumes are not offered by this node; use emptyDir, configMap, secret, downwardAPI or projected",
                           STR_ARG(kind_name));
                return VOLUME_FAILED;
        }
        char *dir = volume_dir(x, volume, k);
        int err = rootfs_mkdirs(dir, 0755);
        payload_init(&g.out);
        if (err)
                buf_printf(error, "%s: %s", dir, strerror(-err));
        else if (k == VOLUME_EMPTY_DIR)
                ok = empty_dir(pod, volume, dir, error);
        else if (k == VOLUME_CONFIG_MAP)
                ok = gather_object(&g, pb_get(volume, "configMap"), false, spec_str(volume, "configMap.name"));
        else if (k == VOLUME_SECRET)
                ok = gather_object(&g, pb_get(volume, "secret"), true, spec_str(volume, "secret.secretName"));
        else if (k == VOLUME_DOWNWARD)
                ok = gather_downward(&g, pb_get(volume, "downwardAPI"));
        else
                ok = gather_projected(&g, pb_get(volume, "projected"));
        if (ok && k != VOLUME_EMPTY_DIR) {
                uint64_t hash = payload_hash(&g.out);
                if (!unchanged(dir, hash, false)) {
                        err = payload_write(&g.out, dir, fs_group(pod));
                        if (err)
                                buf_printf(error, "writing %s: %s", dir, strerror(-err));
                        else
                                unchanged(dir, hash, true);
                        ok = err == 0;
                }
        }
        payload_fini(&g.out);
        free(dir);
        return ok ? VOLUME_READY : g.waiting ? VOLUME_WAIT : VOLUME_FAILED;
}

enum volume_result volume_sync(const struct pb_node *pod, const struct volume_ctx *x, struct buf *error)
{
        const struct pb_node *list = spec_list(pod, "spec.volumes");
        enum volume_result all = VOLUME_READY;

        for (size_t i = 0; i < list->n; i++) {
                struct buf why = BUF_INIT;
                enum volume_result r = one_volume(pod, list->v[i], x, &why);
                if (r == VOLUME_FAILED)
                        buf_printf(error, "%svolume \"" STR_FMT "\": %s", error->n ? "; " : "", STR_ARG(spec_str(list->v[i], "name")),
                                   buf_z(&why));
                buf_fini(&why);
                if (r > all)
                        all = r;
        }
        return all;
}

/* ---- mounts of a container ---- */

static bool path_stays(struct str path)
{
        struct str part;

        while (str_next(&path, '/', &part))
                if (str_eqc(part, ".."))
                        return false;
        return true;
}

static bool one_mount(const struct pb_node *pod, const struct pb_node *m, const struct volume_ctx *x, const char *const *vars, size_t nvars,
                      struct arena *a, struct oci_mount *out, struct spec_error *e)
{
        const struct pb_node *volumes = spec_list(pod, "spec.volumes"), *volume = NULL;
        struct str name = spec_str(m, "name"), to = spec_str(m, "mountPath"), sub = spec_str(m, "subPath"),
                   expr = spec_str(m, "subPathExpr"), kind_name;

        for (size_t i = 0; i < volumes->n; i++)
                if (str_eq(spec_str(volumes->v[i], "name"), name))
                        volume = volumes->v[i];
        e->reason = "CreateContainerConfigError";
        if (!volume) {
                buf_printf(&e->text, "volumeMount \"" STR_FMT "\": the pod has no volume of that name", STR_ARG(name));
                return false;
        }
        if (expr.n)
                sub = spec_expand(expr, vars, nvars, a);
        if (!to.n || to.p[0] != '/' || (sub.n && sub.p[0] == '/') || !path_stays(to) || !path_stays(sub)) {
                buf_printf(&e->text, "volumeMount \"" STR_FMT "\": mountPath must be absolute and subPath relative, both without \"..\"",
                           STR_ARG(name));
                return false;
        }
        enum volume_kind k = kind_of(volume, &kind_name);
        char *dir = volume_dir(x, volume, k);
        struct str from = sub.n ? arena_printf(a, "%s/" STR_FMT, dir, STR_ARG(sub)) : arena_str(a, str_of(dir));
        if (sub.n) {
                char real[4096], root[4096];
                if (access(from.p, F_OK) < 0 && k == VOLUME_EMPTY_DIR && rootfs_mkdirs(from.p, 0777) == 0)
                        chmod(from.p, 0777);
                /* A container can plant links in its own volume: what they lead to must still lie in it. */
                if (!realpath(from.p, real) || !realpath(dir, root) || !str_starts(str_of(real), arena_printf(a, "%s/", root))) {
                        buf_printf(&e->text, "volumeMount \"" STR_FMT "\": subPath \"" STR_FMT "\" is not in the volume", STR_ARG(name),
                                   STR_ARG(sub));
                        free(dir);
                        return false;
                }
                from = arena_str(a, str_of(real));
        }
        free(dir);
        *out = (struct oci_mount){ .to = arena_cstr(a, to),
                                   .from = from.p,
                                   .read_only = spec_bool(m, "readOnly", false) || k != VOLUME_EMPTY_DIR };
        return true;
}

bool volume_mounts(const struct pb_node *pod, const struct pb_node *c, const struct volume_ctx *x, const char *const *vars, size_t nvars,
                   struct arena *a, struct oci_mount **v, size_t *n, struct spec_error *e)
{
        const struct pb_node *list = spec_list(c, "volumeMounts");
        struct oci_mount *all = arena_alloc(a, (*n + list->n + 1) * sizeof(*all));

        memcpy(all, *v, *n * sizeof(*all));
        for (size_t i = 0; i < list->n; i++)
                if (!one_mount(pod, list->v[i], x, vars, nvars, a, &all[(*n)++], e))
                        return false;
        *v = all;
        return true;
}

/* ---- who uses what ---- */

static bool env_uses(const struct pb_node *c, bool secret, struct str name)
{
        const struct pb_node *env = spec_list(c, "env"), *from = spec_list(c, "envFrom");

        for (size_t i = 0; i < env->n; i++)
                if (str_eq(spec_str(env->v[i], secret ? "valueFrom.secretKeyRef.name" : "valueFrom.configMapKeyRef.name"), name))
                        return true;
        for (size_t i = 0; i < from->n; i++)
                if (str_eq(spec_str(from->v[i], secret ? "secretRef.name" : "configMapRef.name"), name))
                        return true;
        return false;
}

bool volume_uses(const struct pb_node *pod, const char *kind, struct str name)
{
        const struct pb_node *volumes = spec_list(pod, "spec.volumes"), *containers = spec_list(pod, "spec.containers");
        const struct pb_node *init = spec_list(pod, "spec.initContainers");
        bool secret = strcmp(kind, "Secret") == 0;

        for (size_t i = 0; i < volumes->n; i++) {
                const struct pb_node *v = volumes->v[i], *sources = spec_list(v, "projected.sources");
                if (str_eq(spec_str(v, secret ? "secret.secretName" : "configMap.name"), name))
                        return true;
                for (size_t k = 0; k < sources->n; k++)
                        if (str_eq(spec_str(sources->v[k], secret ? "secret.name" : "configMap.name"), name))
                                return true;
        }
        for (size_t i = 0; i < containers->n; i++)
                if (env_uses(containers->v[i], secret, name))
                        return true;
        for (size_t i = 0; i < init->n; i++)
                if (env_uses(init->v[i], secret, name))
                        return true;
        return false;
}

void volume_remove(const char *disk_dir, const char *memory_dir)
{
        DIR *d = opendir(memory_dir);

        for (struct dirent *e; d && (e = readdir(d));) {
                char *path = mem_printf("%s/%s", memory_dir, e->d_name);
                if (e->d_name[0] != '.')
                        umount2(path, MNT_DETACH | UMOUNT_NOFOLLOW);
                free(path);
        }
        if (d)
                closedir(d);
        rootfs_remove(memory_dir);
        rootfs_remove(disk_dir);
}
