#include "proxy/inspector_stats.h"

#include "base/mem.h"

#include <stdlib.h>

static const struct stat_def tls_defs[] = {
        { "alpn_found", STAT_COUNTER },    { "alpn_not_found", STAT_COUNTER },    { "client_hello_too_large", STAT_COUNTER },
        { "sni_found", STAT_COUNTER },     { "sni_not_found", STAT_COUNTER },     { "tls_found", STAT_COUNTER },
        { "tls_not_found", STAT_COUNTER }, { "bytes_processed", STAT_HISTOGRAM },
};

static const struct stat_def http_defs[] = {
        { "http10_found", STAT_COUNTER },
        { "http11_found", STAT_COUNTER },
        { "http2_found", STAT_COUNTER },
        { "http_not_found", STAT_COUNTER },
};

struct inspectors *inspectors_new(struct stats *s)
{
        struct inspectors *i = MEM_NEW(struct inspectors);
        struct stat_scope *t, *h;

        t = i->tls_scope = stats_scope(s, STR("tls_inspector."), STR("tls_inspector."), NULL, 0, tls_defs, ARRAY_LEN(tls_defs));
        h = i->http_scope = stats_scope(s, STR("http_inspector."), STR("http_inspector."), NULL, 0, http_defs, ARRAY_LEN(http_defs));
        i->tls = (struct tls_inspector_stats){ stat_of(t, 0), stat_of(t, 1), stat_of(t, 2), stat_of(t, 3),
                                               stat_of(t, 4), stat_of(t, 5), stat_of(t, 6), stat_of(t, 7) };
        i->http = (struct http_inspector_stats){ stat_of(h, 0), stat_of(h, 1), stat_of(h, 2), stat_of(h, 3) };
        return i;
}

void inspectors_free(struct stats *s, struct inspectors *i)
{
        if (!i)
                return;
        stats_scope_unref(s, i->tls_scope);
        stats_scope_unref(s, i->http_scope);
        free(i);
}
