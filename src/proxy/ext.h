/* Reading Envoy's extension points: what a typed_config holds, and the small wrappers (Duration, UInt32Value, ConfigSource). */
#ifndef PROXY_EXT_H
#define PROXY_EXT_H

#include "base/diag.h"
#include "net/addr.h"

#include <protobuf-c/protobuf-c.h>

struct Gp__Any;
struct Gp__Duration;
struct Gp__Struct;
struct Gp__Value;
struct Xds__Address;
struct Xds__Metadata;

/* The content of a typed_config. A TypedStruct (udpa.type.v1, xds.type.v3) is looked through: its Struct is read as the message that its
 * type_url names. */
struct ext {
        struct str type; /* full message name, without "type.googleapis.com/" */
        const ProtobufCMessage *msg;
};

/* False with a diagnostic when it is missing, unknown or broken. The message lives in `a`. */
bool ext_read(const struct Gp__Any *any, struct arena *a, const struct diag_at *at, struct diags *d, struct ext *out);

/* A DataSource's text: inline, from a file of at most 1 MiB, or from the environment; in `a`. */
struct Xds__DataSource;
bool data_source_read(const struct Xds__DataSource *ds, struct arena *a, const struct diag_at *at, struct diags *d, struct str *out);

/* A path below another: at->path + text; in `a`. */
struct diag_at at_path(struct arena *a, const struct diag_at *at, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* Milliseconds; NULL gives `otherwise`. Negative or absurd durations (over 10,000 years) are an error at `at`. */
uint64_t duration_ms(const struct Gp__Duration *d, uint64_t otherwise, const struct diag_at *at, struct diags *diags);

/* metadata.filter_metadata[filter].fields[key...]; NULL when absent. */
const struct Gp__Struct *metadata_struct(const struct Xds__Metadata *m, const char *filter);
const struct Gp__Value *struct_value(const struct Gp__Struct *s, struct str key);
struct str struct_str(const struct Gp__Struct *s, const char *key); /* a string field, or "" */

/* A socket_address or pipe. False with a diagnostic: a name where an address must be, a bad port, an address type we do not have. */
bool address_read(const struct Xds__Address *a, struct addr *out, const struct diag_at *at, struct diags *d);

#endif
