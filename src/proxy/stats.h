/* Counters, gauges and histograms under the names that Envoy's and Istio's users already know.
 *
 * A statistic is a slot number. Each thread that counts has its own storage (struct stats_local) and adds to its own slots without
 * atomic read-modify-write; a scrape sums the threads. So a count is one add on a private cache line, and a gauge is the sum of what
 * each thread added and took away. Storage comes in chunks that are made on the first write, so ten thousand idle clusters cost
 * nothing but their slot numbers.
 *
 * Slots are handed out in scopes: a prefix ("cluster.foo."), and a static table of definitions. Asking again for the same prefix and
 * table gives the same scope, so counts survive configuration updates; slots are recycled when the last user lets go. Statistics
 * whose labels are only known at run time (istio_requests_total) are families. */
#ifndef PROXY_STATS_H
#define PROXY_STATS_H

#include "base/buf.h"
#include "base/str.h"

#include <stdatomic.h>

enum stat_kind { STAT_COUNTER, STAT_GAUGE, STAT_HISTOGRAM };

/* One row of a static table. Histograms come last in a table. A name such as "upstream_rq_2xx" carries what is a label to Prometheus:
 * then prom_name is "upstream_rq_xx", tag "envoy.response_code_class", value "2". */
struct stat_def {
        const char *name;
        enum stat_kind kind;
        const char *prom_name; /* NULL: as name */
        const char *tag, *tag_value;
};

typedef uint32_t stat_id; /* a slot; 0 is a sink that is never shown */

enum {
        STAT_CHUNK_SLOTS = 512,
        STAT_CHUNKS = 32768, /* 16.7 million slots in all */
        STAT_BUCKETS = 19,   /* upper bounds in stat_bucket_bounds, then one without a bound, then the sum */
        STAT_HIST_SLOTS = STAT_BUCKETS + 2,
        STAT_FAMILY_LABELS = 40,
        STAT_FAMILY_SERIES = 20000, /* more series than this of one family are counted under labels "overflow" */
};

extern const double stat_bucket_bounds[STAT_BUCKETS]; /* Envoy's default histogram buckets: 0.5, 1, 5, ... 1800000, 3600000 */

struct stats;

struct stats_local {
        struct stats *stats;
        _Atomic(_Atomic uint64_t *) *chunk; /* STAT_CHUNKS of them */
        struct stats_local *next;
        void *family_cache;
};

struct stats *stats_new(void);
void stats_free(struct stats *s); /* after all locals */
/* Storage for the calling thread. Freeing it adds what it counted to the retired totals. */
struct stats_local *stats_local_new(struct stats *s);
void stats_local_free(struct stats_local *l);

_Atomic uint64_t *stats_slot_slow(struct stats_local *l, stat_id id);

static inline _Atomic uint64_t *stat_slot(struct stats_local *l, stat_id id)
{
        _Atomic uint64_t *c = atomic_load_explicit(&l->chunk[id / STAT_CHUNK_SLOTS], memory_order_relaxed);

        return __builtin_expect(c != NULL, 1) ? &c[id % STAT_CHUNK_SLOTS] : stats_slot_slow(l, id);
}

static inline void stat_add(struct stats_local *l, stat_id id, uint64_t n)
{
        _Atomic uint64_t *p = stat_slot(l, id);

        atomic_store_explicit(p, atomic_load_explicit(p, memory_order_relaxed) + n, memory_order_relaxed);
}

static inline void stat_inc(struct stats_local *l, stat_id id)
{
        stat_add(l, id, 1);
}

static inline void stat_dec(struct stats_local *l, stat_id id) /* gauges */
{
        stat_add(l, id, (uint64_t)-1);
}

/* Sets this thread's share of a gauge. For gauges that one thread alone keeps (membership_total, on the main thread). */
static inline void stat_set(struct stats_local *l, stat_id id, uint64_t v)
{
        atomic_store_explicit(stat_slot(l, id), v, memory_order_relaxed);
}

void stat_record(struct stats_local *l, stat_id histogram, uint64_t value); /* milliseconds, bytes */

/* A label of every statistic of a scope: "envoy.cluster_name" = "outbound|80||x". */
struct stat_tag {
        const char *name;
        struct str value;
};

struct stat_scope {
        stat_id base;
        unsigned plain, n; /* rows that are not histograms; rows */
};

/* Thread-safe. `prefix` is the text before a row's name ("cluster.foo."); `prom_prefix` the same without what the tags say
 * ("cluster."); at most two tags. Copied. Give back with stats_scope_unref(). */
struct stat_scope *stats_scope(struct stats *s, struct str prefix, struct str prom_prefix, const struct stat_tag *tags, unsigned ntags,
                               const struct stat_def *defs, unsigned ndefs);
struct stat_scope *stats_scope_ref(struct stat_scope *sc);
void stats_scope_unref(struct stats *s, struct stat_scope *sc);

static inline stat_id stat_of(const struct stat_scope *sc, unsigned row) /* row: index into the table */
{
        return row < sc->plain ? sc->base + row : sc->base + sc->plain + (row - sc->plain) * STAT_HIST_SLOTS;
}

/* A statistic that Prometheus sees under its own name with labels, and the text form as name.label.value.…: Istio's standard metrics.
 * The struct is static and unique. */
struct stat_family {
        const char *name;
        enum stat_kind kind;
        const char *const *labels;
        unsigned nlabels;
};

/* The slot of the series with these label values (nlabels of them). On the thread that owns l; a hash lookup when it was used before. */
stat_id stats_series(struct stats_local *l, const struct stat_family *f, const struct str *values);

/* A single statistic made at run time, such as "cluster.foo.upstream_rq_200": looked up by its text name. Bounded; 0 when full. */
stat_id stats_dynamic(struct stats_local *l, struct str name, enum stat_kind kind, struct str prom_name, const struct stat_tag *tags,
                      unsigned ntags);

/* `n` slots without a name (counts of a host, shown by /clusters only). 0 when full. Thread-safe. */
stat_id stats_slots(struct stats *s, unsigned n);
void stats_slots_free(struct stats *s, stat_id base, unsigned n);

uint64_t stats_read(struct stats *s, stat_id id);           /* summed over the threads */
uint64_t stats_read_name(struct stats *s, struct str name); /* by text name; 0 when there is none */
void stats_reset_counters(struct stats *s);                 /* /reset_counters */

struct stats_print {
        bool used_only; /* leave out what was never touched */
        enum { STATS_ALL, STATS_COUNTERS, STATS_GAUGES, STATS_HISTOGRAMS } type;
        bool (*match)(void *arg, struct str name); /* NULL: all */
        void *arg;
        bool istio; /* label names without "envoy_" for cluster_name, response_code, ... as Istio's bootstrap does */
};

void stats_print_text(struct stats *s, const struct stats_print *o, struct buf *out);
void stats_print_json(struct stats *s, const struct stats_print *o, struct buf *out);
void stats_print_prometheus(struct stats *s, const struct stats_print *o, struct buf *out);

#endif
