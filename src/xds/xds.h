/* Envoy's discovery protocol: the kinds of resources, and what both ends of it share. The client and the file source deliver to a
 * struct xds_sink (the proxy); the server sends what a struct xds_config holds (the controller makes one for each proxy). */
#ifndef XDS_XDS_H
#define XDS_XDS_H

#include "base/diag.h"
#include "envoy/core.pb-c.h"
#include "net/loop.h"

struct addr;
struct tls_ctx;

/* In the order in which they must reach a proxy, so that nothing ever names what is not there yet. */
enum xds_type { XDS_CDS, XDS_EDS, XDS_LDS, XDS_RDS, XDS_SDS, XDS_TYPES };

const char *xds_type_url(enum xds_type t);  /* "type.googleapis.com/envoy.config.cluster.v3.Cluster", ... */
const char *xds_type_name(enum xds_type t); /* "CDS", ... */
int xds_type_of(struct str type_url);       /* enum xds_type, or -1 */
bool xds_type_wildcard(enum xds_type t);    /* CDS and LDS: all there are; the others are asked for by name */

/* --- receiving ------------------------------------------------------------------------------------------------------------------- */

struct xds_resource {
        struct str name, version;
        struct str value;            /* the packed message */
        const ProtobufCMessage *msg; /* unpacked, of the type's own kind; both live for the call only */
        bool refused;                /* set by the sink: this one was not taken; what was there before stays */
};

struct xds_update {
        enum xds_type type;
        struct str version; /* of the whole; may be empty */
        struct xds_resource *v;
        size_t n;
        const struct str *removed; /* gone (delta), or known not to exist */
        size_t nremoved;
        bool full;      /* CDS, LDS: what is not in v is gone (apart from static resources) */
        bool from_disk; /* the last known good, from before this process */
};

struct xds_sink {
        /* Takes an update. Errors added to `d` refuse (NACK): their text, which must name the resource and the field, goes to the server
         * and the log. The sink marks the refused resources and may take the others, as Envoy does. Warnings are logged once each.
         * May call xds_client_want() and xds_client_unwant(). */
        void (*apply)(void *arg, struct xds_update *u, struct diags *d);
        /* initial_fetch_timeout passed without an answer; go on without. name "": the wildcard. */
        void (*on_timeout)(void *arg, enum xds_type t, struct str name);
        void *arg;
};

/* Counters with Envoy's names and meanings. */
struct xds_stats {
        uint64_t update_attempt, update_success, update_failure, update_rejected;
        uint64_t version;        /* hash of the last accepted version's text */
        uint64_t update_time_ms; /* realtime of the last accepted update */
        struct str version_text; /* as last accepted */
        struct str error;        /* why the last update was refused; empty after a good one */
};

struct xds_client;

struct xds_client_opts {
        const struct str *targets; /* "10.0.0.1:15010", "istiod.istio-system.svc:15010", "[::1]:1", "unix:/path" (tried in turn) */
        unsigned ntargets;
        struct tls_ctx *tls;       /* NULL: clear text; a reference is taken */
        struct str sni, authority; /* authority empty: the target's host */
        const Xds__Node *node;     /* borrowed until xds_client_free() */
        bool delta;
        struct str state_path; /* where the last known good is kept; empty: nowhere */
        const struct xds_metadata {
                struct str name, value;
        } * metadata; /* initial_metadata: further request headers */
        unsigned nmetadata;
        unsigned keepalive_ms; /* the peer is probed (by TCP) when nothing came for so long; 0: 30 s */
};

/* Connects, and keeps connecting (0.5 s doubling to 30 s, with jitter). The sink is first called from the loop, never from inside. */
struct xds_client *xds_client_new(struct loop *l, const struct xds_client_opts *o, const struct xds_sink *sink);
void xds_client_free(struct xds_client *c);
/* Subscribes: a name of EDS, RDS, SDS, or with name "" all of CDS or LDS. Counted: each want needs its unwant. What the state file holds is
 * delivered at once (at the end of the turn). timeout_ms 0: no on_timeout. */
void xds_client_want(struct xds_client *c, enum xds_type t, struct str name, unsigned timeout_ms);
void xds_client_unwant(struct xds_client *c, enum xds_type t, struct str name);
bool xds_client_connected(const struct xds_client *c);      /* an ADS stream is up and was answered */
const char *xds_client_trouble(const struct xds_client *c); /* why it is not, or "" */
const struct xds_stats *xds_client_stats(const struct xds_client *c, enum xds_type t);
/* The last accepted bytes of a resource (for config dumps). False: none. Valid until the loop runs again. */
bool xds_client_get(const struct xds_client *c, enum xds_type t, struct str name, struct str *value, struct str *version,
                    uint64_t *updated_real_us);

/* A DiscoveryResponse in a file, YAML or JSON by the file's name (path_config_source, path). Read at once (the sink is called from the
 * loop), and again each time that a file is moved to `path` or closed there after writing; with `watched_dir` not empty, when something is
 * moved in that directory. A broken file is logged, counted and changes nothing. */
struct xds_file;
struct xds_file *xds_file_new(struct loop *l, enum xds_type t, struct str path, struct str watched_dir, const struct xds_sink *sink);
void xds_file_free(struct xds_file *f);
const struct xds_stats *xds_file_stats(const struct xds_file *f);

/* --- sending --------------------------------------------------------------------------------------------------------------------- */

struct xds_item {
        struct str name, bytes; /* the packed message */
        uint64_t hash;          /* of bytes: its version */
};

/* What one proxy is to be told. Immutable; items sorted by name. The last unref calls free_fn. */
struct xds_config {
        unsigned refs;
        void (*free_fn)(struct xds_config *c);
        struct {
                const struct xds_item *v;
                size_t n;
                uint64_t hash; /* over all: the version */
        } of[XDS_TYPES];
};

struct xds_config *xds_config_ref(struct xds_config *c);
void xds_config_unref(struct xds_config *c);

struct xds_server;
struct xds_peer; /* one connected proxy: one stream */

struct xds_server_ops {
        /* A proxy's first request. Call xds_peer_push() now or later (it waits meanwhile). False refuses it, with `why` (PERMISSION_DENIED
         * or INVALID_ARGUMENT text). */
        bool (*on_peer)(void *arg, struct xds_peer *p, const Xds__Node *node, struct buf *why);
        void (*on_gone)(void *arg, struct xds_peer *p);
        void (*on_nack)(void *arg, struct xds_peer *p, enum xds_type t, struct str error); /* may be NULL; it is logged anyway */
        /* Everything of the last push has been acknowledged (or refused). May be NULL. */
        void (*on_synced)(void *arg, struct xds_peer *p);
};

struct xds_server_opts {
        const struct addr *listen;
        struct tls_ctx *tls;
        struct str identifier; /* control_plane.identifier in responses */
        unsigned max_peers;    /* 0: 10000 */
};

/* Serves StreamAggregatedResources and DeltaAggregatedResources. NULL with *err (negative errno). */
struct xds_server *xds_server_new(struct loop *l, const struct xds_server_opts *o, const struct xds_server_ops *ops, void *arg, int *err);
void xds_server_free(struct xds_server *s);
const struct addr *xds_server_addr(const struct xds_server *s);

/* Sends what differs from what this proxy has, make before break: clusters first (those that go stay for now), then their endpoints,
 * listeners, routes, and last of all what is not used any more. */
void xds_peer_push(struct xds_peer *p, struct xds_config *c);
void *xds_peer_data(const struct xds_peer *p);
void xds_peer_set_data(struct xds_peer *p, void *data);
struct str xds_peer_id(const struct xds_peer *p);
const struct addr *xds_peer_addr(const struct xds_peer *p);
struct xds_config *xds_peer_config(const struct xds_peer *p); /* last pushed; borrowed; NULL: none yet */

struct xds_peer_type {
        bool subscribed;
        size_t names; /* asked for by name */
        struct str nonce_sent, nonce_acked;
        uint64_t hash_sent, hash_acked; /* the config's, when the last response was made; 0: none */
        struct str error;               /* of the last NACK since the last ACK */
};

void xds_peer_status(const struct xds_peer *p, enum xds_type t, struct xds_peer_type *out);
bool xds_peer_delta(const struct xds_peer *p);

#endif
