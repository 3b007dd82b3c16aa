/* Watches. A watcher is a cursor into the store's history of committed changes, so it costs nothing to keep events for a slow client: it
 * goes on from where it was when its stream drains, or is told "410 Gone" when history has moved past it. */
#include "kube/server.h"

#include "base/log.h"
#include "base/mem.h"

enum { WATCHERS_MAX = 10000, BOOKMARK_MS = 60000, TIMEOUT_MIN_S = 1800, TIMEOUT_MAX_S = 86400 };

struct kube_watcher {
        struct kube_apiserver *s;
        struct kube_watcher *next, **pprev;
        struct http_stream *stream;
        struct kube_view_opts view;
        struct kube_selector labels, fields;
        bool all_namespaces;
        struct str ns, name; /* name.n 0: any */
        uint64_t pos;        /* of the next change to look at */
        uint64_t seen_rv;    /* the newest version that the client knows or that did not concern it */
        bool bookmarks;
        bool ended;
        struct loop_timer bookmark, timeout;
};

static void unlink_watcher(struct kube_watcher *w)
{
        if (!w->pprev)
                return;
        *w->pprev = w->next;
        if (w->next)
                w->next->pprev = w->pprev;
        w->pprev = NULL;
        w->s->nwatchers--;
        loop_timer_stop(w->s->loop, &w->bookmark);
        loop_timer_stop(w->s->loop, &w->timeout);
}

/* ---- sending ---- */

static void push(struct kube_watcher *w, struct buf *b, bool end)
{
        struct chain c = CHAIN_INIT;

        if (b->n)
                chain_append(&c, b->p, b->n);
        b->n = 0;
        http_send_data(w->stream, &c, end);
        chain_fini(&c);
}

static void event_json(struct kube_watcher *w, const char *type, const struct kobj *o, struct buf *b)
{
        buf_printf(b, "{\"type\":\"%s\",\"object\":", type);
        kube_view_object(&w->view, &w->s->api, o, b);
        buf_cstr(b, "}\n");
}

static void bookmark_json(struct kube_watcher *w, bool initial_end, struct buf *b)
{
        const char *annotations = initial_end ? ",\"annotations\":{\"k8s.io/initial-events-end\":\"true\"}" : "";
        unsigned long long rv = w->seen_rv;

        if (w->view.format == KUBE_FMT_TABLE)
                buf_printf(b,
                           "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"Table\",\"apiVersion\":\"meta.k8s.io/"
                           "v1\",\"metadata\":{\"resourceVersion\":\"%llu\"},"
                           "\"columnDefinitions\":[],\"rows\":[]}}\n",
                           rv);
        else
                buf_printf(b,
                           "{\"type\":\"BOOKMARK\",\"object\":{\"kind\":\"%s\",\"apiVersion\":\"%s\",\"metadata\":{\"resourceVersion\":\"%"
                           "llu\","
                           "\"creationTimestamp\":null%s}}}\n",
                           w->view.format == KUBE_FMT_PARTIAL ? "PartialObjectMetadata" : w->view.res->kind,
                           w->view.format == KUBE_FMT_PARTIAL ? "meta.k8s.io/v1" : kube_api_version(w->view.res), rv, annotations);
}

static void too_old_json(const struct kube_watcher *w, uint64_t rv, struct buf *b)
{
        unsigned long long oldest = kube_store_oldest_rv(w->s->store);

        buf_printf(b,
                   "{\"type\":\"ERROR\",\"object\":{\"kind\":\"Status\",\"apiVersion\":\"v1\",\"metadata\":{},\"status\":\"Failure\","
                   "\"message\":"
                   "\"too old resource version: %llu (%llu)\",\"reason\":\"Expired\",\"code\":410}}\n",
                   (unsigned long long)rv, oldest);
}

static void finish(struct kube_watcher *w, struct buf *b)
{
        if (w->ended)
                return;
        w->ended = true;
        unlink_watcher(w);
        push(w, b, true);
}

/* ---- what concerns a watcher ---- */

static bool in_scope(const struct kube_watcher *w, const struct kobj *o)
{
        return o->bucket == w->view.res->bucket_id && (w->all_namespaces || str_eq(o->ns, w->ns)) &&
               (!w->name.n || str_eq(o->name, w->name));
}

static bool selected(const struct kube_watcher *w, const struct kobj *o)
{
        return o && kube_labels_match(&w->labels, pb_get_path(o->node, "metadata.labels")) && kube_fields_match(&w->fields, o->node);
}

/* An object that begins or ceases to match a selector appears or disappears for this watcher. */
static const char *type_for(const struct kube_watcher *w, const struct kube_change *c)
{
        bool was = c->type != KUBE_ADDED && selected(w, c->before), is = c->type != KUBE_DELETED && selected(w, c->now);

        return was && is ? "MODIFIED" : is ? "ADDED" : was ? "DELETED" : NULL;
}

static void pump(struct kube_watcher *w)
{
        struct buf b = BUF_INIT;
        uint64_t head = kube_store_head(w->s->store);

        while (!w->ended && w->pos < head && !http_send_blocked(w->stream)) {
                const struct kube_change *c = kube_store_change(w->s->store, w->pos);

                if (!c) {
                        too_old_json(w, w->seen_rv, &b);
                        finish(w, &b);
                        break;
                }
                const char *type = in_scope(w, c->now) ? type_for(w, c) : NULL;
                w->pos++;
                w->seen_rv = c->rv;
                if (type)
                        event_json(w, type, c->now, &b);
                if (b.n > 65536)
                        push(w, &b, false);
        }
        if (!w->ended && b.n)
                push(w, &b, false);
        buf_fini(&b);
}

void kube_watch_pump_all(struct kube_apiserver *s)
{
        struct kube_watcher *next;

        for (struct kube_watcher *w = s->watchers; w; w = next) {
                next = w->next;
                pump(w);
        }
}

void kube_watch_end_all(struct kube_apiserver *s)
{
        struct buf b = BUF_INIT;

        while (s->watchers)
                finish(s->watchers, &b);
        buf_fini(&b);
}

/* ---- the stream ---- */

static void on_data(struct http_stream *stream, void *arg, struct chain *data, bool end)
{
        chain_fini(data);
}

static void on_drain(struct http_stream *stream, void *arg)
{
        struct kube_watcher *w = arg;

        if (!w->ended)
                pump(w);
}

static void on_close(struct http_stream *stream, void *arg, enum http_reset reset)
{
        struct kube_watcher *w = arg;

        w->ended = true;
        unlink_watcher(w);
}

static const struct http_stream_ops ops = { .on_data = on_data, .on_drain = on_drain, .on_close = on_close };

static void on_bookmark(struct loop_timer *t)
{
        struct kube_watcher *w = t->arg;
        struct buf b = BUF_INIT;

        if (!http_send_blocked(w->stream)) {
                bookmark_json(w, false, &b);
                push(w, &b, false);
        }
        buf_fini(&b);
        loop_timer_arm(w->s->loop, t, BOOKMARK_MS);
}

static void on_timeout(struct loop_timer *t)
{
        struct kube_watcher *w = t->arg;
        struct buf b = BUF_INIT;

        if (w->bookmarks)
                bookmark_json(w, false, &b);
        finish(w, &b);
        buf_fini(&b);
}

/* ---- beginning ---- */

/* What exists now, as ADDED events. */
static void initial(struct kube_watcher *w, struct buf *b)
{
        struct kobj *const *v;
        size_t n = kube_store_range(w->s->store, w->view.res->bucket_id, w->all_namespaces ? (struct str){ NULL, 0 } : w->ns, &v);

        for (size_t i = 0; i < n; i++)
                if (in_scope(w, v[i]) && selected(w, v[i]))
                        event_json(w, "ADDED", v[i], b);
}

/* From where: the given version, or, without one, from what exists now. */
static void begin(struct kube_watcher *w, struct kube_req *r, struct buf *b)
{
        struct str text = kube_query_get(r->query, "resourceVersion");
        bool send_initial = kube_query_bool(r->query, "sendInitialEvents");
        uint64_t rv = 0;

        str_u64(text, &rv);
        w->seen_rv = kube_store_rv(w->s->store);
        if (!rv || send_initial) {
                w->pos = kube_store_head(w->s->store);
                if (send_initial || !kube_query_get(r->query, "sendInitialEvents").n)
                        initial(w, b);
                if (send_initial && w->bookmarks)
                        bookmark_json(w, true, b);
        } else if (rv > kube_store_rv(w->s->store) || !kube_store_seek(w->s->store, rv, &w->pos)) {
                too_old_json(w, rv, b);
                finish(w, b);
        } else {
                w->seen_rv = rv;
        }
}

static bool read_options(struct kube_watcher *w, struct kube_req *r, uint64_t *timeout_s)
{
        struct str rv = kube_query_get(r->query, "resourceVersion"), t = kube_query_get(r->query, "timeoutSeconds");
        uint64_t v;

        if (!kube_rest_selectors(r, &w->labels, &w->fields))
                return false;
        if (rv.n && !str_u64(rv, &v))
                return kube_req_error(r, 400, "BadRequest",
                                      "resourceVersion: Invalid value: \"" STR_FMT "\": must be one that this server gave", STR_ARG(rv));
        *timeout_s = TIMEOUT_MIN_S + rand_u64() % TIMEOUT_MIN_S;
        if (t.n && !str_u64(t, timeout_s))
                return kube_req_error(r, 400, "BadRequest", "timeoutSeconds: Invalid value: \"" STR_FMT "\": must be a number", STR_ARG(t));
        if (!*timeout_s || *timeout_s > TIMEOUT_MAX_S)
                *timeout_s = TIMEOUT_MAX_S;
        if (w->s->nwatchers >= WATCHERS_MAX) {
                kube_req_error(r, 429, "TooManyRequests", "this server keeps no more than %d watches", WATCHERS_MAX);
                r->err.retry_after_s = 5;
                return false;
        }
        return true;
}

void kube_watch_start(struct kube_call *c)
{
        struct kube_req *r = &c->r;
        struct kube_apiserver *s = c->s;
        struct kube_watcher *w = ARENA_NEW(r->a, struct kube_watcher);
        struct http_head m;
        struct buf b = BUF_INIT;
        uint64_t timeout_s;

        w->s = s;
        w->stream = c->stream;
        w->view = r->view;
        w->all_namespaces = !r->path.has_ns;
        w->ns = r->path.ns;
        if (!read_options(w, r, &timeout_s)) {
                kube_req_fail(r);
                kube_server_answer(c);
                return;
        }
        w->name = r->path.name.n ? r->path.name : kube_fields_name(&w->fields);
        w->bookmarks = kube_query_bool(r->query, "allowWatchBookmarks");
        /* A watch begins at what is on disk: nothing that could still be taken back. */
        if (kube_store_pending(s->store))
                kube_server_flush(s);
        r->status = 200;
        kube_server_head(c, &m);
        m.status = 200;
        http_add(&m, HN_CONTENT_TYPE, STR("application/json"));
        m.content_length = -1;
        http_stream_set_ops(w->stream, &ops, w);
        c->stream = NULL;
        http_send_head(w->stream, &m, false);
        w->next = s->watchers;
        w->pprev = &s->watchers;
        if (w->next)
                w->next->pprev = &w->next;
        s->watchers = w;
        s->nwatchers++;
        w->bookmark = (struct loop_timer){ .fn = on_bookmark, .arg = w };
        w->timeout = (struct loop_timer){ .fn = on_timeout, .arg = w };
        loop_timer_arm(s->loop, &w->timeout, timeout_s * 1000);
        if (w->bookmarks)
                loop_timer_arm(s->loop, &w->bookmark, BOOKMARK_MS);
        begin(w, r, &b);
        if (!w->ended) {
                if (b.n)
                        push(w, &b, false);
                pump(w);
        }
        buf_fini(&b);
}
