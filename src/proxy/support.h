/* "Nothing is ignored in silence": which fields of Envoy's messages this proxy honours. A field that is set and not honoured is an error
 * that names it; one that is known to be harmless is a warning. The schema (proto/envoy) is wider than the proxy, so that the error can say
 * "not supported" rather than "unknown". */
#ifndef PROXY_SUPPORT_H
#define PROXY_SUPPORT_H

#include "base/diag.h"

#include <protobuf-c/protobuf-c.h>

/* Walks `m` and what is in it. False when at least one field is refused. Messages without a row in the table are taken as honoured whole;
 * their readers check for themselves. */
bool support_check(const ProtobufCMessage *m, const struct diag_at *at, struct arena *a, struct diags *d);

#endif
