/* Informers: a list, then a watch from its resourceVersion on, for ever. What they hold is what the server last said, also while it cannot
 * be reached. After a relist (the watch's version was too old: 410 Gone) only real differences are told. */
#include "base/buf.h"
#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"
#include "kube/client_call.h"

#include <stdlib.h>

enum {
        LIST_TIMEOUT_MS = 60000,
        LIST_PAGE = 500,
        LIST_MAX_BYTES = 256 << 20,
        EVENT_MAX_BYTES = 64 << 20,
        WATCH_MIN_S = 300, /* the server ends the watch after this and as much again at most */
        WATCH_GRACE_MS = 30000,
        BACKOFF_MIN_MS = 100,
        BACKOFF_MAX_MS = 30000,  /* the server answers, but with errors */
        RECONNECT_MAX_MS = 1000, /* nobody there: a restarted server must be found soon */
        ABSENT_MAX_MS = 5000,    /* 404: the kind may be defined any time */
        QUICK_END_MS = 1000,     /* a watch that ends sooner is trouble, even without an error */
};

enum phase { LISTING, WATCHING, RESTING };

struct kube_informer {
        struct kube_client *client; /* NULL: freed */
        struct loop *loop;
        char *path, *query;
        struct kube_informer_ops ops;
        void *arg;
        enum phase phase;
        struct kube_call *call;
        struct loop_timer timer;
        struct loop_task gone;
        struct strmap objects; /* "namespace/name" -> struct kube_object */
        struct strmap seen;    /* during a list: what it held */
        struct buf in;         /* a list's page, or the unfinished event */
        size_t scanned;
        int status;
        char *version, *next_page;
        uint64_t watch_began_ms;
        unsigned backoff_ms;
        bool synced, freed, relist, broken, troubled;
};

/* ---- objects ---- */

struct kube_object *kube_object_ref(struct kube_object *o)
{
        o->refs++;
        return o;
}

void kube_object_unref(struct kube_object *o)
{
        if (!o || --o->refs)
                return;
        arena_fini(&o->arena);
        free(o);
}

/* Only the server's own book-keeping; often larger than the object. */
static void strip(struct pb_node *node)
{
        struct pb_node *meta = pb_get(node, "metadata");

        if (meta)
                pb_del(meta, "managedFields");
}

static struct kube_object *object_new(struct pb_node *node, struct str api_version, struct str kind)
{
        struct kube_object *o = MEM_NEW(struct kube_object);

        strip(node);
        arena_init(&o->arena, 2048);
        o->refs = 1;
        o->node = pb_clone(&o->arena, node);
        if (!pb_get(o->node, "apiVersion") && api_version.n)
                pb_put_str(&o->arena, o->node, "apiVersion", arena_str(&o->arena, api_version));
        if (!pb_get(o->node, "kind") && kind.n)
                pb_put_str(&o->arena, o->node, "kind", arena_str(&o->arena, kind));
        o->namespace_ = pb_get_str(o->node, "metadata.namespace", STR(""));
        o->name = pb_get_str(o->node, "metadata.name", STR(""));
        o->uid = pb_get_str(o->node, "metadata.uid", STR(""));
        o->resource_version = pb_get_str(o->node, "metadata.resourceVersion", STR(""));
        return o;
}

static struct str key_of(struct str ns, struct str name, struct arena *a)
{
        return arena_printf(a, STR_FMT "/" STR_FMT, STR_ARG(ns), STR_ARG(name));
}

/* Takes o's reference. False when the informer was freed by its owner meanwhile. */
static bool set_object(struct kube_informer *i, struct kube_object *o)
{
        struct arena a;

        arena_init(&a, 256);
        struct kube_object *before = strmap_set(&i->objects, key_of(o->namespace_, o->name, &a), o);
        arena_fini(&a);
        bool same = before && before->resource_version.n && str_eq(before->resource_version, o->resource_version) &&
                    str_eq(before->uid, o->uid);
        if (!same && i->ops.on_set) {
                kube_object_ref(o);
                i->ops.on_set(i->arg, o, before);
                kube_object_unref(o);
        }
        kube_object_unref(before);
        return !i->freed;
}

static bool delete_object(struct kube_informer *i, struct str key)
{
        struct kube_object *o = strmap_del(&i->objects, key);

        if (o && i->ops.on_delete)
                i->ops.on_delete(i->arg, o);
        kube_object_unref(o);
        return !i->freed;
}

/* ---- waiting and trying again ---- */

static void start_list(struct kube_informer *i);
static void start_watch(struct kube_informer *i);

static void on_timer(struct loop_timer *t)
{
        struct kube_informer *i = t->arg;

        if (i->relist || !i->version)
                start_list(i);
        else
                start_watch(i);
}

static void rest(struct kube_informer *i, const char *why, unsigned max_ms)
{
        i->phase = RESTING;
        i->backoff_ms = i->backoff_ms ? i->backoff_ms * 2 : BACKOFF_MIN_MS;
        if (i->backoff_ms > max_ms)
                i->backoff_ms = max_ms;
        loop_timer_arm(i->loop, &i->timer, i->backoff_ms / 2 + (uint64_t)(rand_unit() * i->backoff_ms / 2));
        i->troubled = true;
        LOG(LOG_DEBUG, "kube", "%s: %s; next try in %u ms", i->path, why, i->backoff_ms);
        if (i->ops.on_trouble)
                i->ops.on_trouble(i->arg, why);
}

static void went_well(struct kube_informer *i)
{
        if (i->troubled)
                LOG(LOG_INFO, "kube", "%s: connected again", i->path);
        i->troubled = false;
        i->backoff_ms = 0;
}

static void set_text(char **where, struct str s)
{
        free(*where);
        *where = s.n ? str_dup(s) : NULL;
}

/* What a Status object or an HTTP error says. */
static char *explain(int status, struct str body)
{
        struct arena a;
        struct diags d;
        struct pb_node *n;
        char *text;

        arena_init(&a, 0);
        diags_init(&d);
        if (pb_parse_json(body, STR(""), &a, &n, &d) && pb_get_str(n, "message", STR("")).n)
                text = mem_printf("the server answered %d: " STR_FMT, status, STR_ARG(pb_get_str(n, "message", STR(""))));
        else
                text = mem_printf("the server answered %d", status);
        diags_fini(&d);
        arena_fini(&a);
        return text;
}

/* ---- listing ---- */

static void escape(struct buf *b, const char *s)
{
        for (; *s; s++) {
                if (strchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~", *s))
                        buf_char(b, *s);
                else
                        buf_printf(b, "%%%02X", (unsigned char)*s);
        }
}

static void on_head(void *arg, const struct http_head *m)
{
        struct kube_informer *i = arg;

        i->status = m->status;
        if (i->phase == WATCHING && m->status == 200)
                went_well(i);
}

static void on_list_data(void *arg, struct chain *data)
{
        struct kube_informer *i = arg;

        while (data->n) {
                struct str s = chain_front(data);

                if (i->in.n + s.n > LIST_MAX_BYTES)
                        i->broken = true;
                else
                        buf_append(&i->in, s.p, s.n);
                chain_drop(data, s.n);
        }
}

/* The page is in: false when it is not a list, or the informer is gone. */
static bool take_page(struct kube_informer *i, struct arena *a, struct diags *d)
{
        struct pb_node *root, *items;

        if (!pb_parse_json(buf_view(&i->in), STR(""), a, &root, d))
                return false;
        items = pb_get(root, "items");
        struct str kind = pb_get_str(root, "kind", STR("")), api_version = pb_get_str(root, "apiVersion", STR(""));
        struct str version = pb_get_str(root, "metadata.resourceVersion", STR(""));
        if (!str_ends(kind, STR("List")) || !version.n) {
                diag_add(d, DIAG_ERROR, NULL, NULL, "the answer is not a list with a resourceVersion");
                return false;
        }
        kind.n -= 4;
        set_text(&i->version, version);
        set_text(&i->next_page, pb_get_str(root, "metadata.continue", STR("")));
        for (size_t k = 0; items && items->kind == PB_LIST && k < items->n; k++) {
                if (items->v[k]->kind != PB_MAP)
                        continue;
                struct kube_object *o = object_new(items->v[k], api_version, kind);
                strmap_set(&i->seen, key_of(o->namespace_, o->name, a), i);
                if (!set_object(i, o))
                        return false;
        }
        return true;
}

static bool drop_unseen(struct kube_informer *i)
{
        struct arena a;
        struct str *gone;
        size_t n = 0;

        arena_init(&a, 0);
        gone = arena_alloc(&a, (i->objects.live + 1) * sizeof(*gone));
        STRMAP_EACH (&i->objects, it)
                if (!strmap_has(&i->seen, it->key))
                        gone[n++] = arena_str(&a, it->key);
        bool alive = true;
        for (size_t k = 0; alive && k < n; k++)
                alive = delete_object(i, gone[k]);
        arena_fini(&a);
        return alive;
}

static void synced(struct kube_informer *i)
{
        if (i->synced)
                return;
        i->synced = true;
        if (i->ops.on_synced)
                i->ops.on_synced(i->arg);
}

static void list_page(struct kube_informer *i);

static void list_failed(struct kube_informer *i, const char *error)
{
        char *why = error ? mem_strdup(error) : explain(i->status, buf_view(&i->in));

        set_text(&i->version, STR(""));
        set_text(&i->next_page, STR(""));
        buf_fini(&i->in);
        strmap_fini(&i->seen);
        i->seen = (struct strmap)STRMAP_INIT;
        if (!error && i->status == 404) { /* the server does not know the kind: there are none */
                if (drop_unseen(i)) {
                        synced(i);
                        if (!i->freed)
                                rest(i, why, ABSENT_MAX_MS);
                }
        } else {
                rest(i, why, error ? RECONNECT_MAX_MS : BACKOFF_MAX_MS);
        }
        free(why);
}

static void on_list_end(void *arg, const char *error)
{
        struct kube_informer *i = arg;
        struct arena a;
        struct diags d;

        i->call = NULL;
        if (!error && i->broken)
                error = "the list is larger than 256 MiB";
        if (error || i->status != 200) {
                list_failed(i, error); /* also 410 in the middle of the pages: from the start */
                return;
        }
        arena_init(&a, 65536);
        diags_init(&d);
        bool ok = take_page(i, &a, &d);
        struct buf why = BUF_INIT;
        if (d.n)
                diag_format(&d.v[0], &why);
        diags_fini(&d);
        arena_fini(&a);
        buf_fini(&i->in);
        if (!i->freed && !ok) {
                list_failed(i, buf_z(&why));
        } else if (!i->freed && i->next_page) {
                list_page(i);
        } else if (!i->freed && drop_unseen(i)) {
                strmap_fini(&i->seen);
                i->seen = (struct strmap)STRMAP_INIT;
                i->relist = false;
                went_well(i);
                synced(i);
                if (!i->freed)
                        start_watch(i);
        }
        buf_fini(&why);
}

static void on_drop(void *arg)
{
        struct kube_informer *i = arg;

        i->call = NULL;
}

static void list_page(struct kube_informer *i)
{
        static const struct kube_call_ops ops = { on_head, on_list_data, on_list_end, on_drop };
        struct buf path = BUF_INIT;

        i->phase = LISTING;
        i->status = 0;
        i->broken = false;
        buf_printf(&path, "%s?limit=%d", i->path, LIST_PAGE);
        if (i->next_page) {
                buf_cstr(&path, "&continue=");
                escape(&path, i->next_page);
        }
        if (*i->query)
                buf_printf(&path, "&%s", i->query);
        struct kube_call_opts o = { .method = "GET", .path = buf_view(&path), .timeout_ms = LIST_TIMEOUT_MS };
        i->call = kube_call_new(i->client, &o, &ops, i);
        buf_fini(&path);
}

static void start_list(struct kube_informer *i)
{
        set_text(&i->next_page, STR(""));
        strmap_fini(&i->seen);
        i->seen = (struct strmap)STRMAP_INIT;
        buf_fini(&i->in);
        list_page(i);
}

/* ---- watching ---- */

/* An event of type ERROR carries a Status. */
static void watch_error(struct kube_informer *i, const struct pb_node *status)
{
        uint64_t code = 0;

        str_u64(pb_get_str(status, "code", STR("0")), &code);
        i->broken = true;
        i->status = (int)code;
        if (code == 410)
                i->relist = true;
        else
                LOG(LOG_WARN, "kube", "%s: watch: " STR_FMT, i->path,
                    STR_ARG(pb_get_str(status, "message", STR("error without a message"))));
}

/* False: stop here (the watch is broken, or the informer gone). */
static bool take_event(struct kube_informer *i, struct str line)
{
        struct arena a;
        struct diags d;
        struct pb_node *root, *object;
        bool alive = true;

        arena_init(&a, 4096);
        diags_init(&d);
        if (!pb_parse_json(line, STR(""), &a, &root, &d) || !(object = pb_get(root, "object")) || object->kind != PB_MAP) {
                LOG(LOG_WARN, "kube", "%s: watch: an event that is not one: %.200s", i->path, d.n ? d.v[0].text.p : "no object");
                i->broken = i->relist = true;
                alive = false;
                goto out;
        }
        struct str type = pb_get_str(root, "type", STR("")), version = pb_get_str(object, "metadata.resourceVersion", STR(""));
        if (str_eqc(type, "ERROR")) {
                watch_error(i, object);
                alive = false;
                goto out;
        }
        if (version.n)
                set_text(&i->version, version);
        if (str_eqc(type, "ADDED") || str_eqc(type, "MODIFIED")) {
                alive = set_object(i, object_new(object, STR(""), STR("")));
        } else if (str_eqc(type, "DELETED")) {
                alive = delete_object(
                        i, key_of(pb_get_str(object, "metadata.namespace", STR("")), pb_get_str(object, "metadata.name", STR("")), &a));
        } else if (!str_eqc(type, "BOOKMARK")) {
                LOG(LOG_WARN, "kube", "%s: watch: unknown event type \"" STR_FMT "\"", i->path, STR_ARG(type));
        }
out:
        diags_fini(&d);
        arena_fini(&a);
        return alive;
}

static void on_watch_data(void *arg, struct chain *data)
{
        struct kube_informer *i = arg;

        while (data->n) {
                struct str s = chain_front(data);

                if (i->in.n + s.n > EVENT_MAX_BYTES)
                        i->broken = i->relist = true;
                else if (!i->broken)
                        buf_append(&i->in, s.p, s.n);
                chain_drop(data, s.n);
        }
        if (i->status != 200)
                return;
        size_t at = 0;
        while (!i->broken) {
                const char *nl = memchr(i->in.p + i->scanned, '\n', i->in.n - i->scanned);

                if (!nl)
                        break;
                size_t end = (size_t)(nl - i->in.p);
                if (end > at && !take_event(i, str_make(i->in.p + at, end - at)))
                        break;
                at = i->scanned = end + 1;
        }
        if (i->freed)
                return;
        if (!i->broken) {
                buf_consume(&i->in, at);
                i->scanned = i->in.n;
                if (!i->in.n)
                        buf_fini(&i->in);
                return;
        }
        struct kube_call *k = i->call; /* nothing sensible comes any more */
        i->call = NULL;
        buf_fini(&i->in);
        kube_call_cancel(k);
        if (i->relist)
                start_list(i);
        else
                rest(i, "the watch broke", BACKOFF_MAX_MS);
}

static void on_watch_end(void *arg, const char *error)
{
        struct kube_informer *i = arg;

        i->call = NULL;
        if (!error && i->status == 410) {
                i->relist = true;
                start_list(i);
        } else if (!error && i->status != 200) {
                char *why = explain(i->status, buf_view(&i->in));

                i->relist = i->status == 404;
                rest(i, why, BACKOFF_MAX_MS);
                free(why);
        } else if (!error && loop_now_ms(i->loop) - i->watch_began_ms >= QUICK_END_MS) {
                start_watch(i);
        } else {
                rest(i, error ? error : "the server ended the watch at once", RECONNECT_MAX_MS);
        }
}

static void start_watch(struct kube_informer *i)
{
        static const struct kube_call_ops ops = { on_head, on_watch_data, on_watch_end, on_drop };
        unsigned seconds = WATCH_MIN_S + (unsigned)(rand_unit() * WATCH_MIN_S);
        struct buf path = BUF_INIT;

        i->phase = WATCHING;
        i->status = 0;
        i->broken = false;
        i->scanned = 0;
        buf_fini(&i->in);
        i->watch_began_ms = loop_now_ms(i->loop);
        buf_printf(&path, "%s?watch=true&allowWatchBookmarks=true&timeoutSeconds=%u&resourceVersion=", i->path, seconds);
        escape(&path, i->version);
        if (*i->query)
                buf_printf(&path, "&%s", i->query);
        struct kube_call_opts o = {
                .method = "GET",
                .path = buf_view(&path),
                .timeout_ms = seconds * 1000 + WATCH_GRACE_MS,
                .long_lived = true,
        };
        i->call = kube_call_new(i->client, &o, &ops, i);
        buf_fini(&path);
}

/* ---- life ---- */

struct kube_informer *kube_informer_new(struct kube_client *c, struct str path, struct str query, const struct kube_informer_ops *ops,
                                        void *arg)
{
        struct kube_informer *i = MEM_NEW(struct kube_informer);

        *i = (struct kube_informer){
                .client = c,
                .loop = kube_client_loop(c),
                .path = str_dup(path),
                .query = str_dup(query),
                .ops = *ops,
                .arg = arg,
                .timer = { .fn = on_timer, .arg = i },
        };
        kube_client_adopt(c, i);
        start_list(i);
        return i;
}

static void on_gone(struct loop_task *t)
{
        free(t->arg);
}

void kube_informer_free(struct kube_informer *i)
{
        if (!i || i->freed)
                return;
        i->freed = true;
        loop_timer_stop(i->loop, &i->timer);
        kube_call_cancel(i->call);
        i->call = NULL;
        if (i->client)
                kube_client_abandon(i->client, i);
        STRMAP_EACH (&i->objects, it)
                kube_object_unref(it->value);
        strmap_fini(&i->objects);
        strmap_fini(&i->seen);
        buf_fini(&i->in);
        set_text(&i->version, STR(""));
        set_text(&i->next_page, STR(""));
        free(i->path);
        free(i->query);
        i->gone = (struct loop_task){ .fn = on_gone, .arg = i }; /* its own frames may be on the stack */
        loop_defer(i->loop, &i->gone);
}

void kube_informer_orphan(struct kube_informer *i)
{
        i->client = NULL;
        loop_timer_stop(i->loop, &i->timer);
}

struct kube_object *kube_informer_get(struct kube_informer *i, struct str ns, struct str name)
{
        struct arena a;

        arena_init(&a, 512);
        struct kube_object *o = strmap_get(&i->objects, key_of(ns, name, &a));
        arena_fini(&a);
        return o;
}

void kube_informer_each(struct kube_informer *i, void (*fn)(void *arg, struct kube_object *o), void *arg)
{
        STRMAP_EACH (&i->objects, it)
                fn(arg, it->value);
}

bool kube_informer_synced(const struct kube_informer *i)
{
        return i->synced;
}
