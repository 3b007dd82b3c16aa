/* From discovery responses to updates, for the client and the file source. Not for others. */
#ifndef XDS_DECODE_H
#define XDS_DECODE_H

#include "base/hash.h"
#include "envoy/discovery.pb-c.h"
#include "xds/xds.h"

/* Everything lives in `a`. False when nothing of it can be taken; what is wrong with single resources marks them refused. Errors are in
 * `d`. */
bool xds_decode(const Xds__DiscoveryResponse *r, enum xds_type t, struct arena *a, struct xds_update *u, struct diags *d);
bool xds_decode_delta(const Xds__DeltaDiscoveryResponse *r, enum xds_type t, struct arena *a, struct xds_update *u, struct diags *d);
/* Unpacks u->v[i].value into .msg; false with a diagnostic, and marked refused. */
bool xds_decode_resource(struct xds_resource *r, enum xds_type t, struct arena *a, struct diags *d);

/* Hands `u` to the sink, but for what was refused already; counts. True: nothing was refused. When the sink added errors without marking
 * anything, all of it counts as refused. */
bool xds_deliver(const struct xds_sink *sink, struct xds_update *u, struct xds_stats *s, struct diags *d);

/* The errors in `d`, as one text of a bounded length. */
void xds_errors_text(const struct diags *d, struct buf *out);

/* Warnings, logged once each. */
struct xds_warned {
        struct strmap seen;
};
void xds_warn_once(struct xds_warned *w, const struct diags *d);
void xds_warned_fini(struct xds_warned *w);

void xds_stats_fini(struct xds_stats *s);

#endif
