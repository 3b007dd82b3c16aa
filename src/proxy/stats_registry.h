/* What stats.c and stats_print.c share. */
#ifndef PROXY_STATS_REGISTRY_H
#define PROXY_STATS_REGISTRY_H

#include "base/hash.h"
#include "proxy/stats.h"

#include <pthread.h>

enum { STATS_DYNAMIC_MAX = 200000 };

/* A scope, or (defs NULL) a single dynamic statistic. */
struct stats_entry {
        struct stat_scope scope;
        _Atomic unsigned refs;
        char *name;        /* scope: the prefix, with its dot */
        char *prom_prefix; /* dynamic: the whole name */
        const struct stat_def *defs;
        enum stat_kind dynamic_kind;
        struct stat_tag tags[3];
        unsigned ntags;
};

struct stats_series {
        const struct stat_family *family;
        struct str *values;
        stat_id id;
};

struct stats_hole {
        struct stats_hole *next;
        stat_id base;
        unsigned n;
};

struct stats {
        pthread_mutex_t lock;
        struct strmap scopes;       /* defs pointer + prefix -> stats_entry */
        struct strmap dynamic;      /* name -> stats_entry */
        struct strmap series;       /* key -> stats_series */
        struct stats_local *locals; /* `retired` is one of them */
        struct stats_local *retired;
        struct stats_hole *holes;
        stat_id next;
};

unsigned stats_entry_slots(const struct stats_entry *e);
uint64_t stats_read_locked(const struct stats *s, stat_id id);

#endif
