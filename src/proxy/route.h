/* Route tables: which virtual host answers an authority, which of its routes a request takes, and what that route says
 * (envoy.config.route.v3.RouteConfiguration). A table is built whole on the main thread, immutable, shared by the workers and
 * reference-counted; it keeps no pointer into the message that it was built from.
 *
 * Domains are searched as Envoy does: exact, then the longest suffix ("*.example.com"), then the longest prefix ("example.*"), then "*".
 * Within a virtual host the first route that accepts the request is taken. */
#ifndef PROXY_ROUTE_H
#define PROXY_ROUTE_H

#include "base/hash.h"
#include "proxy/header_ops.h"
#include "proxy/match.h"
#include "proxy/rds.h"
#include "proxy/retry.h"

#include <stdatomic.h>

struct cors_policy;
struct format;
struct http_filter;
struct server;
struct Xds__Metadata;

enum { ROUTE_NO_TIMEOUT = 0 };

/* typed_per_filter_config: what a route or virtual host says to one HTTP filter. */
struct route_filter_config {
        struct str name;                  /* the filter's name in the HCM */
        const struct http_filter *filter; /* whose configuration it is */
        bool disabled;
        void *config; /* http_filter.build_route's; NULL when only disabled */
};

struct route_filter_configs {
        struct route_filter_config *v;
        size_t n;
};

enum route_tls { ROUTE_TLS_NONE, ROUTE_TLS_EXTERNAL_ONLY, ROUTE_TLS_ALL };

struct route_vhost {
        struct str name;
        struct route **routes;
        size_t nroutes;
        enum route_tls require_tls;
        bool attempt_count_in_request, attempt_count_in_response;
        const struct header_ops *request, *response; /* never NULL */
        const struct retry_policy *retry;
        const struct cors_policy *cors;
        struct route_filter_configs filters;
        uint64_t body_limit;        /* UINT64_MAX: none */
        struct route *tls_redirect; /* what require_tls answers */
};

enum route_path_kind { ROUTE_PREFIX, ROUTE_PATH, ROUTE_SEPARATED_PREFIX, ROUTE_REGEX, ROUTE_CONNECT };
enum route_action_kind { ROUTE_FORWARD, ROUTE_REDIRECT, ROUTE_DIRECT };
enum route_cluster_kind { ROUTE_CLUSTER, ROUTE_CLUSTER_HEADER, ROUTE_CLUSTER_WEIGHTED };
enum route_host_kind { ROUTE_HOST_KEEP, ROUTE_HOST_LITERAL, ROUTE_HOST_AUTO, ROUTE_HOST_HEADER, ROUTE_HOST_PATH_REGEX };

struct route_weighted {
        struct str cluster; /* or, with cluster_header, the name of a header */
        bool from_header;
        uint64_t upto; /* cumulative weight */
        struct header_ops request, response;
        struct str host_literal;
        struct route_filter_configs filters;
};

struct route_upgrade {
        struct str type; /* lower case */
        bool enabled;
};

struct route_redirect {
        int status;
        struct str scheme; /* "" keep */
        struct str host;
        unsigned port;   /* 0: keep */
        struct str path; /* path_redirect, or "" */
        bool path_has_query;
        bool has_prefix_rewrite;
        struct str prefix_rewrite;
        struct regex_rewrite regex;
        bool strip_query;
};

struct route_hash {
        enum { ROUTE_HASH_HEADER, ROUTE_HASH_COOKIE, ROUTE_HASH_SOURCE_IP, ROUTE_HASH_QUERY } kind;
        struct str name;
        bool terminal;
};

struct route {
        struct str name;
        const struct route_vhost *vhost;

        enum route_path_kind path_kind;
        struct str path;
        bool ignore_case;
        struct regex *regex;
        struct header_matches headers;
        struct query_matches query;
        struct fraction runtime;
        bool grpc;
        int tls_presented, tls_validated; /* 1, 0; -1: does not matter */

        enum route_action_kind action;
        enum route_cluster_kind cluster_kind;
        struct str cluster; /* name, or the header's */
        struct route_weighted *weighted;
        size_t nweighted;
        uint64_t weight_total;
        struct str weight_header; /* the header that carries the random number, or "" */
        int cluster_not_found_status;

        struct str prefix_rewrite; /* "" none */
        struct regex_rewrite regex_rewrite;
        enum route_host_kind host_kind;
        struct str host; /* literal, or a header's name */
        struct regex_rewrite host_regex;
        bool append_x_forwarded_host;

        uint64_t timeout_ms; /* 0: none; default 15 s */
        bool has_max_grpc_timeout;
        uint64_t max_grpc_timeout_ms, grpc_timeout_offset_ms;
        bool has_idle_timeout;
        uint64_t idle_timeout_ms;
        bool has_max_stream_duration; /* max_stream_duration set: the timeouts of its own kind */
        uint64_t max_stream_duration_ms;
        bool has_grpc_timeout_header_max;
        uint64_t grpc_timeout_header_max_ms, grpc_timeout_header_offset_ms;
        const struct retry_policy *retry;
        unsigned priority; /* enum priority */
        struct route_hash *hash;
        size_t nhash;
        const struct cors_policy *cors;
        struct route_upgrade *upgrades;
        size_t nupgrades;

        struct route_redirect redirect;
        int direct_status;
        struct str direct_body;
        struct format *direct_format; /* body_format, or NULL */
        struct str direct_content_type;
        struct format *reason; /* metadata "postern".reason, or NULL */

        struct str decorator;
        bool decorator_propagate;
        struct header_ops request, response;
        struct route_filter_configs filters;
        const struct Xds__Metadata *metadata;
        uint64_t body_limit; /* per_request_buffer_limit_bytes; UINT64_MAX: none */
};

struct route_domains { /* wildcards of one length */
        size_t len;
        struct strmap map;
};

struct route_table {
        _Atomic unsigned refs;
        struct config_mem mem;
        struct str name;
        struct strmap exact;
        struct route_domains *suffix, *prefix; /* longest first */
        size_t nsuffix, nprefix;
        struct route_vhost *any;
        struct route_vhost **vhosts;
        size_t nvhosts;
        bool ignore_port, ignore_path_parameters, most_specific_wins;
        struct header_ops request, response;
        struct str *internal_only;
        size_t ninternal_only;
        struct route_filter_configs filters;
        const struct Xds__Metadata *metadata;
        bool validate_clusters, validate_clusters_set;
};

/* What matching may look at. */
struct route_input {
        const struct http_head *head;
        uint64_t random;
        bool tls, tls_presented, tls_validated;
        bool internal; /* x-envoy-internal */
};

struct route_pick {
        const struct route *route; /* NULL: none (404, NR) */
        const struct route_weighted *weighted;
        struct str cluster; /* of a forwarding route; in the head's arena or the table */
};

/* The virtual host that answers an authority, or NULL. */
const struct route_vhost *route_table_vhost(const struct route_table *t, struct str authority);
/* False when nothing matches. */
bool route_table_pick(const struct route_table *t, const struct route_input *in, struct route_pick *out);
bool route_matches(const struct route_table *t, const struct route *r, const struct route_input *in);

/* Request headers for the upstream: mutations in Envoy's order, host and path rewriting, x-envoy-original-path (with `envoy_headers`).
 * auto_host_rewrite is the router's, who knows the host. */
void route_finalize_request(const struct route_table *t, const struct route_pick *p, struct http_head *req, const struct stream_info *si,
                            bool envoy_headers);
void route_finalize_response(const struct route_table *t, const struct route_pick *p, struct http_head *resp, const struct stream_info *si);
/* A redirect's Location. */
struct str route_redirect_uri(const struct route *r, struct http_head *req);
/* Sets the authority; with `append` the old one is kept in x-forwarded-host. */
void route_set_authority(struct http_head *req, struct str host, bool append_forwarded);
/* Configuration for the HTTP filter called `name`: the most specific of weighted cluster, route, virtual host and table. */
const struct route_filter_config *route_filter_config(const struct route_table *t, const struct route_pick *p, struct str name);
/* Calls fn for every cluster that a route names. */
void route_table_each_cluster(const struct route_table *t, void (*fn)(void *arg, struct str cluster, const struct route *r), void *arg);

/* Content-Type is application/grpc or application/grpc+x. */
bool http_is_grpc(const struct http_head *m);

#endif
