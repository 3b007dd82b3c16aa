/* Objects in memory, a database behind them. The database is a journal that happens to be queryable: it is read once, at start. The trap
 * here is the failed commit: everything done since the last one is taken back, in reverse, from the history itself. */
#include "kube/store.h"

#include "base/hash.h"
#include "base/log.h"
#include "base/mem.h"

#include <errno.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { SCHEMA_VERSION = 1, APPLICATION_ID = 0x50737431 /* "Pst1" */ };

struct bucket {
        struct kobj **v; /* sorted by (ns, name) */
        size_t n, cap;
};

struct kube_store {
        sqlite3 *db;
        sqlite3_stmt *put, *del, *set_rv;
        char *path;
        struct kube_store_ops ops;
        struct bucket *b;
        struct strmap uids;   /* uid -> kobj */
        struct strmap owners; /* owner uid -> number of dependents, as uintptr_t */
        uint64_t rv, committed_rv;
        bool pending;
        unsigned rollbacks;
        struct kube_change *ring;        /* KUBE_HISTORY slots, by position modulo */
        uint64_t first, committed, head; /* positions: oldest kept, one past the last committed, one past the last */
        uint64_t oldest_rv;              /* a watch at this version or later misses nothing */
        char *error;
        bool full;
};

/* ---- objects ---- */

struct kobj *kobj_ref(struct kobj *o)
{
        if (o)
                o->refs++;
        return o;
}

void kobj_unref(struct kobj *o)
{
        if (!o || --o->refs)
                return;
        arena_fini(&o->arena);
        free(o);
}

/* The object without apiVersion and kind: the part that is the same in every version. */
static void rest_json(const struct pb_node *node, struct buf *out)
{
        struct buf key = BUF_INIT;
        bool first = true;

        for (size_t i = 0; i < node->n; i++) {
                if (str_eqc(node->keys[i], "apiVersion") || str_eqc(node->keys[i], "kind"))
                        continue;
                key.n = 0;
                buf_json(&key, node->keys[i]);
                if (!first)
                        buf_char(out, ',');
                buf_str(out, buf_view(&key));
                buf_char(out, ':');
                pb_node_json(node->v[i], out);
                first = false;
        }
        buf_char(out, '}');
        buf_fini(&key);
}

void kobj_json(const struct kobj *o, const struct kube_resource *r, struct buf *out)
{
        buf_printf(out, "{\"apiVersion\":\"%s\",\"kind\":\"%s\"%s", kube_api_version(r), r->kind, o->rest.n > 1 ? "," : "");
        buf_str(out, o->rest);
}

/* A new version from a tree that is copied. */
static struct kobj *kobj_new(unsigned bucket, struct str ns, struct str name, uint64_t rv, const struct pb_node *node)
{
        struct kobj *o = MEM_NEW(struct kobj);
        struct buf text = BUF_INIT;

        rest_json(node, &text);
        o->refs = 1;
        o->bucket = bucket;
        o->rv = rv;
        arena_init(&o->arena, text.n * 4 + 512);
        o->ns = arena_str(&o->arena, ns);
        o->name = arena_str(&o->arena, name);
        o->rest = arena_str(&o->arena, buf_view(&text));
        o->node = pb_clone(&o->arena, node);
        o->uid = pb_get_str(o->node, "metadata.uid", STR(""));
        const struct pb_node *owners = pb_get_path(o->node, "metadata.ownerReferences");
        o->nowners = owners && owners->kind == PB_LIST ? (unsigned)owners->n : 0;
        buf_fini(&text);
        return o;
}

/* ---- the index in memory ---- */

static int key_cmp(const struct kobj *o, struct str ns, struct str name)
{
        int c = str_cmp(o->ns, ns);

        return c ? c : str_cmp(o->name, name);
}

/* The first object not before (ns, name). */
static size_t lower_bound(const struct bucket *b, struct str ns, struct str name)
{
        size_t lo = 0, hi = b->n;

        while (lo < hi) {
                size_t mid = lo + (hi - lo) / 2;

                if (key_cmp(b->v[mid], ns, name) < 0)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        return lo;
}

static void count_owners(struct kube_store *s, const struct kobj *o, int delta)
{
        const struct pb_node *owners = o->nowners ? pb_get_path(o->node, "metadata.ownerReferences") : NULL;

        for (size_t i = 0; owners && i < owners->n; i++) {
                struct str uid = pb_get_str(owners->v[i], "uid", STR(""));
                uintptr_t n = (uintptr_t)strmap_get(&s->owners, uid) + (uintptr_t)(intptr_t)delta;

                if (n)
                        strmap_set(&s->owners, uid, (void *)n);
                else
                        strmap_del(&s->owners, uid);
        }
}

/* Makes `now` what is stored at (ns, name) of its bucket, or nothing when NULL. Takes one reference of `now`, drops that of the old one. */
static void index_set(struct kube_store *s, unsigned bucket, struct str ns, struct str name, struct kobj *now)
{
        struct bucket *b = &s->b[bucket];
        size_t i = lower_bound(b, ns, name);
        struct kobj *old = i < b->n && !key_cmp(b->v[i], ns, name) ? b->v[i] : NULL;

        if (old) {
                count_owners(s, old, -1);
                strmap_del(&s->uids, old->uid);
        }
        if (now) {
                count_owners(s, now, 1);
                if (now->uid.n)
                        strmap_set(&s->uids, now->uid, now);
        }
        if (old && now) {
                b->v[i] = now;
        } else if (now) {
                (void)VEC_PUSH(b->v, b->n, b->cap);
                memmove(b->v + i + 1, b->v + i, (b->n - 1 - i) * sizeof(*b->v));
                b->v[i] = now;
        } else if (old) {
                memmove(b->v + i, b->v + i + 1, (b->n - 1 - i) * sizeof(*b->v));
                b->n--;
        }
        kobj_unref(old);
}

struct kobj *kube_store_get(const struct kube_store *s, unsigned bucket, struct str ns, struct str name)
{
        const struct bucket *b = &s->b[bucket];
        size_t i = lower_bound(b, ns, name);

        return i < b->n && !key_cmp(b->v[i], ns, name) ? b->v[i] : NULL;
}

size_t kube_store_range(const struct kube_store *s, unsigned bucket, struct str ns, struct kobj *const **v)
{
        const struct bucket *b = &s->b[bucket];

        if (!ns.p) {
                *v = b->v;
                return b->n;
        }
        size_t from = lower_bound(b, ns, STR("")), to = from;
        while (to < b->n && str_eq(b->v[to]->ns, ns))
                to++;
        *v = b->v + from;
        return to - from;
}

size_t kube_store_list(const struct kube_store *s, unsigned bucket, struct str ns, struct kobj ***v)
{
        struct kobj *const *src;
        size_t n = kube_store_range(s, bucket, ns, &src);

        *v = mem_calloc(n + 1, sizeof(**v));
        for (size_t i = 0; i < n; i++)
                (*v)[i] = kobj_ref(src[i]);
        return n;
}

void kube_store_list_free(struct kobj **v, size_t n)
{
        for (size_t i = 0; i < n; i++)
                kobj_unref(v[i]);
        free(v);
}

bool kube_store_has_dependents(const struct kube_store *s, struct str uid)
{
        return strmap_has(&s->owners, uid);
}

struct kobj *kube_store_by_uid(const struct kube_store *s, struct str uid)
{
        return strmap_get(&s->uids, uid);
}

/* ---- history ---- */

static struct kube_change *slot(const struct kube_store *s, uint64_t pos)
{
        return &s->ring[pos % KUBE_HISTORY];
}

static void forget_oldest(struct kube_store *s)
{
        struct kube_change *c = slot(s, s->first++);

        s->oldest_rv = c->rv;
        kobj_unref(c->now);
        kobj_unref(c->before);
        *c = (struct kube_change){ 0 };
}

static void record(struct kube_store *s, enum kube_change_type type, struct kobj *now, struct kobj *before)
{
        if (s->head - s->first == KUBE_HISTORY)
                forget_oldest(s);
        *slot(s, s->head++) = (struct kube_change){ s->rv, type, kobj_ref(now), kobj_ref(before) };
}

uint64_t kube_store_head(const struct kube_store *s)
{
        return s->committed;
}

const struct kube_change *kube_store_change(const struct kube_store *s, uint64_t pos)
{
        return pos >= s->first && pos < s->committed ? slot(s, pos) : NULL;
}

bool kube_store_seek(const struct kube_store *s, uint64_t rv, uint64_t *pos)
{
        uint64_t lo = s->first, hi = s->committed;

        if (rv < s->oldest_rv)
                return false;
        while (lo < hi) {
                uint64_t mid = lo + (hi - lo) / 2;

                if (slot(s, mid)->rv <= rv)
                        lo = mid + 1;
                else
                        hi = mid;
        }
        *pos = lo;
        return true;
}

uint64_t kube_store_oldest_rv(const struct kube_store *s)
{
        return s->oldest_rv;
}

/* ---- the database ---- */

uint64_t kube_store_rv(const struct kube_store *s)
{
        return s->rv;
}

bool kube_store_pending(const struct kube_store *s)
{
        return s->pending;
}

unsigned kube_store_rollbacks(const struct kube_store *s)
{
        return s->rollbacks;
}

const char *kube_store_error(const struct kube_store *s)
{
        return s->error ? s->error : "";
}

bool kube_store_full(const struct kube_store *s)
{
        return s->full;
}

static void db_failed(struct kube_store *s, const char *doing)
{
        int rc = sqlite3_extended_errcode(s->db);

        free(s->error);
        s->full = (rc & 0xff) == SQLITE_FULL || (rc & 0xff) == SQLITE_IOERR;
        if ((rc & 0xff) == SQLITE_FULL)
                s->error = mem_printf("%s: no space left for %s; nothing was changed: free some space and try again", doing, s->path);
        else if ((rc & 0xff) == SQLITE_CORRUPT || (rc & 0xff) == SQLITE_NOTADB)
                s->error = mem_printf("%s: %s is damaged (%s); nothing was changed: stop the server and restore the file", doing, s->path,
                                      sqlite3_errmsg(s->db));
        else
                s->error = mem_printf("%s: %s: %s; nothing was changed", doing, s->path, sqlite3_errmsg(s->db));
        LOG(LOG_ERROR, "store", "%s", s->error);
}

static bool exec(struct kube_store *s, const char *sql)
{
        return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK;
}

/* Takes back everything since the last commit, in memory and in the database. */
void kube_store_roll_back(struct kube_store *s)
{
        exec(s, "ROLLBACK");
        while (s->head > s->committed) {
                struct kube_change *c = slot(s, --s->head);
                struct kobj *o = c->now;

                index_set(s, o->bucket, o->ns, o->name, kobj_ref(c->before));
                kobj_unref(c->now);
                kobj_unref(c->before);
                *c = (struct kube_change){ 0 };
        }
        s->rv = s->committed_rv;
        s->pending = false;
        s->rollbacks++;
}

void kube_store_limit_pages(struct kube_store *s, unsigned pages)
{
        char sql[64];

        snprintf(sql, sizeof(sql), "PRAGMA max_page_count=%u", pages);
        exec(s, sql);
}

static bool begin(struct kube_store *s)
{
        /* A transaction that would outgrow the history could not be taken back: what is there goes to disk first. */
        if (s->pending && s->head - s->committed >= KUBE_HISTORY / 2 && kube_store_commit(s))
                return false;
        if (s->pending)
                return true;
        if (!exec(s, "BEGIN IMMEDIATE")) {
                db_failed(s, "cannot write to the store");
                return false;
        }
        s->pending = true;
        if (s->ops.on_dirty)
                s->ops.on_dirty(s->ops.arg);
        return true;
}

static bool run(struct kube_store *s, sqlite3_stmt *st, const char *doing)
{
        int rc = sqlite3_step(st);

        if (rc != SQLITE_DONE)
                db_failed(s, doing);
        sqlite3_reset(st);
        sqlite3_clear_bindings(st);
        return rc == SQLITE_DONE;
}

static void bind_str(sqlite3_stmt *st, int i, struct str v)
{
        sqlite3_bind_text64(st, i, v.p ? v.p : "", v.n, SQLITE_STATIC, SQLITE_UTF8);
}

static void bind_key(sqlite3_stmt *st, unsigned bucket, struct str ns, struct str name)
{
        bind_str(st, 1, str_of(kube_bucket_resource(bucket)->bucket));
        bind_str(st, 2, ns);
        bind_str(st, 3, name);
}

static void set_rv(struct arena *a, struct pb_node *node, uint64_t rv)
{
        struct pb_node *meta = pb_get(node, "metadata");

        if (!meta) {
                meta = pb_new(a, PB_MAP, STR(""));
                pb_put(a, node, STR("metadata"), meta);
        }
        pb_put_str(a, meta, "resourceVersion", arena_printf(a, "%llu", (unsigned long long)rv));
}

struct kobj *kube_store_put(struct kube_store *s, unsigned bucket, struct str ns, struct str name, struct pb_node *node, struct arena *a)
{
        if (!begin(s))
                return NULL;
        set_rv(a, node, s->rv + 1);
        struct kobj *o = kobj_new(bucket, ns, name, s->rv + 1, node);
        bind_key(s->put, bucket, ns, name);
        sqlite3_bind_int64(s->put, 4, (sqlite3_int64)o->rv);
        bind_str(s->put, 5, o->rest);
        if (!run(s, s->put, "cannot write to the store")) {
                kobj_unref(o);
                kube_store_roll_back(s); /* SQLite may have done so itself: the whole turn is void */
                return NULL;
        }
        struct kobj *before = kobj_ref(kube_store_get(s, bucket, ns, name));
        s->rv++;
        record(s, before ? KUBE_MODIFIED : KUBE_ADDED, o, before);
        index_set(s, bucket, o->ns, o->name, o);
        kobj_unref(before);
        return o;
}

struct kobj *kube_store_delete(struct kube_store *s, unsigned bucket, struct str ns, struct str name)
{
        struct kobj *before = kobj_ref(kube_store_get(s, bucket, ns, name));

        if (!before || !begin(s)) {
                kobj_unref(before);
                return NULL;
        }
        bind_key(s->del, bucket, before->ns, before->name);
        if (!run(s, s->del, "cannot write to the store")) {
                kobj_unref(before);
                kube_store_roll_back(s);
                return NULL;
        }
        struct arena tmp;
        arena_init(&tmp, 0);
        struct pb_node *last = pb_clone(&tmp, before->node);
        set_rv(&tmp, last, ++s->rv);
        struct kobj *gone = kobj_new(bucket, before->ns, before->name, s->rv, last);
        arena_fini(&tmp);
        record(s, KUBE_DELETED, gone, before);
        index_set(s, bucket, before->ns, before->name, NULL);
        kobj_unref(before);
        kobj_unref(gone); /* the history's reference stays */
        return gone;
}

int kube_store_commit(struct kube_store *s)
{
        if (!s->pending)
                return 0;
        sqlite3_bind_int64(s->set_rv, 1, (sqlite3_int64)s->rv);
        if (!run(s, s->set_rv, "cannot write to the store")) {
                kube_store_roll_back(s);
                return -1;
        }
        if (!exec(s, "COMMIT")) {
                db_failed(s, "cannot write to the store");
                kube_store_roll_back(s);
                return -1;
        }
        s->pending = false;
        s->committed_rv = s->rv;
        s->committed = s->head;
        return 0;
}

/* ---- opening ---- */

static bool complain(struct kube_store *s, struct diags *d, const char *what)
{
        struct diag_at at = { .file = str_of(s->path) };

        diag_add(d, DIAG_ERROR, "KUB0101", &at, "%s: %s", what, sqlite3_errmsg(s->db));
        return false;
}

static bool pragma_is(struct kube_store *s, const char *pragma, int64_t want, bool *fresh)
{
        sqlite3_stmt *st;
        int64_t have = -1;

        if (sqlite3_prepare_v2(s->db, pragma, -1, &st, NULL) != SQLITE_OK)
                return false;
        if (sqlite3_step(st) == SQLITE_ROW)
                have = sqlite3_column_int64(st, 0);
        sqlite3_finalize(st);
        if (fresh)
                *fresh = have == 0;
        return have == want;
}

static bool intact(struct kube_store *s, struct diags *d)
{
        sqlite3_stmt *st;
        struct diag_at at = { .file = str_of(s->path) };
        bool ok = false;

        if (sqlite3_prepare_v2(s->db, "PRAGMA quick_check(1)", -1, &st, NULL) == SQLITE_OK) {
                int rc = sqlite3_step(st);

                ok = rc == SQLITE_ROW && !strcmp((const char *)sqlite3_column_text(st, 0), "ok");
                if (!ok)
                        diag_add(d, DIAG_ERROR, "KUB0102", &at,
                                 "the store is damaged (%s): nothing was changed; restore it from a copy, or move it away to "
                                 "start with an empty one",
                                 rc == SQLITE_ROW ? (const char *)sqlite3_column_text(st, 0) : sqlite3_errmsg(s->db));
                sqlite3_finalize(st);
                return ok;
        }
        diag_add(d, DIAG_ERROR, "KUB0102", &at,
                 "the store is damaged (%s): nothing was changed; restore it from a copy, or move it away to start with an "
                 "empty one",
                 sqlite3_errmsg(s->db));
        return false;
}

static bool open_schema(struct kube_store *s, struct diags *d)
{
        struct diag_at at = { .file = str_of(s->path) };
        bool fresh = false;

        /* Exclusive: a second server on the same file is refused at once instead of answering from a stale memory. */
        if (!exec(s, "PRAGMA locking_mode=EXCLUSIVE"))
                return complain(s, d, "cannot set up the store");
        if (!pragma_is(s, "PRAGMA application_id", APPLICATION_ID, &fresh) && !fresh) {
                if (sqlite3_errcode(s->db) == SQLITE_BUSY)
                        return complain(s, d, "the store is in use by another process");
                if (sqlite3_errcode(s->db) != SQLITE_OK && sqlite3_errcode(s->db) != SQLITE_DONE)
                        return intact(s, d) && complain(s, d, "cannot read the store");
                diag_add(d, DIAG_ERROR, "KUB0103", &at, "this is a database of another program: choose another state directory");
                return false;
        }
        if (!exec(s, "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; PRAGMA wal_autocheckpoint=2000; BEGIN EXCLUSIVE; COMMIT"))
                return complain(
                        s, d, sqlite3_errcode(s->db) == SQLITE_BUSY ? "the store is in use by another process" : "cannot set up the store");
        if (!intact(s, d))
                return false;
        char sql[1024];
        snprintf(sql, sizeof(sql),
                 "BEGIN IMMEDIATE;"
                 "CREATE TABLE IF NOT EXISTS objects(bucket TEXT NOT NULL, ns TEXT NOT NULL, name TEXT NOT NULL, rv INTEGER NOT NULL, body "
                 "TEXT NOT NULL,"
                 " PRIMARY KEY(bucket, ns, name)) WITHOUT ROWID;"
                 "CREATE TABLE IF NOT EXISTS meta(id INTEGER PRIMARY KEY CHECK(id = 1), rv INTEGER NOT NULL);"
                 "INSERT OR IGNORE INTO meta VALUES(1, 1);"
                 "PRAGMA application_id=%d; PRAGMA user_version=%d; COMMIT",
                 APPLICATION_ID, SCHEMA_VERSION);
        if (fresh ? !exec(s, sql) : !pragma_is(s, "PRAGMA user_version", SCHEMA_VERSION, NULL)) {
                if (fresh)
                        return complain(s, d, "cannot set up the store");
                diag_add(d, DIAG_ERROR, "KUB0104", &at, "the store was written by a newer version of this program: use that one");
                return false;
        }
        if (sqlite3_prepare_v2(s->db, "INSERT OR REPLACE INTO objects VALUES(?1,?2,?3,?4,?5)", -1, &s->put, NULL) != SQLITE_OK ||
            sqlite3_prepare_v2(s->db, "DELETE FROM objects WHERE bucket=?1 AND ns=?2 AND name=?3", -1, &s->del, NULL) != SQLITE_OK ||
            sqlite3_prepare_v2(s->db, "UPDATE meta SET rv=?1 WHERE id=1", -1, &s->set_rv, NULL) != SQLITE_OK)
                return complain(s, d, "cannot read the store");
        return true;
}

static struct str column(sqlite3_stmt *st, int i)
{
        const char *p = (const char *)sqlite3_column_text(st, i);

        return str_make(p ? p : "", (size_t)sqlite3_column_bytes(st, i));
}

static bool load_row(struct kube_store *s, sqlite3_stmt *st, struct arena *a, struct buf *text, struct diags *d)
{
        struct str name = column(st, 0);
        int id = kube_bucket_find(name);
        struct diag_at at = { .file = str_of(s->path), .resource = column(st, 2) };

        if (id < 0) {
                diag_add(d, DIAG_WARNING, "KUB0105", &at,
                         "the store holds a kind that this program does not know (" STR_FMT "): kept, but not served", STR_ARG(name));
                return true;
        }
        const struct kube_resource *r = kube_bucket_resource((unsigned)id);
        text->n = 0;
        buf_printf(text, "{\"apiVersion\":\"%s\",\"kind\":\"%s\",", kube_api_version(r), r->kind);
        buf_str(text, column(st, 4));
        struct pb_node *node;
        if (!pb_parse_json(buf_view(text), str_of(s->path), a, &node, d))
                return false;
        struct kobj *o = kobj_new((unsigned)id, column(st, 1), column(st, 2), (uint64_t)sqlite3_column_int64(st, 3), node);
        index_set(s, (unsigned)id, o->ns, o->name, o);
        return true;
}

static bool load(struct kube_store *s, struct diags *d)
{
        sqlite3_stmt *st;
        struct arena a;
        struct buf text = BUF_INIT;
        bool ok = true;
        int rc = SQLITE_ERROR;

        if (sqlite3_prepare_v2(s->db, "SELECT rv FROM meta WHERE id=1", -1, &st, NULL) == SQLITE_OK && sqlite3_step(st) == SQLITE_ROW)
                s->rv = (uint64_t)sqlite3_column_int64(st, 0);
        sqlite3_finalize(st);
        if (!s->rv || sqlite3_prepare_v2(s->db, "SELECT bucket, ns, name, rv, body FROM objects ORDER BY bucket, ns, name", -1, &st,
                                         NULL) != SQLITE_OK)
                return complain(s, d, "cannot read the store");
        arena_init(&a, 65536);
        while (ok && (rc = sqlite3_step(st)) == SQLITE_ROW) {
                ok = load_row(s, st, &a, &text, d);
                arena_reset(&a);
        }
        if (ok && rc != SQLITE_DONE)
                ok = complain(s, d, "cannot read the store");
        sqlite3_finalize(st);
        arena_fini(&a);
        buf_fini(&text);
        s->committed_rv = s->oldest_rv = s->rv;
        return ok;
}

struct kube_store *kube_store_open(const char *path, const struct kube_store_ops *ops, struct diags *d)
{
        struct kube_store *s = MEM_NEW(struct kube_store);

        kube_kinds_init();
        s->path = mem_strdup(path);
        if (ops)
                s->ops = *ops;
        s->b = mem_calloc(kube_buckets_n(), sizeof(*s->b));
        s->ring = mem_calloc(KUBE_HISTORY, sizeof(*s->ring));
        int rc = sqlite3_open_v2(path, &s->db, SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, NULL);
        if (rc != SQLITE_OK)
                complain(s, d, "cannot open the store");
        else
                chmod(path, 0600);
        if (rc != SQLITE_OK || !open_schema(s, d) || !load(s, d)) {
                kube_store_close(s);
                return NULL;
        }
        return s;
}

void kube_store_close(struct kube_store *s)
{
        if (!s)
                return;
        if (s->pending)
                kube_store_commit(s);
        while (s->first < s->head)
                forget_oldest(s);
        for (unsigned i = 0; i < kube_buckets_n(); i++) {
                for (size_t k = 0; k < s->b[i].n; k++)
                        kobj_unref(s->b[i].v[k]);
                free(s->b[i].v);
        }
        sqlite3_finalize(s->put);
        sqlite3_finalize(s->del);
        sqlite3_finalize(s->set_rv);
        sqlite3_close(s->db);
        strmap_fini(&s->uids);
        strmap_fini(&s->owners);
        free(s->b);
        free(s->ring);
        free(s->error);
        free(s->path);
        free(s);
}
