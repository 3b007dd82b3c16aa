/* The cluster's certificates, as files. See pki.h. */
#include "kube/pki.h"

#include "base/clock.h"
#include "base/mem.h"
#include "kube/auth.h"
#include "net/tls.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

enum { FILE_MAX = 65536, CA_DAYS = 3650, LEAF_DAYS = 365, RENEW_AFTER_DAYS = 180 };

static char *path_of(struct str dir, const char *name)
{
        return mem_printf(STR_FMT "/%s", STR_ARG(dir), name);
}

static bool file_error(struct diags *d, const char *path, int err, const char *what)
{
        struct diag_at at = { .file = str_of(path) };

        diag_add(d, DIAG_ERROR, "KUB0301", &at, "%s: %s", what, strerror(-err));
        return false;
}

/* 1: read; 0: not there; -1: a diagnostic. */
static int read_one(struct str dir, const char *name, struct buf *out, struct diags *d)
{
        char *path = path_of(dir, name);
        int err = buf_read_file(out, path, FILE_MAX);

        if (err < 0 && err != -ENOENT)
                file_error(d, path, err, "cannot be read");
        free(path);
        return err >= 0 ? 1 : err == -ENOENT ? 0 : -1;
}

static bool write_one(struct str dir, const char *name, const struct buf *b, unsigned mode, struct diags *d)
{
        char *path = path_of(dir, name);
        int err = buf_write_file(b, path, mode);
        bool ok = err >= 0 || file_error(d, path, err, "cannot be written");

        free(path);
        return ok;
}

static bool old(struct str dir, const char *name)
{
        char *path = path_of(dir, name);
        struct stat st;
        bool yes = stat(path, &st) || clock_real_s() - (int64_t)st.st_mtime > (int64_t)RENEW_AFTER_DAYS * 86400;

        free(path);
        return yes;
}

static bool write_pair(struct str dir, const char *name, const struct buf *cert, const struct buf *key, struct diags *d)
{
        char crt[64], pem[64];

        snprintf(crt, sizeof(crt), "%s.crt", name);
        snprintf(pem, sizeof(pem), "%s.key", name);
        return write_one(dir, pem, key, 0600, d) && write_one(dir, crt, cert, 0644, d);
}

static bool authority(struct kube_pki *p, struct str dir, bool *fresh, struct diags *d)
{
        int cert = read_one(dir, "ca.crt", &p->ca_cert, d), key = read_one(dir, "ca.key", &p->ca_key, d);
        struct tls_cert_req q = { .cn = STR("postern-ca"), .ca = true, .days = CA_DAYS };
        struct diag_at at = { .file = dir };

        *fresh = false;
        if (cert < 0 || key < 0)
                return false;
        if (cert && key)
                return true;
        if (cert || key) {
                diag_add(d, DIAG_ERROR, "KUB0302", &at,
                         "%s is there and %s is not: restore it, or remove both for a new authority (every kubeconfig and "
                         "client certificate must be made again then)",
                         cert ? "ca.crt" : "ca.key", cert ? "ca.key" : "ca.crt");
                return false;
        }
        *fresh = true;
        return tls_cert_make(&q, STR(""), STR(""), &p->ca_cert, &p->ca_key, d) == 0 && write_pair(dir, "ca", &p->ca_cert, &p->ca_key, d);
}

static bool client(struct kube_pki *p, struct str dir, const char *file, const char *cn, const char *o, bool fresh, struct diags *d)
{
        struct buf cert = BUF_INIT, key = BUF_INIT;
        struct str group = str_of(o);
        struct tls_cert_req q = { .cn = str_of(cn), .o = &group, .no = 1, .client = true, .days = LEAF_DAYS };
        char crt[64], pem[64];

        snprintf(crt, sizeof(crt), "%s.crt", file);
        snprintf(pem, sizeof(pem), "%s.key", file);
        if (!fresh && !old(dir, crt) && !old(dir, pem))
                return true;
        bool ok = tls_cert_make(&q, buf_view(&p->ca_cert), buf_view(&p->ca_key), &cert, &key, d) == 0 &&
                  write_pair(dir, file, &cert, &key, d);
        buf_fini(&cert);
        buf_fini(&key);
        return ok;
}

static bool token_key(struct kube_pki *p, struct str dir, struct diags *d)
{
        struct diag_at at = { .file = dir };
        int have = read_one(dir, "sa.key", &p->sa_key, d);

        if (have)
                return have > 0;
        if (!kube_tokens_make_key(&p->sa_key)) {
                diag_add(d, DIAG_ERROR, "KUB0303", &at, "no key for service-account tokens could be made");
                return false;
        }
        return write_one(dir, "sa.key", &p->sa_key, 0600, d);
}

int kube_make_dirs(const char *path)
{
        char *copy = mem_strdup(path);
        int err = 0;

        for (char *s = copy + 1; *s && !err; s++)
                if (*s == '/') {
                        *s = 0;
                        err = mkdir(copy, 0755) && errno != EEXIST ? -errno : 0;
                        *s = '/';
                }
        if (!err && mkdir(copy, 0700) && errno != EEXIST)
                err = -errno;
        free(copy);
        return err;
}

static const char *const clients[][3] = { { "admin", "kubernetes-admin", "system:masters" },
                                          { "controller", "postern-controller", "postern:controllers" },
                                          { "node", "system:node:postern", "system:nodes" } };

static bool kubeconfig(struct str dir, const char *who, struct str url, struct arena *a, struct diags *d)
{
        struct buf part = BUF_INIT, out = BUF_INIT;
        const char *files[3] = { "ca.crt", arena_printf(a, "%s.crt", who).p, arena_printf(a, "%s.key", who).p };
        struct str data[3];
        bool ok = true;

        for (unsigned i = 0; i < 3 && ok; i++) {
                part.n = 0;
                ok = read_one(dir, files[i], &part, d) > 0;
                data[i] = kube_base64(buf_view(&part), a);
        }
        if (ok) {
                buf_printf(&out,
                           "apiVersion: v1\nkind: Config\nclusters:\n- name: postern\n  cluster:\n    server: " STR_FMT
                           "\n    certificate-authority-data: " STR_FMT
                           "\nusers:\n- name: %s\n  user:\n    client-certificate-data: " STR_FMT "\n    client-key-data: " STR_FMT
                           "\ncontexts:\n- name: postern\n  context:\n    cluster: postern\n    user: %s\ncurrent-context: postern\n",
                           STR_ARG(url), STR_ARG(data[0]), who, STR_ARG(data[1]), STR_ARG(data[2]), who);
                ok = write_one(dir, arena_printf(a, "%s.kubeconfig", who).p, &out, 0600, d);
        }
        buf_fini(&part);
        buf_fini(&out);
        return ok;
}

bool kube_pki_kubeconfigs(struct str dir, struct str url, struct diags *d)
{
        struct arena a;
        bool ok = true;

        arena_init(&a, 16384);
        for (size_t i = 0; i < ARRAY_LEN(clients) && ok; i++)
                ok = kubeconfig(dir, clients[i][0], url, &a, d);
        arena_fini(&a);
        return ok;
}

bool kube_pki_open(struct kube_pki *p, struct str dir, const struct str *dns, unsigned ndns, const struct str *ips, unsigned nips,
                   struct diags *d)
{
        char *path = path_of(dir, "");
        bool fresh;

        memset(p, 0, sizeof(*p));
        path[strlen(path) - 1] = 0;
        int err = kube_make_dirs(path);
        bool ok = !err || file_error(d, path, err, "cannot be made");
        free(path);
        ok = ok && authority(p, dir, &fresh, d);
        for (size_t i = 0; ok && i < ARRAY_LEN(clients); i++)
                ok = client(p, dir, clients[i][0], clients[i][1], clients[i][2], fresh, d);
        struct tls_cert_req q = {
                .cn = STR("kube-apiserver"), .dns = dns, .ndns = ndns, .ip = ips, .nip = nips, .server = true, .days = LEAF_DAYS
        };
        return ok && token_key(p, dir, d) &&
               tls_cert_make(&q, buf_view(&p->ca_cert), buf_view(&p->ca_key), &p->server_cert, &p->server_key, d) == 0 &&
               write_pair(dir, "apiserver", &p->server_cert, &p->server_key, d);
}

void kube_pki_fini(struct kube_pki *p)
{
        buf_fini(&p->ca_cert);
        buf_fini(&p->ca_key);
        buf_fini(&p->server_cert);
        buf_fini(&p->server_key);
        buf_fini(&p->sa_key);
}
