/* The API server's outside: listeners, who is calling, answers, and the moment at which a write is really done.
 *
 * Requests of one loop turn share a transaction. An answer that depends on it, be it a write or a read that saw one, waits in a list until
 * the commit at the turn's end; when the commit fails each of them becomes an error. */
#include "kube/server.h"

#include "base/log.h"
#include "base/mem.h"
#include "kube/auth.h"
#include "kube/pki.h"
#include "net/sock.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- who is calling ---- */

static bool unix_peer(struct kube_user *u, int fd)
{
        struct ucred cred;
        socklen_t n = sizeof(cred);

        if (fd < 0 || getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &n) || (cred.uid && cred.uid != geteuid()))
                return false;
        u->name = STR("system:admin");
        u->groups[0] = STR("system:masters");
        u->groups[1] = STR("system:authenticated");
        u->ngroups = 2;
        return true;
}

static bool certificate(struct kube_user *u, const struct tls_info *t, struct arena *a)
{
        if (!t || !t->peer_verified || !t->peer_cn.n)
                return false;
        u->name = arena_str(a, t->peer_cn);
        for (unsigned i = 0; i < t->npeer_o && u->ngroups < ARRAY_LEN(u->groups) - 1; i++)
                u->groups[u->ngroups++] = arena_str(a, t->peer_o[i]);
        u->groups[u->ngroups++] = STR("system:authenticated");
        return true;
}

static bool authenticate(struct kube_call *c, const struct kube_listener *l, const struct http_head *m)
{
        struct conn *io = http_conn_io(http_stream_conn(c->stream));
        const struct http_hdr *auth = http_get(m, HN_AUTHORIZATION);
        struct kube_req *r = &c->r;
        struct str why = STR("");

        if (l->is_unix && unix_peer(&r->user, conn_fd(io)))
                return true;
        if (certificate(&r->user, conn_tls_info(io), r->a))
                return true;
        if (auth && str_starts_nocase(auth->value, STR("Bearer "))) {
                struct str token = str_trim(str_sub(auth->value, 7, auth->value.n));

                if (kube_tokens_verify(c->s->api.tokens, &c->s->api, token, NULL, 0, r->a, &r->user, &why))
                        return true;
        }
        return kube_req_error(r, 401, "Unauthorized", "Unauthorized%s" STR_FMT, why.n ? ": " : "", STR_ARG(why));
}

/* ---- answers ---- */

static void warning_headers(const struct kube_req *r, struct http_head *m)
{
        for (unsigned i = 0; i < r->nwarnings; i++) {
                struct buf b = BUF_INIT;

                buf_cstr(&b, "299 - \"");
                for (size_t k = 0; k < r->warnings[i].n && k < 1000; k++) {
                        char ch = r->warnings[i].p[k];

                        if (ch == '"' || ch == '\\')
                                buf_char(&b, '\\');
                        buf_char(&b, (unsigned char)ch < 32 || ch == 127 ? ' ' : ch);
                }
                buf_char(&b, '"');
                http_add_name(m, STR("warning"), arena_str(r->a, buf_view(&b)));
                buf_fini(&b);
        }
}

void kube_server_head(struct kube_call *c, struct http_head *m)
{
        http_head_init(m, c->r.a);
        http_add_name(m, STR("cache-control"), STR("no-cache, private"));
        if (c->r.status == 401)
                http_add_name(m, STR("www-authenticate"), STR("Bearer"));
        if (c->r.err.retry_after_s)
                http_add_name(m, STR("retry-after"), arena_printf(c->r.a, "%u", c->r.err.retry_after_s));
        warning_headers(&c->r, m);
}

void kube_server_answer(struct kube_call *c)
{
        struct http_head m;
        struct chain body = CHAIN_INIT;

        if (!c->stream) {
                buf_fini(&c->r.out);
                return;
        }
        kube_server_head(c, &m);
        chain_str(&body, buf_view(&c->r.out));
        buf_fini(&c->r.out);
        struct http_stream *s = c->stream;
        c->stream = NULL;
        http_stream_set_ops(s, &http_ops_ignore, NULL);
        http_answer_head(s, &m, c->r.status, c->r.type, &body);
        chain_fini(&body);
}

static void fail(struct kube_call *c)
{
        kube_req_fail(&c->r);
        kube_server_answer(c);
}

static void unwait(struct kube_call *c)
{
        if (!c->pprev)
                return;
        *c->pprev = c->next;
        if (c->next)
                c->next->pprev = c->pprev;
        else
                c->s->waiting_tail = c->pprev;
        c->pprev = NULL;
}

/* The client went away while its answer waited for the commit. */
static void on_gone(struct http_stream *stream, void *arg, enum http_reset reset)
{
        struct kube_call *c = arg;

        c->stream = NULL;
        unwait(c);
        buf_fini(&c->r.out);
}

static void drop_data(struct http_stream *s, void *arg, struct chain *data, bool end)
{
        chain_fini(data);
}

static const struct http_stream_ops waiting_ops = { .on_data = drop_data, .on_close = on_gone };

static void wait_for_commit(struct kube_call *c)
{
        struct kube_apiserver *s = c->s;

        c->rollbacks = kube_store_rollbacks(s->store);
        c->next = NULL;
        c->pprev = s->waiting_tail;
        *s->waiting_tail = c;
        s->waiting_tail = &c->next;
        http_stream_set_ops(c->stream, &waiting_ops, c);
}

static void not_committed(struct kube_call *c)
{
        kube_req_error(&c->r, kube_store_full(c->s->store) ? 507 : 500, "InternalError", "%s", kube_store_error(c->s->store));
        kube_req_fail(&c->r);
}

void kube_server_flush(struct kube_apiserver *s)
{
        kube_store_commit(s->store);
        unsigned rollbacks = kube_store_rollbacks(s->store);
        while (s->waiting) {
                struct kube_call *c = s->waiting;

                unwait(c);
                if (c->rollbacks != rollbacks)
                        not_committed(c);
                kube_server_answer(c);
        }
        kube_watch_pump_all(s);
        if (s->controllers)
                kube_controllers_kick(s->controllers);
}

static void on_commit_task(struct loop_task *t)
{
        kube_server_flush(t->arg);
}

static void on_dirty(void *arg)
{
        struct kube_apiserver *s = arg;

        loop_defer(s->loop, &s->commit);
}

/* ---- requests ---- */

static void on_body(struct http_stream *stream, void *arg, struct http_head *m, struct str body)
{
        struct kube_call *c = arg;

        c->r.body = body;
        kube_req_handle(&c->r);
        if (kube_store_pending(c->s->store))
                wait_for_commit(c);
        else
                kube_server_answer(c);
}

static struct str header(const struct http_head *m, enum http_name id)
{
        const struct http_hdr *h = http_get(m, id);

        return h ? h->value : STR("");
}

/* All Accept fields as one list. */
static struct str accept_of(const struct http_head *m, struct arena *a)
{
        struct str all = STR("");

        for (unsigned i = 0; i < m->n; i++)
                if (m->h[i].id == HN_ACCEPT)
                        all = all.n ? arena_printf(a, STR_FMT "," STR_FMT, STR_ARG(all), STR_ARG(m->h[i].value)) : m->h[i].value;
        return all;
}

static void on_head(struct http_stream *stream, void *arg, struct http_head *m, bool end)
{
        struct kube_listener *l = arg;
        struct arena *a = http_stream_arena(stream);
        struct kube_call *c = ARENA_NEW(a, struct kube_call);
        ptrdiff_t q = str_chr(m->path, '?');

        c->s = l->s;
        c->stream = stream;
        c->r.api = &l->s->api;
        c->r.a = a;
        c->r.type = "application/json";
        c->r.method = m->method;
        c->r.path_text = q < 0 ? m->path : str_sub(m->path, 0, (size_t)q);
        c->r.query_text = q < 0 ? STR("") : str_sub(m->path, (size_t)q + 1, m->path.n);
        c->r.accept = accept_of(m, a);
        c->r.content_type = header(m, HN_CONTENT_TYPE);
        if (m->path.n > KUBE_PATH_MAX_BYTES) {
                kube_req_error(&c->r, 414, "BadRequest", "the request's path and query are longer than %d bytes", KUBE_PATH_MAX_BYTES);
                fail(c);
        } else if (!authenticate(c, l, m) || !kube_req_prepare(&c->r)) {
                fail(c);
        } else if (m->content_length > KUBE_BODY_MAX_BYTES) {
                kube_req_error(&c->r, 413, "RequestEntityTooLarge",
                               "the request's body is larger than %d bytes, which is the most this server takes", KUBE_BODY_MAX_BYTES);
                fail(c);
        } else if (kube_req_is_watch(&c->r)) {
                kube_watch_start(c);
        } else if (kube_req_is_proxy(&c->r)) {
                kube_tunnel_start(c, m, end);
        } else {
                http_collect(stream, m, end, KUBE_BODY_MAX_BYTES, on_body, c);
        }
}

/* ---- listening ---- */

struct listen_args {
        struct kube_apiserver *s;
        struct kube_listener *l;
        struct http_service_opts o;
        int err;
};

static int listen_now(void *arg)
{
        struct listen_args *q = arg;

        q->l->http = http_service_new_streaming(q->s->loop, &q->o, on_head, q->l, &q->err);
        return 0;
}

/* 0, or -errno. */
static int open_listener(struct kube_apiserver *s, struct kube_listener *l, const struct addr *at, struct tls_ctx *tls, struct str netns)
{
        struct http_opts http = { .max_headers = 200, .max_head_bytes = 65536 };
        struct listen_args q = {
                s, l, { .listen = at, .unix_mode = 0600, .tls = tls, .idle_ms = 300000, .max_conns = 4096, .http = &http }, 0
        };

        l->s = s;
        if (!netns.n) {
                listen_now(&q);
        } else {
                char *path = str_dup(netns);
                int rc = sock_in_netns(path, listen_now, &q);

                free(path);
                if (rc < 0)
                        q.err = rc;
        }
        return l->http ? 0 : q.err ? q.err : -EINVAL;
}

static bool add_listener(struct kube_apiserver *s, const struct addr *at, struct tls_ctx *tls, bool is_unix, struct diags *d)
{
        struct kube_listener *l = &s->l[s->nl];
        char text[ADDR_TEXT_MAX];

        l->is_unix = is_unix;
        int err = open_listener(s, l, at, tls, STR(""));
        if (err) {
                addr_text(at, text);
                diag_add(d, DIAG_ERROR, "KUB0401", &(struct diag_at){ .resource = str_of(text) }, "cannot listen: %s", strerror(-err));
                return false;
        }
        s->nl++;
        return true;
}

/* ---- the listener inside of the node's network ---- */

enum { NODE_RETRY_MS = 100, NODE_LOOK_MS = 1000 };

static uint64_t inode_of(struct str path)
{
        char *p = str_dup(path);
        struct stat st;
        uint64_t ino = stat(p, &st) ? 0 : (uint64_t)st.st_ino;

        free(p);
        return ino;
}

/* The node makes its namespace and the address in it after we start, and makes them anew after a crash: this listener follows. */
static void on_node_timer(struct loop_timer *t)
{
        struct kube_apiserver *s = t->arg;
        uint64_t inode = s->node.netns.n ? inode_of(s->node.netns) : 1;
        struct addr at;

        if (s->node.l.http && s->node.inode != inode) {
                http_service_free(s->node.l.http);
                s->node.l.http = NULL;
        }
        if (!s->node.l.http && inode && addr_parse(&at, s->node.address)) {
                int err = open_listener(s, &s->node.l, &at, s->node.tls, s->node.netns);

                s->node.inode = inode;
                if (!err)
                        LOG(LOG_INFO, "apiserver", "listening on " STR_FMT " in the node's network", STR_ARG(s->node.address));
                else if (!s->node.complained && err != -ENOENT && err != -EADDRNOTAVAIL && err != -EINVAL)
                        LOG(LOG_WARN, "apiserver", "cannot listen on " STR_FMT " in " STR_FMT " yet: %s", STR_ARG(s->node.address),
                            STR_ARG(s->node.netns), strerror(-err));
                s->node.complained = err != 0;
        }
        loop_timer_arm(s->loop, t, s->node.l.http ? NODE_LOOK_MS : NODE_RETRY_MS);
}

static bool node_listener(struct kube_apiserver *s, const struct kube_apiserver_opts *o, struct tls_ctx *tls, struct diags *d)
{
        struct addr at;

        if (!o->node_listen.n)
                return true;
        if (!addr_parse(&at, o->node_listen) || at.sa.sa_family == AF_UNIX) {
                diag_add(d, DIAG_ERROR, "KUB0402", &(struct diag_at){ .resource = STR("--node-listen") },
                         "\"" STR_FMT "\" is not an address and a port, such as "
                         "10.244.0.1:6443",
                         STR_ARG(o->node_listen));
                return false;
        }
        s->node.address = arena_str(&s->arena, o->node_listen);
        s->node.netns = arena_str(&s->arena, o->node_netns);
        s->node.tls = tls_ctx_ref(tls);
        s->node.timer = (struct loop_timer){ .fn = on_node_timer, .arg = s };
        on_node_timer(&s->node.timer);
        return true;
}

static bool tcp_listener(struct kube_apiserver *s, struct str text, const char *option, struct tls_ctx *tls, struct diags *d)
{
        struct addr a;

        if (!text.n)
                return true;
        if (!addr_parse(&a, text) || a.sa.sa_family == AF_UNIX) {
                diag_add(d, DIAG_ERROR, "KUB0402", &(struct diag_at){ .resource = str_of(option) },
                         "\"" STR_FMT "\" is not an address and a port, such as "
                         "127.0.0.1:6443",
                         STR_ARG(text));
                return false;
        }
        return add_listener(s, &a, tls, false, d);
}

static bool listen_all(struct kube_apiserver *s, const struct kube_apiserver_opts *o, struct tls_ctx *tls, struct diags *d)
{
        struct addr a;

        if (!tcp_listener(s, o->listen, "--listen", tls, d) || !node_listener(s, o, tls, d))
                return false;
        if (!o->unix_path.n)
                return true;
        if (!addr_unix(&a, o->unix_path)) {
                diag_add(d, DIAG_ERROR, "KUB0402", &(struct diag_at){ .resource = STR("--unix") },
                         "the path is too long for a Unix socket");
                return false;
        }
        return add_listener(s, &a, NULL, true, d);
}

/* ---- the names in the server's certificate ---- */

struct sans {
        struct str dns[32], ip[32];
        unsigned ndns, nip;
};

static void add_san(struct sans *n, struct str s)
{
        struct addr a;

        if (addr_parse_ip(&a, s, 0)) {
                if (n->nip < ARRAY_LEN(n->ip) && !addr_is_any(&a))
                        n->ip[n->nip++] = s;
        } else if (n->ndns < ARRAY_LEN(n->dns)) {
                n->dns[n->ndns++] = s;
        }
}

static void host_san(struct sans *n, struct str address, struct arena *a)
{
        struct addr ad;
        char text[ADDR_TEXT_MAX];

        if (address.n && addr_parse(&ad, address)) {
                size_t len = addr_ip_text(&ad, text);

                add_san(n, arena_str(a, str_make(text, len)));
        }
}

static struct str service_ip_text(const struct kube_api *api, uint32_t offset, struct arena *a)
{
        uint32_t v = api->service_base + offset;

        return arena_printf(a, "%u.%u.%u.%u", v >> 24, v >> 16 & 255, v >> 8 & 255, v & 255);
}

static void collect_sans(struct kube_apiserver *s, const struct kube_apiserver_opts *o, struct sans *n)
{
        static const char *const names[] = { "localhost", "kubernetes", "kubernetes.default", "kubernetes.default.svc" };

        memset(n, 0, sizeof(*n));
        for (size_t i = 0; i < ARRAY_LEN(names); i++)
                add_san(n, str_of(names[i]));
        add_san(n, arena_printf(&s->arena, "kubernetes.default.svc." STR_FMT, STR_ARG(s->api.cluster_domain)));
        add_san(n, STR("127.0.0.1"));
        add_san(n, STR("::1"));
        add_san(n, service_ip_text(&s->api, 1, &s->arena));
        host_san(n, o->listen, &s->arena);
        host_san(n, o->node_listen, &s->arena);
        for (unsigned i = 0; i < o->nextra_sans; i++)
                add_san(n, o->extra_sans[i]);
}

/* ---- what every cluster has ---- */

static void ensure(struct kube_api *api, unsigned bucket, const char *ns, const char *name, struct str json)
{
        struct arena a;
        struct diags d;
        struct pb_node *o;
        struct str why;

        if (kube_store_get(api->store, bucket, str_of(ns), str_of(name)))
                return;
        arena_init(&a, 4096);
        diags_init(&d);
        if (!pb_parse_json(json, STR("built-in"), &a, &o, &d) || !kube_api_create(api, bucket, o, &a, &why))
                LOG(LOG_ERROR, "apiserver", "cannot make %s/%s: " STR_FMT, ns, name, STR_ARG(d.n ? d.v[0].text : why));
        diags_fini(&d);
        arena_fini(&a);
}

static void built_in_objects(struct kube_apiserver *s, const struct kube_apiserver_opts *o)
{
        static const char *const namespaces[] = { "default", "kube-system", "kube-public", "kube-node-lease" };
        struct arena *a = &s->arena;

        for (size_t i = 0; i < ARRAY_LEN(namespaces); i++)
                ensure(&s->api, kube_b.namespaces, "", namespaces[i],
                       arena_printf(a, "{\"apiVersion\":\"v1\",\"kind\":\"Namespace\",\"metadata\":{\"name\":\"%s\"}}", namespaces[i]));
        struct str ip = service_ip_text(&s->api, 1, a);
        ensure(&s->api, kube_b.services, "default", "kubernetes",
               arena_printf(a,
                            "{\"apiVersion\":\"v1\",\"kind\":\"Service\",\"metadata\":{\"name\":\"kubernetes\",\"namespace\":\"default\","
                            "\"labels\":{\"component\":\"apiserver\","
                            "\"provider\":\"kubernetes\"}},\"spec\":{\"clusterIP\":\"" STR_FMT
                            "\",\"ports\":[{\"name\":\"https\",\"port\":443,\"protocol\":\"TCP\","
                            "\"targetPort\":6443}]}}",
                            STR_ARG(ip)));
        struct addr ad;
        if (!addr_parse(&ad, o->node_listen.n ? o->node_listen : o->listen))
                return;
        char text[ADDR_TEXT_MAX];
        addr_ip_text(&ad, text);
        unsigned port = o->node_listen.n ? addr_port(&ad) : kube_apiserver_port(s);
        const struct kobj *old = kube_store_get(s->store, kube_b.endpoints, STR("default"), STR("kubernetes"));
        if (old)
                kube_store_delete(s->store, kube_b.endpoints, STR("default"), STR("kubernetes"));
        ensure(&s->api, kube_b.endpoints, "default", "kubernetes",
               arena_printf(a,
                            "{\"apiVersion\":\"v1\",\"kind\":\"Endpoints\",\"metadata\":{\"name\":\"kubernetes\",\"namespace\":\"default\"}"
                            ",\"subsets\":[{\"addresses\":"
                            "[{\"ip\":\"%s\"}],\"ports\":[{\"name\":\"https\",\"port\":%u,\"protocol\":\"TCP\"}]}]}",
                            text, port));
        old = kube_store_get(s->store, kube_b.endpointslices, STR("default"), STR("kubernetes"));
        if (old)
                kube_store_delete(s->store, kube_b.endpointslices, STR("default"), STR("kubernetes"));
        ensure(&s->api, kube_b.endpointslices, "default", "kubernetes",
               arena_printf(a,
                            "{\"apiVersion\":\"discovery.k8s.io/"
                            "v1\",\"kind\":\"EndpointSlice\",\"metadata\":{\"name\":\"kubernetes\",\"namespace\":\"default\",\"labels\":"
                            "{\"kubernetes.io/"
                            "service-name\":\"kubernetes\"}},\"addressType\":\"IPv4\",\"endpoints\":[{\"addresses\":[\"%s\"],"
                            "\"conditions\":{\"ready\":true}}],"
                            "\"ports\":[{\"name\":\"https\",\"port\":%u,\"protocol\":\"TCP\"}]}",
                            text, port));
}

/* ---- life ---- */

static bool service_cidr(struct kube_apiserver *s, struct str text, struct diags *d)
{
        struct cidr c;

        if (!text.n)
                return true;
        if (!cidr_parse(&c, text) || c.base.sa.sa_family != AF_INET || c.bits < 8 || c.bits > 24) {
                diag_add(d, DIAG_ERROR, "KUB0403", &(struct diag_at){ .resource = STR("--service-cidr") },
                         "\"" STR_FMT "\" is not an IPv4 range of 8 to 24 bits, such as 10.96.0.0/16", STR_ARG(text));
                return false;
        }
        s->api.service_base = ntohl(c.base.v4.sin_addr.s_addr);
        s->api.service_mask = 0xffffffffu << (32 - c.bits);
        return true;
}

static struct tls_ctx *make_tls(struct kube_apiserver *s, const struct kube_apiserver_opts *o, struct diags *d)
{
        static const struct str alpn[] = { { "h2", 2 }, { "http/1.1", 8 } };
        struct kube_pki pki;
        struct sans names;
        struct tls_ctx *t = NULL;

        collect_sans(s, o, &names);
        if (kube_pki_open(&pki, o->pki_dir, names.dns, names.ndns, names.ip, names.nip, d)) {
                struct tls_ctx_opts q = { .server = true,
                                          .cert_pem = buf_view(&pki.server_cert),
                                          .key_pem = buf_view(&pki.server_key),
                                          .ca_pem = buf_view(&pki.ca_cert),
                                          .client_auth = TLS_CLIENT_OPTIONAL,
                                          .alpn = alpn,
                                          .nalpn = ARRAY_LEN(alpn) };

                s->api.ca_pem = arena_str(&s->arena, buf_view(&pki.ca_cert));
                s->api.tokens = kube_tokens_new(
                        buf_view(&pki.sa_key),
                        arena_printf(&s->arena, "https://kubernetes.default.svc." STR_FMT, STR_ARG(s->api.cluster_domain)), d);
                if (s->api.tokens)
                        t = tls_ctx_new(&q, d);
        }
        kube_pki_fini(&pki);
        return t;
}

static bool open_store(struct kube_apiserver *s, struct str dir, struct diags *d)
{
        struct kube_store_ops ops = { on_dirty, s };
        char *path = mem_printf(STR_FMT "/store.db", STR_ARG(dir)), *d0 = str_dup(dir);
        int err = kube_make_dirs(d0);

        if (err)
                diag_add(d, DIAG_ERROR, "KUB0404", &(struct diag_at){ .file = dir }, "the state directory cannot be made: %s",
                         strerror(-err));
        free(d0);
        s->store = NULL;
        if (!err)
                s->store = kube_store_open(path, &ops, d);
        free(path);
        return s->store != NULL;
}

struct kube_apiserver *kube_apiserver_new(struct loop *l, const struct kube_apiserver_opts *o, struct diags *d)
{
        struct kube_apiserver *s = MEM_NEW(struct kube_apiserver);

        s->loop = l;
        s->waiting_tail = &s->waiting;
        s->commit = (struct loop_task){ .fn = on_commit_task, .arg = s };
        arena_init(&s->arena, 4096);
        if (!open_store(s, o->state_dir, d)) {
                kube_apiserver_free(s);
                return NULL;
        }
        kube_api_init(&s->api, s->store);
        if (o->cluster_domain.n)
                s->api.cluster_domain = arena_str(&s->arena, o->cluster_domain);
        s->api.node_socket = arena_str(&s->arena, o->node_socket);
        s->api.nadmission = o->nadmission;
        s->api.admission = o->nadmission ? arena_dup(&s->arena, o->admission, o->nadmission * sizeof(*o->admission)) : NULL;
        struct tls_ctx *tls = service_cidr(s, o->service_cidr, d) ? make_tls(s, o, d) : NULL;
        bool ok = tls && listen_all(s, o, tls, d);
        tls_ctx_unref(tls);
        if (!ok) {
                kube_apiserver_free(s);
                return NULL;
        }
        struct addr at;
        if (o->listen.n && addr_parse(&at, o->listen)) {
                char ip[ADDR_TEXT_MAX];

                addr_ip_text(&at, ip);
                s->api.server_url = arena_printf(&s->arena, strchr(ip, ':') ? "[%s]:%u" : "%s:%u", addr_is_any(&at) ? "127.0.0.1" : ip,
                                                 kube_apiserver_port(s));
                if (!kube_pki_kubeconfigs(o->pki_dir, arena_printf(&s->arena, "https://" STR_FMT, STR_ARG(s->api.server_url)), d)) {
                        kube_apiserver_free(s);
                        return NULL;
                }
        }
        kube_crds_install(&s->api);
        built_in_objects(s, o);
        if (!o->no_controllers)
                s->controllers = kube_controllers_new(l, &s->api);
        kube_server_flush(s);
        return s;
}

uint16_t kube_apiserver_port(const struct kube_apiserver *s)
{
        for (unsigned i = 0; i < s->nl; i++)
                if (!s->l[i].is_unix)
                        return addr_port(http_service_addr(s->l[i].http));
        return 0;
}

void kube_apiserver_free(struct kube_apiserver *s)
{
        if (!s)
                return;
        loop_timer_stop(s->loop, &s->drain_timer);
        if (s->store && kube_store_pending(s->store))
                kube_server_flush(s);
        kube_controllers_free(s->controllers);
        s->controllers = NULL;
        kube_watch_end_all(s);
        kube_tunnel_end_all(s);
        for (unsigned i = 0; i < s->nl; i++)
                http_service_free(s->l[i].http);
        if (s->node.l.http)
                http_service_free(s->node.l.http);
        loop_timer_stop(s->loop, &s->node.timer);
        tls_ctx_unref(s->node.tls);
        loop_undefer(s->loop, &s->commit);
        kube_tokens_free(s->api.tokens);
        kube_api_fini(&s->api);
        kube_store_close(s->store);
        arena_fini(&s->arena);
        free(s);
}

static bool idle(const struct kube_apiserver *s)
{
        for (unsigned i = 0; i < s->nl; i++)
                if (http_service_conns(s->l[i].http))
                        return false;
        return !s->node.l.http || !http_service_conns(s->node.l.http);
}

enum { DRAIN_LOOK_MS = 10 };

static void on_drain_timer(struct loop_timer *t)
{
        struct kube_apiserver *s = t->arg;
        void (*done)(void *) = s->drained;

        if (s->draining && !idle(s) && loop_now_ms(s->loop) < s->drain_until_ms) {
                loop_timer_arm(s->loop, t, DRAIN_LOOK_MS);
                return;
        }
        s->drained = NULL;
        if (done)
                done(s->drained_arg);
}

void kube_apiserver_drain(struct kube_apiserver *s, unsigned grace_ms, void (*done)(void *arg), void *arg)
{
        if (s->draining)
                return;
        s->draining = true;
        s->drained = done;
        s->drained_arg = arg;
        s->drain_until_ms = loop_now_ms(s->loop) + grace_ms;
        kube_watch_end_all(s);
        for (unsigned i = 0; i < s->nl; i++)
                http_service_drain(s->l[i].http);
        loop_timer_stop(s->loop, &s->node.timer);
        if (s->node.l.http)
                http_service_drain(s->node.l.http);
        s->drain_timer = (struct loop_timer){ .fn = on_drain_timer, .arg = s };
        loop_timer_arm(s->loop, &s->drain_timer, 1);
}
