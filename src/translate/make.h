/* Making messages in an arena: the few shapes that every part of the output is built from. */
#ifndef TRANSLATE_MAKE_H
#define TRANSLATE_MAKE_H

#include "envoy/accesslog.pb-c.h"
#include "envoy/cluster.pb-c.h"
#include "envoy/core.pb-c.h"
#include "envoy/endpoint.pb-c.h"
#include "envoy/hcm.pb-c.h"
#include "envoy/listener.pb-c.h"
#include "envoy/route.pb-c.h"
#include "envoy/tcp_proxy.pb-c.h"
#include "envoy/udpa_type.pb-c.h"

#include "base/arena.h"
#include "base/buf.h"

/* A zeroed message: Xds__Listener *l = MAKE(a, xds__listener). */
#define MAKE(a, lower) make_message((a), &lower##__descriptor)
/* An array of one pointer, for repeated fields that hold one thing. */
#define MAKE_LIST(a, n) arena_zalloc((a), (n) * sizeof(void *))

void *make_message(struct arena *a, const ProtobufCMessageDescriptor *d);
Gp__Any *make_any(struct arena *a, const void *message);
Gp__Duration *make_us(struct arena *a, int64_t us);
static inline Gp__Duration *make_s(struct arena *a, int64_t s)
{
        return make_us(a, s * 1000000);
}
Gp__UInt32Value *make_u32(struct arena *a, uint32_t v);
Gp__BoolValue *make_bool(struct arena *a, bool v);

Gp__Value *make_text(struct arena *a, struct str s);
Gp__Value *make_flag(struct arena *a, bool v);
Gp__Value *make_object(struct arena *a, Gp__Struct *s);
Gp__Value *make_array(struct arena *a, Gp__Value **v, size_t n); /* v is kept */
/* Keeps the entries sorted by key. */
void make_put(struct arena *a, Gp__Struct *s, const char *key, Gp__Value *v);
/* metadata.filter_metadata[key], made when absent; *m too. */
Gp__Struct *make_metadata(struct arena *a, Xds__Metadata **m, const char *key);
/* filter_metadata.istio.config and filter_metadata.postern.reason; an empty text adds nothing. */
void make_origin(struct arena *a, Xds__Metadata **m, struct str config);
void make_reason(struct arena *a, Xds__Metadata **m, struct str reason);

Xds__Address *make_address(struct arena *a, struct str address, uint32_t port);
Xds__CidrRange *make_cidr(struct arena *a, struct str range); /* "10.0.0.0/8", or an address alone; NULL when it is neither */
/* udpa.type.v1.TypedStruct in an Any. */
Gp__Any *make_typed_struct(struct arena *a, const char *type_url, Gp__Struct *s);

/* Packs a message behind what is in `out`. */
void make_pack(const void *message, struct buf *out);
/* Appends one length-delimited field: tag, length, bytes. */
void make_pack_field(struct buf *out, unsigned number, struct str bytes);

#endif
