/* The insides of the ADS client, shared by its three files: client.c (what is wanted and what is held), client_link.c (connection and
 * stream), state_file.c (the last known good on disk). Not for others. */
#ifndef XDS_CLIENT_H
#define XDS_CLIENT_H

#include "http/grpc.h"
#include "net/dns.h"
#include "xds/decode.h"

struct client_sub { /* one wanted name */
        struct xds_client *client;
        enum xds_type type;
        struct str name; /* NUL-terminated */
        unsigned refs;
        bool announced; /* delta: the server knows, on this stream */
        bool answered;
        bool deliver; /* what is held is to be handed to the sink at the end of the turn */
        struct loop_timer timeout;
};

struct held { /* an accepted resource, with its bytes behind it */
        struct str version, value;
        uint64_t updated_us;
        bool from_disk;
};

struct client_type {
        struct strmap subs, held; /* name -> struct client_sub, struct held */
        char *version;            /* last accepted, NULL: none */
        char *nonce;              /* last of this stream */
        char *nack;               /* error text that the next request carries */
        bool asked;               /* on this stream */
        bool must_ask;            /* an acknowledgement or changed names wait to be sent */
        struct xds_stats stats;
};

struct xds_client {
        struct loop *loop;
        struct xds_sink sink;
        const Xds__Node *node;
        bool delta;
        struct client_type type[XDS_TYPES];
        struct loop_task task; /* deliveries from what is held, then requests */
        struct xds_warned warned;
        /* the link */
        struct str *targets;
        unsigned ntargets, next_target;
        struct tls_ctx *tls;
        struct str sni, authority;
        struct http_hdr *metadata;
        unsigned nmetadata, keepalive_ms;
        struct dns *dns;
        struct dns_query *query;
        struct conn *io; /* while connecting */
        struct client_link *link;
        struct grpc_call *call;
        struct loop_timer retry;
        unsigned backoff_ms;
        bool node_sent, answered;
        char *trouble;
        /* the state file */
        char *state_path;
        struct loop_timer save;
};

/* client.c */
void client_stream_up(struct xds_client *c);
void client_stream_down(struct xds_client *c);
bool client_on_message(struct xds_client *c, struct str msg); /* false: it is no discovery response */
void client_hold(struct xds_client *c, enum xds_type t, struct str name, struct str version, struct str value, bool from_disk);

/* client_link.c */
void client_link_init(struct xds_client *c, const struct xds_client_opts *o);
void client_link_fini(struct xds_client *c);

/* state_file.c */
void client_state_load(struct xds_client *c);
void client_state_changed(struct xds_client *c); /* written soon */
void client_state_fini(struct xds_client *c);

#endif
