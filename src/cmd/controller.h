/* The insides of `postern controller`: controller.c (sources, model, pushes), controller_monitor.c (what it tells of itself). */
#ifndef CMD_CONTROLLER_H
#define CMD_CONTROLLER_H

#include "http/simple.h"
#include "kube/client.h"
#include "translate/translate.h"
#include "xds/xds.h"

enum { CONTROLLER_SOURCES_MAX = 16 };

struct controller;

struct source { /* one watched kind */
        struct controller *ctl;
        const char *path, *kind;
        struct kube_informer *informer;
        bool troubled;
};

struct proxy { /* one connected data plane */
        struct proxy *next, **pprev;
        struct controller *ctl;
        struct xds_peer *peer;
        struct arena arena;
        struct translate_proxy who;
        bool stock;                /* an Envoy without Istio's filters */
        struct xds_config *config; /* last pushed */
        uint64_t pushed_ms, synced_ms;
};

struct controller {
        struct loop *loop;
        struct kube_client *client;
        struct source sources[CONTROLLER_SOURCES_MAX];
        unsigned nsources;
        struct mesh *mesh;
        struct translator *translator;
        struct xds_server *server;
        struct http_service *monitor;
        struct proxy *proxies;
        struct loop_timer push;
        uint64_t change_ms; /* of the first change that is not pushed yet; 0: none */
        bool synced;
        struct strmap warned;
        /* counters */
        uint64_t changes, refused, rounds, pushes[XDS_TYPES], nacks[XDS_TYPES], converged, converge_us_sum;
        uint64_t converge_le[8]; /* cumulative by the bounds in controller_monitor.c */
        uint64_t build_us_last, build_us_max;
};

extern const double controller_bounds[8]; /* seconds */

bool controller_monitor_start(struct controller *c, const struct addr *listen, int *err);

/* controller_stock.c: leaves Istio's own filters out of a resource; the new bytes live in `keep`. */
bool controller_is_stock(const Xds__Node *node);
void controller_strip(enum xds_type t, struct xds_item *i, struct arena *keep);

#endif
