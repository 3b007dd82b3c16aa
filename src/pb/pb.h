/* YAML and JSON to protobuf messages and back, by reflection over protobuf-c descriptors. The one door through which configuration
 * comes in, whatever its kind: Envoy's, Istio's, Kubernetes'.
 *
 * A text is read into a tree of nodes with positions first (pb_node), because Kubernetes objects, patches and Struct need it untyped;
 * then a message is made from a node. The rules are proto3-JSON's: lowerCamelCase or the original snake_case names, enums by name or
 * number, 64-bit integers as string or number, Duration/Timestamp/wrappers/Struct/Value/ListValue/FieldMask/Any in their special
 * forms, bytes as base64, maps as objects, null as absent. Kubernetes' IntOrString, Quantity, Time and RawExtension have theirs. An
 * unknown field, a wrong type, a bad enum, a repeated key, a missing required field is an error with its place and, where one is near, a
 * suggestion. YAML scalars are typed by the field that takes them (no Norway problem), anchors are bounded. */
#ifndef PB_PB_H
#define PB_PB_H

#include "base/diag.h"

#include <protobuf-c/protobuf-c.h>

enum pb_kind { PB_NULL, PB_BOOL, PB_NUMBER, PB_STRING, PB_LIST, PB_MAP };

struct pb_node {
        enum pb_kind kind;
        bool quoted;           /* the kind is what was written (JSON, YAML in quotes, pb_new()); false: a plain YAML scalar, which the
                                  field that takes it may read as its own type (a string field takes `no` as "no") */
        unsigned line, column; /* from 1 */
        struct str text;    /* BOOL, NUMBER, STRING: as written (STRING: unescaped); a YAML BOOL may be "yes" or "off", a NUMBER "0x1F" */
        struct pb_node **v; /* LIST: elements; MAP: values */
        struct str *keys;   /* MAP */
        struct pb_node *key_at; /* MAP: nodes of the keys, for positions: n of them */
        size_t n;               /* the arrays are larger than n: change a map or list by pb_put() and pb_push() only */
};

/* Reads one JSON text, or every document of a YAML stream. Nodes live in `a`. On an error: false and a diagnostic with the place.
 * Depth, number of nodes and alias expansion are bounded. `file` is for diagnostics only. */
bool pb_parse_json(struct str text, struct str file, struct arena *a, struct pb_node **root, struct diags *d);
bool pb_parse_yaml(struct str text, struct str file, struct arena *a, struct pb_node ***docs, size_t *ndocs, struct diags *d);

struct pb_node *pb_get(const struct pb_node *map, const char *key);         /* NULL: absent, or not a map */
struct pb_node *pb_get_path(const struct pb_node *map, const char *dotted); /* "metadata.name" */
struct str pb_get_str(const struct pb_node *map, const char *dotted, struct str otherwise);
struct pb_node *pb_new(struct arena *a, enum pb_kind kind, struct str text);
void pb_put(struct arena *a, struct pb_node *map, struct str key, struct pb_node *value); /* replaces or appends */
void pb_put_str(struct arena *a, struct pb_node *map, const char *key, struct str value);
bool pb_del(struct pb_node *map, const char *key);
void pb_push(struct arena *a, struct pb_node *list, struct pb_node *value);
struct pb_node *pb_clone(struct arena *a, const struct pb_node *n);
/* Puts what `from` (a map, or NULL) says into `into`: maps merge at every depth, everything else is replaced. Values are shared. */
void pb_merge(struct arena *a, struct pb_node *into, const struct pb_node *from);
bool pb_node_eq(const struct pb_node *a, const struct pb_node *b); /* maps: order does not matter */
void pb_node_json(const struct pb_node *n, struct buf *out);       /* compact */
struct str pb_node_json_str(const struct pb_node *n, struct arena *a);
void pb_node_json_indent(const struct pb_node *n, unsigned indent, struct buf *out);
void pb_node_yaml(const struct pb_node *n, struct buf *out);

/* Types by full protobuf name ("envoy.config.listener.v3.Listener"), for Any. The table is made at build time from every proto. */
const ProtobufCMessageDescriptor *pb_type(struct str full_name);
/* After "type.googleapis.com/". */
const ProtobufCMessageDescriptor *pb_type_url(struct str url);

enum {
        PB_UNKNOWN_WARN = 1, /* unknown fields are warnings and skipped, not errors */
};

/* Makes a message of type `t` from a node. The message is allocated in `a` (never protobuf_c_message_free_unpacked() it). An Any keeps
 * type_url and packed bytes; its content is checked by the same rules. NULL with diagnostics on error. `base` gives file, resource and the
 * path prefix ("spec"). */
ProtobufCMessage *pb_from_node(const ProtobufCMessageDescriptor *t, const struct pb_node *n, unsigned flags, const struct diag_at *base,
                               struct arena *a, struct diags *d);
/* Message to node tree / JSON text, proto3-JSON in lowerCamelCase; Any is expanded when its type is known, else {"@type","value":base64}.
 */
struct pb_node *pb_to_node(const ProtobufCMessage *m, struct arena *a);
void pb_to_json(const ProtobufCMessage *m, unsigned indent, struct buf *out);

/* Unpacks wire bytes into `a`. NULL when they are not a message of this type. Lists fields that the schema does not know in `d` as warnings
 * (path and number), Any included, when d is not NULL. */
ProtobufCMessage *pb_unpack(const ProtobufCMessageDescriptor *t, const void *p, size_t n, struct arena *a, struct diags *d);
/* Packs, appended to `out`. Deterministic: map entries by key. */
void pb_pack(const ProtobufCMessage *m, struct buf *out);
/* Unpacks the content of a google.protobuf.Any. NULL with a diagnostic when the type is unknown or the bytes are broken. */
ProtobufCMessage *pb_unpack_any(struct str type_url, struct str value, struct arena *a, const struct diag_at *at, struct diags *d);

ProtobufCMessage *pb_clone_message(const ProtobufCMessage *m, struct arena *a);
bool pb_equal(const ProtobufCMessage *a, const ProtobufCMessage *b);
uint64_t pb_hash(const ProtobufCMessage *m);
/* The paths that differ, one call each ("filter_chains[0].filters[1].name"); both may be NULL. */
void pb_diff(const ProtobufCMessage *a, const ProtobufCMessage *b, void (*fn)(void *arg, struct str path), void *arg);

#endif
