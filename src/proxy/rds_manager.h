/* The main thread's side of route configurations. See rds.h. */
#ifndef PROXY_RDS_MANAGER_H
#define PROXY_RDS_MANAGER_H

#include "net/loop.h"
#include "proxy/rds.h"
#include "proxy/stats.h"

struct rds_manager;
struct Xds__ConfigSource;

struct rds_slot {
        _Atomic unsigned refs;
        unsigned index;
        struct server *server;
        struct str name;                             /* NUL-terminated, owned */
        const struct Xds__RouteConfiguration *proto; /* last good; NULL: none yet. For config dumps */
        struct arena *proto_arena;
        char *version;
        uint64_t updated_us;
        bool ready; /* answered, or given up waiting */
        bool gone_posted;
        struct loop_timer timer; /* initial_fetch_timeout */
        void *sub;               /* the link's */
        char *file;              /* path_config_source; NULL: ADS */
        struct stat_scope *stats;
};

enum { RS_CONFIG_RELOAD, RS_UPDATE_ATTEMPT, RS_UPDATE_EMPTY, RS_UPDATE_FAILURE, RS_UPDATE_REJECTED, RS_UPDATE_SUCCESS, RS_COUNT };

struct rds_hooks {
        bool (*subscribe)(void *arg, struct rds_slot *r, const struct Xds__ConfigSource *cs, const struct diag_at *at, struct diags *d);
        void (*unsubscribe)(void *arg, struct rds_slot *r);
};

struct rds_manager *rds_manager_new(struct server *s);
void rds_manager_free(struct rds_manager *m);
void rds_manager_hooks(struct rds_manager *m, const struct rds_hooks *h, void *arg);
/* A new answer for the slots of that name (and file, NULL: ADS). False with diagnostics: the last good one stays. */
bool rds_manager_apply(struct rds_manager *m, struct str name, const char *file, const struct Xds__RouteConfiguration *rc,
                       struct str version, const struct diag_at *at, struct diags *d);
/* The server says there is none of that name, or did not answer in time. */
void rds_manager_missing(struct rds_manager *m, struct str name);
void rds_manager_each(struct rds_manager *m, void (*fn)(void *arg, struct rds_slot *r), void *arg);

#endif
