/* The insides of the ADS server: server.c (connections and requests), server_push.c (what is sent, and when). Not for others. */
#ifndef XDS_SERVER_H
#define XDS_SERVER_H

#include "http/grpc.h"
#include "xds/decode.h"

#include <sys/queue.h>

enum push_phase { PUSH_CDS, PUSH_EDS, PUSH_LDS, PUSH_RDS, PUSH_SDS, PUSH_CLEAN, PUSH_DONE };

struct peer_name {     /* a name that the client asked for */
        uint64_t hash; /* as last sent; 0: never */
        bool fresh;    /* asked for since the last response: to be sent even when it has not changed */
};

struct peer_type {
        bool subscribed, wildcard;
        bool owed;                   /* a request waits for an answer: the first, or one that asks again */
        bool waiting;                /* a response waits for its ACK or NACK */
        struct strmap names;         /* -> struct peer_name */
        struct xds_config *sent;     /* wildcard: whose items were last sent; NULL: none */
        struct strmap initial;       /* delta: versions that the client came with, until the first response: -> version text */
        uint64_t nonce, nonce_acked; /* counters; their texts are "t-n" */
        char nonce_text[24], nonce_acked_text[24];
        uint64_t hash_sent, hash_acked;
        char *error;
};

struct stale { /* a cluster that the client still has and the present configuration does not */
        const struct xds_item *item;
        struct xds_config *owner; /* a reference */
};

struct xds_peer {
        TAILQ_ENTRY(xds_peer) link;
        struct xds_server *server;
        struct grpc_call *call;
        struct addr addr;
        char *id;
        void *data;
        bool delta, known, finished;
        struct xds_config *config; /* what it is to have; NULL: not yet */
        enum push_phase phase;
        struct peer_type type[XDS_TYPES];
        struct stale *stale;
        size_t nstale, cap_stale;
        struct loop_timer timer; /* an acknowledgement, or an expected subscription, that does not come */
        bool expect_eds, eds_timer;
};

struct xds_server {
        struct loop *loop;
        struct loop_watch watch;
        struct addr addr;
        struct tls_ctx *tls;
        char *identifier;
        unsigned max_peers, npeers;
        const struct xds_server_ops *ops;
        void *arg;
        TAILQ_HEAD(, xds_peer) peers;
        LIST_HEAD(, server_conn) conns;
        struct loop_timer pause; /* accepting, when descriptors ran out */
        unsigned refs;           /* the owner's and each connection's */
        bool freed;
};

/* server_push.c */
void push_advance(struct xds_peer *p);
void push_fini(struct xds_peer *p);
bool push_holds(const struct xds_config *c, enum xds_type t, struct str name);

#endif
