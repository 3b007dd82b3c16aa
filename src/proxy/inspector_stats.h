/* The statistics of the listener filters, process-wide as in Envoy ("tls_inspector.tls_found"). */
#ifndef PROXY_INSPECTOR_STATS_H
#define PROXY_INSPECTOR_STATS_H

#include "proxy/stats.h"

struct tls_inspector_stats {
        stat_id alpn_found, alpn_not_found, client_hello_too_large, sni_found, sni_not_found, tls_found, tls_not_found, bytes_processed;
};

struct http_inspector_stats {
        stat_id http10_found, http11_found, http2_found, http_not_found;
};

struct inspectors {
        struct tls_inspector_stats tls;
        struct http_inspector_stats http;
        struct stat_scope *tls_scope, *http_scope;
};

struct inspectors *inspectors_new(struct stats *s);
void inspectors_free(struct stats *s, struct inspectors *i);

#endif
