/* Where the API server is and who we are: kubeconfig files, or what Kubernetes puts into a pod. */
#include "base/base64.h"
#include "base/buf.h"
#include "base/mem.h"
#include "kube/client.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define IN_CLUSTER_DIR "/var/run/secrets/kubernetes.io/serviceaccount"

enum { FILE_MAX_BYTES = 4 << 20, FILES_MAX = 16 };

struct source {
        struct str path;
        struct pb_node *root;
};

struct loader {
        struct source v[FILES_MAX];
        unsigned n;
        struct arena *a;
        struct diags *d;
};

__attribute__((format(printf, 5, 6))) static bool fail(struct loader *l, const struct source *s, const struct pb_node *at, const char *path,
                                                       const char *fmt, ...)
{
        struct diag_at where = { .path = str_of(path) };
        struct buf b = BUF_INIT;
        va_list ap;

        if (s)
                where.file = s->path;
        if (at) {
                where.line = at->line;
                where.column = at->column;
        }
        va_start(ap, fmt);
        buf_vprintf(&b, fmt, ap);
        va_end(ap);
        diag_add(l->d, DIAG_ERROR, "PST0302", &where, "%s", buf_z(&b));
        buf_fini(&b);
        return false;
}

static bool read_all(struct loader *l, const struct source *s, const struct pb_node *at, struct str path, struct str *out)
{
        char *z = arena_cstr(l->a, path);
        struct buf b = BUF_INIT;
        int r = buf_read_file(&b, z, FILE_MAX_BYTES);

        if (r < 0) {
                buf_fini(&b);
                return fail(l, s, at, "", "cannot read %s: %s", z, strerror(-r));
        }
        *out = arena_str(l->a, buf_view(&b));
        buf_fini(&b);
        return true;
}

static bool add_file(struct loader *l, struct str path)
{
        struct source *s = &l->v[l->n];
        struct pb_node **docs;
        struct str text;
        size_t n;

        if (l->n == FILES_MAX)
                return fail(l, NULL, NULL, "", "more than %d kubeconfig files", FILES_MAX);
        s->path = arena_str(l->a, path);
        if (!read_all(l, NULL, NULL, path, &text) || !pb_parse_yaml(text, s->path, l->a, &docs, &n, l->d))
                return false;
        if (n == 0 || docs[0]->kind != PB_MAP)
                return fail(l, s, NULL, "", "not a kubeconfig: it is empty");
        s->root = docs[0];
        l->n++;
        return true;
}

/* kind: "clusters", inner: "cluster". */
static struct pb_node *find_named(struct loader *l, const char *kind, const char *inner, struct str name, struct source **in)
{
        for (unsigned i = 0; i < l->n; i++) {
                struct pb_node *list = pb_get(l->v[i].root, kind);

                for (size_t k = 0; list && list->kind == PB_LIST && k < list->n; k++) {
                        if (!str_eq(pb_get_str(list->v[k], "name", STR("")), name))
                                continue;
                        *in = &l->v[i];
                        struct pb_node *n = pb_get(list->v[k], inner);
                        return n ? n : list->v[k];
                }
        }
        return NULL;
}

static bool base64(struct arena *a, struct str in, struct str *out)
{
        char *p = arena_alloc(a, in.n + 2);

        while (in.n && in.p[in.n - 1] == '=')
                in.n--;
        out->p = p;
        return base64_decode(in, BASE64_STANDARD, p, &out->n);
}

/* "certificate-authority-data" wins over "certificate-authority", as in client-go. */
static bool pem(struct loader *l, const struct source *s, const struct pb_node *n, const char *key, struct str *out)
{
        char data_key[64];
        struct pb_node *v;

        snprintf(data_key, sizeof(data_key), "%s-data", key);
        if ((v = pb_get(n, data_key)) && v->text.n)
                return base64(l->a, v->text, out) || fail(l, s, v, data_key, "not base64");
        if (!(v = pb_get(n, key)) || !v->text.n)
                return true;
        struct str path = v->text;
        ptrdiff_t slash = str_rchr(s->path, '/');
        if (path.p[0] != '/' && slash >= 0)
                path = arena_printf(l->a, STR_FMT "/" STR_FMT, (int)slash, s->path.p, STR_ARG(path));
        return read_all(l, s, v, path, out);
}

/* What would change how the server is reached or trusted must not be skipped over. */
static bool refuse(struct loader *l, const struct source *s, const struct pb_node *n, const char *key, const char *advice)
{
        struct pb_node *v = pb_get(n, key);

        if (!v || v->kind == PB_NULL || (v->kind != PB_MAP && v->kind != PB_LIST && (!v->text.n || str_eqc(v->text, "false"))))
                return true;
        return fail(l, s, v, key, "not supported; %s", advice);
}

static bool load_cluster(struct loader *l, const struct source *s, const struct pb_node *n, struct kube_client_config *out)
{
        out->server = pb_get_str(n, "server", STR(""));
        out->server_name = pb_get_str(n, "tls-server-name", STR(""));
        if (!out->server.n)
                return fail(l, s, n, "cluster.server", "missing; give the API server's URL");
        return refuse(l, s, n, "insecure-skip-tls-verify", "give certificate-authority-data") &&
               refuse(l, s, n, "proxy-url", "connect directly") && pem(l, s, n, "certificate-authority", &out->ca_pem);
}

static bool load_user(struct loader *l, const struct source *s, const struct pb_node *n, struct kube_client_config *out)
{
        static const char *const refused[] = { "exec", "auth-provider", "username", "password", "as" };

        for (size_t i = 0; i < ARRAY_LEN(refused); i++)
                if (!refuse(l, s, n, refused[i], "use a client certificate or a token"))
                        return false;
        out->token = pb_get_str(n, "token", STR(""));
        out->token_file = pb_get_str(n, "tokenFile", STR(""));
        if (!pem(l, s, n, "client-certificate", &out->cert_pem) || !pem(l, s, n, "client-key", &out->key_pem))
                return false;
        if (out->cert_pem.n && !out->key_pem.n)
                return fail(l, s, n, "user.client-key", "missing; a client certificate needs its key");
        return true;
}

static bool resolve(struct loader *l, struct str context, struct kube_client_config *out)
{
        struct source *s = &l->v[0];
        struct pb_node *n;

        for (unsigned i = 0; i < l->n && !context.n; i++)
                context = pb_get_str(l->v[i].root, "current-context", STR(""));
        if (!context.n)
                return fail(l, s, NULL, "current-context", "not set; choose one with kubectl config use-context");
        n = find_named(l, "contexts", "context", context, &s);
        if (!n)
                return fail(l, s, NULL, "contexts", "there is no context \"" STR_FMT "\"", STR_ARG(context));
        struct str cluster = pb_get_str(n, "cluster", STR("")), user = pb_get_str(n, "user", STR(""));
        n = find_named(l, "clusters", "cluster", cluster, &s);
        if (!n)
                return fail(l, s, NULL, "clusters", "there is no cluster \"" STR_FMT "\", which context \"" STR_FMT "\" names",
                            STR_ARG(cluster), STR_ARG(context));
        if (!load_cluster(l, s, n, out))
                return false;
        if (!user.n)
                return true;
        n = find_named(l, "users", "user", user, &s);
        if (!n)
                return fail(l, s, NULL, "users", "there is no user \"" STR_FMT "\", which context \"" STR_FMT "\" names", STR_ARG(user),
                            STR_ARG(context));
        return load_user(l, s, n, out);
}

static bool load_in_cluster(struct loader *l, struct kube_client_config *out)
{
        const char *host = getenv("KUBERNETES_SERVICE_HOST"), *port = getenv("KUBERNETES_SERVICE_PORT");

        if (!host || !*host)
                return fail(l, NULL, NULL, "", "%s/token is there, but KUBERNETES_SERVICE_HOST is not set", IN_CLUSTER_DIR);
        bool v6 = strchr(host, ':') != NULL;
        out->server = arena_printf(l->a, "https://%s%s%s:%s", v6 ? "[" : "", host, v6 ? "]" : "", port && *port ? port : "443");
        out->token_file = STR(IN_CLUSTER_DIR "/token");
        return read_all(l, NULL, NULL, STR(IN_CLUSTER_DIR "/ca.crt"), &out->ca_pem);
}

bool kube_client_config_load(struct str path, struct str context, struct arena *a, struct kube_client_config *out, struct diags *d)
{
        struct loader l = { .a = a, .d = d };

        *out = (struct kube_client_config){ 0 };
        if (!path.n && access(IN_CLUSTER_DIR "/token", R_OK) == 0)
                return load_in_cluster(&l, out);
        const char *env = getenv("KUBECONFIG"), *home = getenv("HOME");
        if (path.n) {
                if (!add_file(&l, path))
                        return false;
        } else if (env && *env) {
                struct str rest = str_of(env), part;

                while (str_next(&rest, ':', &part)) {
                        if (part.n && access(arena_cstr(a, part), F_OK) == 0 && !add_file(&l, part))
                                return false;
                }
                if (!l.n)
                        return fail(&l, NULL, NULL, "", "none of the files in KUBECONFIG=%s exists", env);
        } else {
                if (!home)
                        return fail(&l, NULL, NULL, "", "no kubeconfig: neither KUBECONFIG nor HOME is set; name a file");
                if (!add_file(&l, arena_printf(a, "%s/.kube/config", home)))
                        return false;
        }
        return resolve(&l, context, out);
}
