/* The registry behind the slots: which scope owns which slots, the threads' storage, and the sums.
 *
 * The registry has a lock; counting never takes it. It is taken when a scope, a series or a chunk of storage is made, and by a scrape.
 * A slot is reused only after its scope's last user let go, which is after the last worker dropped the configuration that counted
 * there, so zeroing it from the outside is safe. */
#include "proxy/stats.h"

#include "base/hash.h"
#include "base/mem.h"
#include "proxy/stats_registry.h"

#include <assert.h>
#include <stdlib.h>

const double stat_bucket_bounds[STAT_BUCKETS] = { 0.5,  1,    5,     10,    25,    50,     100,    250,     500,    1000,
                                                  2500, 5000, 10000, 30000, 60000, 300000, 600000, 1800000, 3600000 };

struct stats *stats_new(void)
{
        struct stats *s = MEM_NEW(struct stats);

        pthread_mutex_init(&s->lock, NULL);
        s->next = 1;
        s->retired = stats_local_new(s);
        return s;
}

static void local_storage_free(struct stats_local *l)
{
        for (unsigned i = 0; i < STAT_CHUNKS; i++)
                free((void *)atomic_load(&l->chunk[i]));
        free(l->chunk);
        if (l->family_cache) {
                strmap_fini(l->family_cache);
                free(l->family_cache);
        }
        free(l);
}

static void entry_free(struct stats_entry *e)
{
        free(e->name);
        free(e->prom_prefix);
        for (unsigned i = 0; i < e->ntags; i++)
                free((void *)e->tags[i].value.p);
        free(e);
}

static void series_free(struct stats_series *se)
{
        for (unsigned i = 0; i < se->family->nlabels; i++)
                free((void *)se->values[i].p);
        free(se->values);
        free(se);
}

void stats_free(struct stats *s)
{
        if (!s)
                return;
        local_storage_free(s->retired);
        STRMAP_EACH (&s->scopes, it)
                entry_free(it->value);
        STRMAP_EACH (&s->dynamic, it)
                entry_free(it->value);
        STRMAP_EACH (&s->series, it)
                series_free(it->value);
        strmap_fini(&s->scopes);
        strmap_fini(&s->dynamic);
        strmap_fini(&s->series);
        while (s->holes) {
                struct stats_hole *h = s->holes;

                s->holes = h->next;
                free(h);
        }
        pthread_mutex_destroy(&s->lock);
        free(s);
}

struct stats_local *stats_local_new(struct stats *s)
{
        struct stats_local *l = MEM_NEW(struct stats_local);

        l->stats = s;
        l->chunk = mem_calloc(STAT_CHUNKS, sizeof(*l->chunk));
        pthread_mutex_lock(&s->lock);
        l->next = s->locals;
        s->locals = l;
        pthread_mutex_unlock(&s->lock);
        return l;
}

void stats_local_free(struct stats_local *l)
{
        struct stats *s;

        if (!l)
                return;
        s = l->stats;
        pthread_mutex_lock(&s->lock);
        for (struct stats_local **p = &s->locals; *p; p = &(*p)->next)
                if (*p == l) {
                        *p = l->next;
                        break;
                }
        for (unsigned i = 0; i < STAT_CHUNKS; i++) {
                _Atomic uint64_t *c = atomic_load(&l->chunk[i]);

                for (unsigned j = 0; c && j < STAT_CHUNK_SLOTS; j++)
                        if (c[j]) {
                                _Atomic uint64_t *r = atomic_load(&s->retired->chunk[i]);

                                if (!r) {
                                        r = mem_calloc(STAT_CHUNK_SLOTS, sizeof(*r));
                                        atomic_store(&s->retired->chunk[i], r);
                                }
                                r[j] += c[j];
                        }
        }
        pthread_mutex_unlock(&s->lock);
        local_storage_free(l);
}

_Atomic uint64_t *stats_slot_slow(struct stats_local *l, stat_id id)
{
        _Atomic uint64_t *c;

        assert(id / STAT_CHUNK_SLOTS < STAT_CHUNKS);
        c = mem_calloc(STAT_CHUNK_SLOTS, sizeof(*c));
        atomic_store_explicit(&l->chunk[id / STAT_CHUNK_SLOTS], c, memory_order_release);
        return &c[id % STAT_CHUNK_SLOTS];
}

void stat_record(struct stats_local *l, stat_id h, uint64_t value)
{
        unsigned b = 0;

        if (!h)
                return;
        while (b < STAT_BUCKETS && (double)value > stat_bucket_bounds[b])
                b++;
        stat_inc(l, h + b);
        stat_add(l, h + STAT_BUCKETS + 1, value);
}

/* With the lock held: n slots in a row, or 0 when none are left. */
static stat_id slots_take(struct stats *s, unsigned n)
{
        for (struct stats_hole **p = &s->holes; *p; p = &(*p)->next)
                if ((*p)->n == n) {
                        struct stats_hole *h = *p;
                        stat_id id = h->base;

                        *p = h->next;
                        free(h);
                        return id;
                }
        if (s->next + n > (stat_id)STAT_CHUNK_SLOTS * STAT_CHUNKS)
                return 0;
        s->next += n;
        return s->next - n;
}

static void slots_give(struct stats *s, stat_id base, unsigned n)
{
        struct stats_hole *h = MEM_NEW(struct stats_hole);

        h->base = base;
        h->n = n;
        h->next = s->holes;
        s->holes = h;
        for (struct stats_local *l = s->locals; l; l = l->next)
                for (stat_id i = base; i < base + n; i++) {
                        _Atomic uint64_t *c = atomic_load(&l->chunk[i / STAT_CHUNK_SLOTS]);

                        if (c)
                                c[i % STAT_CHUNK_SLOTS] = 0;
                }
}

stat_id stats_slots(struct stats *s, unsigned n)
{
        stat_id id;

        pthread_mutex_lock(&s->lock);
        id = slots_take(s, n);
        pthread_mutex_unlock(&s->lock);
        return id;
}

void stats_slots_free(struct stats *s, stat_id base, unsigned n)
{
        if (!base)
                return;
        pthread_mutex_lock(&s->lock);
        slots_give(s, base, n);
        pthread_mutex_unlock(&s->lock);
}

static struct stats_entry *entry_new(struct str name, struct str prom_prefix, const struct stat_tag *tags, unsigned ntags)
{
        struct stats_entry *e = MEM_NEW(struct stats_entry);

        assert(ntags <= ARRAY_LEN(e->tags));
        e->name = str_dup(name);
        e->prom_prefix = str_dup(prom_prefix);
        e->ntags = ntags;
        for (unsigned i = 0; i < ntags; i++)
                e->tags[i] = (struct stat_tag){ tags[i].name, { str_dup(tags[i].value), tags[i].value.n } };
        return e;
}

unsigned stats_entry_slots(const struct stats_entry *e)
{
        return e->scope.plain + (e->scope.n - e->scope.plain) * STAT_HIST_SLOTS;
}

static struct str scope_key(struct buf *b, struct str prefix, const struct stat_def *defs)
{
        buf_append(b, &defs, sizeof(defs));
        buf_str(b, prefix);
        return buf_view(b);
}

struct stat_scope *stats_scope(struct stats *s, struct str prefix, struct str prom_prefix, const struct stat_tag *tags, unsigned ntags,
                               const struct stat_def *defs, unsigned ndefs)
{
        struct buf b = BUF_INIT;
        struct stats_entry *e;

        pthread_mutex_lock(&s->lock);
        e = strmap_get(&s->scopes, scope_key(&b, prefix, defs));
        if (!e) {
                e = entry_new(prefix, prom_prefix, tags, ntags);
                e->defs = defs;
                e->scope.n = ndefs;
                while (e->scope.plain < ndefs && defs[e->scope.plain].kind != STAT_HISTOGRAM)
                        e->scope.plain++;
                for (unsigned i = e->scope.plain; i < ndefs; i++)
                        assert(defs[i].kind == STAT_HISTOGRAM);
                e->scope.base = slots_take(s, stats_entry_slots(e));
                if (!e->scope.base)
                        abort(); /* 16 million statistics: configuration limits come long before */
                strmap_set(&s->scopes, buf_view(&b), e);
        }
        e->refs++;
        pthread_mutex_unlock(&s->lock);
        buf_fini(&b);
        return &e->scope;
}

/* Only the main thread makes and drops scopes together with configurations, but the last reference may fall on a worker. */
struct stat_scope *stats_scope_ref(struct stat_scope *sc)
{
        atomic_fetch_add(&CONTAINER_OF(sc, struct stats_entry, scope)->refs, 1);
        return sc;
}

void stats_scope_unref(struct stats *s, struct stat_scope *sc)
{
        struct stats_entry *e;
        struct buf b = BUF_INIT;

        if (!sc)
                return;
        e = CONTAINER_OF(sc, struct stats_entry, scope);
        pthread_mutex_lock(&s->lock);
        if (atomic_fetch_sub(&e->refs, 1) == 1) {
                strmap_del(&s->scopes, scope_key(&b, str_of(e->name), e->defs));
                slots_give(s, e->scope.base, stats_entry_slots(e));
                entry_free(e);
        }
        pthread_mutex_unlock(&s->lock);
        buf_fini(&b);
}

/* The thread's cache in front of the registry: key -> slot. */
static struct strmap *local_cache(struct stats_local *l)
{
        if (!l->family_cache)
                l->family_cache = MEM_NEW(struct strmap);
        return l->family_cache;
}

static void series_key(struct buf *b, const struct stat_family *f, const struct str *values)
{
        buf_append(b, &f, sizeof(f));
        for (unsigned i = 0; i < f->nlabels; i++) {
                uint32_t n = (uint32_t)values[i].n;

                buf_append(b, &n, sizeof(n));
                buf_str(b, values[i]);
        }
}

static struct stats_series *series_make(struct stats *s, const struct stat_family *f, const struct str *values, struct str key)
{
        struct stats_series *se = MEM_NEW(struct stats_series);

        se->family = f;
        se->values = mem_calloc(f->nlabels ? f->nlabels : 1, sizeof(struct str));
        for (unsigned i = 0; i < f->nlabels; i++)
                se->values[i] = (struct str){ str_dup(values[i]), values[i].n };
        se->id = slots_take(s, f->kind == STAT_HISTOGRAM ? STAT_HIST_SLOTS : 1);
        strmap_set(&s->series, key, se);
        return se;
}

stat_id stats_series(struct stats_local *l, const struct stat_family *f, const struct str *values)
{
        struct stats *s = l->stats;
        struct strmap *cache = local_cache(l);
        struct buf b = BUF_INIT;
        stat_id id;

        assert(f->nlabels <= STAT_FAMILY_LABELS);
        series_key(&b, f, values);
        id = (stat_id)(uintptr_t)strmap_get(cache, buf_view(&b));
        if (!id) {
                struct stats_series *se;
                size_t count = 0;

                pthread_mutex_lock(&s->lock);
                se = strmap_get(&s->series, buf_view(&b));
                if (!se) {
                        STRMAP_EACH (&s->series, it)
                                count += ((struct stats_series *)it->value)->family == f;
                        if (count >= STAT_FAMILY_SERIES) {
                                struct str over[STAT_FAMILY_LABELS];

                                for (unsigned i = 0; i < f->nlabels; i++)
                                        over[i] = STR("overflow");
                                b.n = 0;
                                series_key(&b, f, over);
                                se = strmap_get(&s->series, buf_view(&b));
                                if (!se)
                                        se = series_make(s, f, over, buf_view(&b));
                        } else {
                                se = series_make(s, f, values, buf_view(&b));
                        }
                }
                id = se->id;
                pthread_mutex_unlock(&s->lock);
                if (count < STAT_FAMILY_SERIES)
                        strmap_set(cache, buf_view(&b), (void *)(uintptr_t)id);
        }
        buf_fini(&b);
        return id;
}

stat_id stats_dynamic(struct stats_local *l, struct str name, enum stat_kind kind, struct str prom_name, const struct stat_tag *tags,
                      unsigned ntags)
{
        struct stats *s = l->stats;
        struct strmap *cache = local_cache(l);
        struct buf b = BUF_INIT;
        stat_id id;

        buf_char(&b, '\0'); /* apart from series keys, which begin with a pointer */
        buf_str(&b, name);
        id = (stat_id)(uintptr_t)strmap_get(cache, buf_view(&b));
        if (!id) {
                struct stats_entry *e;

                pthread_mutex_lock(&s->lock);
                e = strmap_get(&s->dynamic, name);
                if (!e && s->dynamic.live < STATS_DYNAMIC_MAX) {
                        e = entry_new(name, prom_name, tags, ntags);
                        e->scope.n = 1;
                        e->scope.plain = kind != STAT_HISTOGRAM;
                        e->dynamic_kind = kind;
                        e->scope.base = slots_take(s, stats_entry_slots(e));
                        strmap_set(&s->dynamic, name, e);
                }
                id = e ? e->scope.base : 0;
                pthread_mutex_unlock(&s->lock);
                if (id)
                        strmap_set(cache, buf_view(&b), (void *)(uintptr_t)id);
        }
        buf_fini(&b);
        return id;
}

uint64_t stats_read_locked(const struct stats *s, stat_id id)
{
        uint64_t v = 0;

        for (const struct stats_local *l = s->locals; l; l = l->next) {
                _Atomic uint64_t *c = atomic_load_explicit(&l->chunk[id / STAT_CHUNK_SLOTS], memory_order_acquire);

                if (c)
                        v += atomic_load_explicit(&c[id % STAT_CHUNK_SLOTS], memory_order_relaxed);
        }
        return v;
}

uint64_t stats_read(struct stats *s, stat_id id)
{
        uint64_t v;

        pthread_mutex_lock(&s->lock);
        v = stats_read_locked(s, id);
        pthread_mutex_unlock(&s->lock);
        return v;
}

uint64_t stats_read_name(struct stats *s, struct str name)
{
        uint64_t v = 0;
        struct stats_entry *e;

        pthread_mutex_lock(&s->lock);
        e = strmap_get(&s->dynamic, name);
        if (e)
                v = stats_read_locked(s, e->scope.base);
        STRMAP_EACH (&s->scopes, it) {
                e = it->value;
                if (!str_starts(name, str_of(e->name)))
                        continue;
                struct str rest = str_sub(name, strlen(e->name), name.n);

                for (unsigned i = 0; i < e->scope.n; i++)
                        if (str_eqc(rest, e->defs[i].name))
                                v = stats_read_locked(s, stat_of(&e->scope, i));
        }
        pthread_mutex_unlock(&s->lock);
        return v;
}

/* A counter that a worker adds to at this instant may keep that one count; Envoy's reset has the same grain. */
static void slot_zero(struct stats *s, stat_id id, unsigned n)
{
        for (struct stats_local *l = s->locals; l; l = l->next)
                for (stat_id i = id; i < id + n; i++) {
                        _Atomic uint64_t *c = atomic_load(&l->chunk[i / STAT_CHUNK_SLOTS]);

                        if (c)
                                c[i % STAT_CHUNK_SLOTS] = 0;
                }
}

void stats_reset_counters(struct stats *s)
{
        pthread_mutex_lock(&s->lock);
        STRMAP_EACH (&s->scopes, it) {
                struct stats_entry *e = it->value;

                for (unsigned i = 0; i < e->scope.n; i++)
                        if (e->defs[i].kind == STAT_COUNTER)
                                slot_zero(s, stat_of(&e->scope, i), 1);
        }
        STRMAP_EACH (&s->dynamic, it) {
                struct stats_entry *e = it->value;

                if (e->dynamic_kind == STAT_COUNTER)
                        slot_zero(s, e->scope.base, 1);
        }
        STRMAP_EACH (&s->series, it) {
                struct stats_series *se = it->value;

                if (se->family->kind == STAT_COUNTER)
                        slot_zero(s, se->id, 1);
        }
        pthread_mutex_unlock(&s->lock);
}
