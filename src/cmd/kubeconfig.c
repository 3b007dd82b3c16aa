/* kubectl guards its file with "FILE.lock" (created exclusively); so do we, so that both can write at the same time. A lock older than ten
 * seconds is a leftover of a crash: kubectl itself would wait for it for ever, so we say so instead of removing it. */
#include "cmd/kubeconfig.h"

#include "base/base64.h"
#include "base/clock.h"
#include "base/mem.h"
#include "pb/pb.h"

#include <errno.h>
#include <fcntl.h>
#include <pwd.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { KUBECONFIG_MAX_BYTES = 4 << 20, LOCK_TRIES = 50 };

struct str kubeconfig_home(struct arena *a)
{
        const char *home = getenv("HOME");

        if (!home || !*home) {
                struct passwd *pw = getpwuid(getuid());

                home = pw ? pw->pw_dir : "/";
        }
        return arena_str(a, str_of(home));
}

struct str kubeconfig_path(struct arena *a)
{
        const char *env = getenv("KUBECONFIG");

        if (env && *env) {
                struct str rest = str_of(env), part, last = { 0 };

                while (str_next(&rest, ':', &part)) {
                        if (!part.n)
                                continue;
                        last = arena_str(a, part);
                        if (access(last.p, F_OK) == 0)
                                return last;
                }
                if (last.n)
                        return last;
        }
        return arena_printf(a, STR_FMT "/.kube/config", STR_ARG(kubeconfig_home(a)));
}

static struct str b64(struct arena *a, struct str s)
{
        struct buf b = BUF_INIT;

        base64_print(&b, s.p, s.n);
        struct str r = arena_str(a, buf_view(&b));

        buf_fini(&b);
        return r;
}

static struct diag_at at_file(struct str path)
{
        return (struct diag_at){ .file = path };
}

static bool lock(struct str path, char **lock_path, struct diags *d)
{
        struct diag_at at = at_file(path);
        char *l = mem_printf(STR_FMT ".lock", STR_ARG(path));

        for (int i = 0; i < LOCK_TRIES; i++) {
                int fd = open(l, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);

                if (fd >= 0) {
                        close(fd);
                        *lock_path = l;
                        return true;
                }
                if (errno != EEXIST) {
                        diag_add(d, DIAG_ERROR, NULL, &at, "cannot be written: %s; give another file by KUBECONFIG=FILE", strerror(errno));
                        free(l);
                        return false;
                }
                nanosleep(&(struct timespec){ 0, 20 * 1000000 }, NULL);
        }
        diag_add(d, DIAG_ERROR, NULL, &at, "is locked by another program; if none is running, remove %s", l);
        free(l);
        return false;
}

static void unlock(char *lock_path)
{
        unlink(lock_path);
        free(lock_path);
}

/* The document as a map; an empty or missing file gives a new one. NULL with a diagnostic when it is something else. */
static struct pb_node *load(struct str path, struct arena *a, bool must_exist, struct diags *d)
{
        struct buf b = BUF_INIT;
        struct diag_at at = at_file(path);
        struct pb_node **docs = NULL, *root = NULL;
        size_t n = 0;
        int rc = buf_read_file(&b, path.p, KUBECONFIG_MAX_BYTES);

        if (rc == -ENOENT && !must_exist) {
                root = pb_new(a, PB_MAP, STR(""));
                goto out;
        }
        if (rc < 0) {
                if (rc != -ENOENT)
                        diag_add(d, DIAG_ERROR, NULL, &at, "cannot be read: %s", strerror(-rc));
                goto out;
        }
        struct str text = arena_str(a, buf_view(&b));

        if (!pb_parse_yaml(text, path, a, &docs, &n, d))
                goto out;
        if (n == 0 || docs[0]->kind == PB_NULL)
                root = pb_new(a, PB_MAP, STR(""));
        else if (n > 1 || docs[0]->kind != PB_MAP)
                diag_add(d, DIAG_ERROR, NULL, &at, "is not a kubeconfig; it was left as it is");
        else
                root = docs[0];
out:
        buf_fini(&b);
        return root;
}

static bool save(struct str path, const struct pb_node *root, struct diags *d)
{
        struct buf out = BUF_INIT;
        struct diag_at at = at_file(path);
        struct stat st;
        unsigned mode = stat(path.p, &st) == 0 ? (unsigned)st.st_mode & 0777 : 0600;
        char *real = realpath(path.p, NULL); /* a link stays a link */

        pb_node_yaml(root, &out);
        int rc = buf_write_file(&out, real ? real : path.p, mode);

        if (rc < 0)
                diag_add(d, DIAG_ERROR, NULL, &at, "cannot be written: %s; give another file by KUBECONFIG=FILE", strerror(-rc));
        free(real);
        buf_fini(&out);
        return rc == 0;
}

static struct pb_node *list_of(struct arena *a, struct pb_node *root, const char *key)
{
        struct pb_node *l = pb_get(root, key);

        if (!l || l->kind != PB_LIST) {
                l = pb_new(a, PB_LIST, STR(""));
                pb_put(a, root, str_of(key), l);
        }
        return l;
}

static bool drop_named(struct pb_node *list, struct str name)
{
        size_t out = 0;
        bool found = false;

        for (size_t i = 0; list && i < list->n; i++) {
                if (str_eq(pb_get_str(list->v[i], "name", STR("")), name))
                        found = true;
                else
                        list->v[out++] = list->v[i];
        }
        if (list)
                list->n = out;
        return found;
}

static struct pb_node *named(struct arena *a, struct str name, const char *key, struct pb_node *value)
{
        struct pb_node *m = pb_new(a, PB_MAP, STR(""));

        pb_put(a, m, str_of(key), value);
        pb_put_str(a, m, "name", name);
        return m;
}

static void put_entry(struct arena *a, struct pb_node *root, const struct kubeconfig_entry *e)
{
        struct pb_node *cluster = pb_new(a, PB_MAP, STR("")), *user = pb_new(a, PB_MAP, STR("")), *context = pb_new(a, PB_MAP, STR(""));
        static const char *const lists[] = { "clusters", "users", "contexts" };

        pb_put_str(a, cluster, "certificate-authority-data", b64(a, e->ca_pem));
        pb_put_str(a, cluster, "server", e->server);
        pb_put_str(a, user, "client-certificate-data", b64(a, e->cert_pem));
        pb_put_str(a, user, "client-key-data", b64(a, e->key_pem));
        pb_put_str(a, context, "cluster", e->name);
        pb_put_str(a, context, "user", e->name);
        if (!pb_get(root, "apiVersion"))
                pb_put_str(a, root, "apiVersion", STR("v1"));
        if (!pb_get(root, "kind"))
                pb_put_str(a, root, "kind", STR("Config"));
        for (size_t i = 0; i < ARRAY_LEN(lists); i++)
                drop_named(list_of(a, root, lists[i]), e->name);
        pb_push(a, list_of(a, root, "clusters"), named(a, e->name, "cluster", cluster));
        pb_push(a, list_of(a, root, "users"), named(a, e->name, "user", user));
        pb_push(a, list_of(a, root, "contexts"), named(a, e->name, "context", context));
        pb_put_str(a, root, "current-context", e->name);
        if (!pb_get(root, "preferences"))
                pb_put(a, root, STR("preferences"), pb_new(a, PB_MAP, STR("")));
}

static void make_folder(struct str path)
{
        char *dir = str_dup(path), *slash = strrchr(dir, '/');

        if (slash && slash != dir) {
                *slash = '\0';
                mkdir(dir, 0750);
        }
        free(dir);
}

bool kubeconfig_merge(struct str path, const struct kubeconfig_entry *e, struct diags *d)
{
        struct arena a;
        char *l;
        bool ok = false;

        make_folder(path);
        if (!lock(path, &l, d))
                return false;
        arena_init(&a, 0);
        struct pb_node *root = load(path, &a, false, d);

        if (root) {
                put_entry(&a, root, e);
                ok = save(path, root, d);
        }
        arena_fini(&a);
        unlock(l);
        return ok;
}

bool kubeconfig_check(struct str path, struct diags *d)
{
        struct arena a;
        char *l;

        make_folder(path);
        if (!lock(path, &l, d))
                return false;
        arena_init(&a, 0);
        bool ok = load(path, &a, false, d) != NULL;

        arena_fini(&a);
        unlock(l);
        return ok;
}

bool kubeconfig_write_single(struct str path, const struct kubeconfig_entry *e, struct diags *d)
{
        struct arena a;

        arena_init(&a, 0);
        struct pb_node *root = pb_new(&a, PB_MAP, STR(""));

        put_entry(&a, root, e);
        bool ok = save(path, root, d);

        arena_fini(&a);
        return ok;
}

static bool remove_from(struct str path, struct str name, struct diags *d)
{
        struct arena a;
        char *l;
        bool ok = true, found = false;

        if (access(path.p, F_OK) != 0)
                return true;
        if (!lock(path, &l, d))
                return false;
        arena_init(&a, 0);
        struct pb_node *root = load(path, &a, true, d);

        if (root) {
                found |= drop_named(pb_get(root, "clusters"), name);
                found |= drop_named(pb_get(root, "users"), name);
                found |= drop_named(pb_get(root, "contexts"), name);
                if (str_eq(pb_get_str(root, "current-context", STR("")), name)) {
                        pb_put_str(&a, root, "current-context", STR(""));
                        found = true;
                }
                ok = !found || save(path, root, d);
        } else {
                ok = false;
        }
        arena_fini(&a);
        unlock(l);
        return ok;
}

bool kubeconfig_remove(struct str name, struct diags *d)
{
        struct arena a;
        const char *env = getenv("KUBECONFIG");
        bool ok = true;

        arena_init(&a, 0);
        if (env && *env) {
                struct str rest = str_of(env), part;

                while (str_next(&rest, ':', &part))
                        if (part.n)
                                ok &= remove_from(arena_str(&a, part), name, d);
        } else {
                ok = remove_from(kubeconfig_path(&a), name, d);
        }
        arena_fini(&a);
        return ok;
}
