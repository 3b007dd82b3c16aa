/* What is known about one connection (conn_info) and one request or TCP session on it (stream_info): everything that an access log, a
 * header formatter, a statistic or a tracer may ask. Plain data that the filters fill in as things happen; strings and addresses are
 * borrowed and must live until the log line is written. */
#ifndef PROXY_STREAM_INFO_H
#define PROXY_STREAM_INFO_H

#include "net/addr.h"

struct worker;
struct host;
struct cluster_info;
struct http_head;
struct tls_info;
struct Xds__Metadata;

enum response_flag {
#define F(id, s, l) RF_BIT_##id,
#include "proxy/response_flags.def"
#undef F
        RF_COUNT
};

enum {
#define F(id, s, l) RF_##id = 1u << RF_BIT_##id,
#include "proxy/response_flags.def"
#undef F
};

extern const char *const response_flag_short[RF_COUNT], *const response_flag_long[RF_COUNT];
/* By short name ("UF"). False when there is none. */
bool response_flag_parse(struct str name, uint32_t *bit);

/* The accepted connection. */
struct conn_info {
        uint64_t id; /* unique in the process */
        struct worker *worker;
        const struct addr *remote;       /* the peer; after proxy protocol when there is one */
        const struct addr *local;        /* the destination; after original_dst */
        const struct addr *direct_local; /* what was accepted on */
        struct str sni;                  /* from tls_inspector or the handshake; "" when none */
        struct str transport_protocol;   /* "raw_buffer", "tls", or "" when no filter looked */
        const struct str *alpn;          /* application protocols offered or detected */
        unsigned nalpn;
        const struct tls_info *tls; /* downstream handshake; NULL when plain */
        bool local_restored;        /* `local` comes from original_dst */
        bool inbound, outbound;     /* the listener's traffic_direction */
        struct str filter_chain_name;
        struct str listener_name;
        struct str termination_details;      /* CONNECTION_TERMINATION_DETAILS */
        struct str transport_failure_reason; /* DOWNSTREAM_TRANSPORT_FAILURE_REASON */
};

enum stream_protocol { SP_NONE, SP_HTTP10, SP_HTTP11, SP_HTTP2 };

/* Moments, monotonic µs (loop_now_us or finer); 0: did not happen. COMMON_DURATION's names in brackets. */
enum stream_time {
        ST_START,     /* DS_RX_BEG: the first byte of the request; TCP: accepted */
        ST_DS_RX_END, /* DS_RX_END: last byte of the request received */
        ST_US_CX_BEG,
        ST_US_CX_END, /* US_CX_BEG, US_CX_END: upstream connect (0 both: a pooled connection) */
        ST_US_HS_END, /* US_HS_END: upstream TLS handshake */
        ST_US_TX_BEG,
        ST_US_TX_END, /* US_TX_BEG, US_TX_END: request sent upstream */
        ST_US_RX_BEG,
        ST_US_RX_BODY,
        ST_US_RX_END, /* US_RX_BEG, US_RX_BODY_BEG, US_RX_END: response received */
        ST_DS_TX_BEG,
        ST_DS_TX_END, /* DS_TX_BEG, DS_TX_END: response sent */
        ST_END,       /* request complete */
        ST_COUNT
};

struct stream_kv { /* FILTER_STATE and DYNAMIC_METADATA entries; a list, newest first */
        struct stream_kv *next;
        struct str name;   /* filter namespace, or filter-state key */
        struct str text;   /* FILTER_STATE: plain form */
        const void *value; /* DYNAMIC_METADATA: a Gp__Struct */
};

struct stream_info {
        const struct conn_info *conn;
        uint64_t start_real_us; /* wall clock at ST_START */
        uint64_t t[ST_COUNT];
        enum stream_protocol protocol;
        uint32_t flags;                      /* RF_* */
        int response_code;                   /* 0: none */
        struct str response_code_details;    /* "via_upstream", "route_not_found", ...; "" */
        struct str termination_details;      /* TCP sessions; else conn's */
        uint64_t bytes_received, bytes_sent; /* bodies; TCP: all */
        uint64_t ds_wire_received, ds_wire_sent, us_wire_received, us_wire_sent;
        uint64_t ds_head_received, ds_head_sent, us_head_received, us_head_sent;
        struct str stream_id; /* x-request-id or another UUID */
        bool health_check;

        const struct addr *remote; /* downstream remote as HTTP sees it (x-forwarded-for); NULL: conn->remote */
        struct str route_name, virtual_host_name, virtual_cluster_name;
        const struct Xds__Metadata *route_metadata;
        const struct http_head *request, *response, *response_trailers;

        const struct cluster_info *cluster; /* chosen; kept alive by who set it */
        struct host *host;                  /* upstream host attempted last; likewise */
        const struct addr *upstream_local, *upstream_remote;
        const struct tls_info *upstream_tls;
        uint64_t upstream_conn_id;
        enum stream_protocol upstream_protocol;
        unsigned attempts;           /* upstream request attempts */
        struct str upstream_failure; /* UPSTREAM_TRANSPORT_FAILURE_REASON */

        struct stream_kv *metadata, *filter_state;
};

static inline uint64_t stream_us(const struct stream_info *s, enum stream_time from, enum stream_time to)
{
        return s->t[to] > s->t[from] ? s->t[to] - s->t[from] : 0;
}

#endif
