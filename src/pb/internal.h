/* What the files of this folder share and nobody else sees: facts about each message type, worked out once, and scalar texts. */
#ifndef PB_INTERNAL_H
#define PB_INTERNAL_H

#include "pb/pb.h"

enum {
        PB_DEPTH_MAX = 100,
        PB_YAML_NODES_MAX = 1000000,
        PB_JSON_NODES_MAX = 4000000,
        PB_ALIAS_NODES_MAX = 100000, /* nodes that aliases may add, and ... */
        PB_ALIAS_FACTOR_MAX = 10,    /* ... how many for each node written, once past PB_ALIAS_NODES_FREE */
        PB_ALIAS_NODES_FREE = 1000,
};

/* Messages whose JSON is not an object of their fields. */
enum pb_special {
        PB_PLAIN,
        PB_DURATION,
        PB_TIMESTAMP,
        PB_STRUCT,
        PB_VALUE,
        PB_LIST_VALUE,
        PB_WRAPPER,
        PB_FIELD_MASK,
        PB_ANY,
        PB_INT_OR_STRING,
        PB_QUANTITY,
        PB_K8S_TIME,
        PB_RAW_JSON,
};

struct pb_name {
        struct str name;
        unsigned field;
};

/* A message type as the readers and printers need it. Made at the first use of the type and kept. */
struct pb_info {
        const ProtobufCMessageDescriptor *t;
        enum pb_special special;
        bool entry; /* a map's entry: key 1, value 2 */
        bool k8s;   /* 64-bit integers are JSON numbers, durations may be Go's */
        bool go_durations;
        const char **json_names; /* by field index; lowerCamelCase */
        struct pb_name *names;   /* sorted; original and JSON names */
        size_t n_names;
};

const struct pb_info *pb_info(const ProtobufCMessageDescriptor *t);
int pb_field_index(const struct pb_info *ti, struct str name); /* -1: unknown */
const ProtobufCFieldDescriptor *pb_field_by_number(const ProtobufCMessageDescriptor *t, uint32_t id);
/* The name nearest to one that is not known, or NULL. */
const char *pb_field_near(const struct pb_info *ti, struct str name);
const char *pb_type_near(struct str full_name);
struct str pb_url_name(struct str url); /* what follows the last '/' */

static inline const ProtobufCMessageDescriptor *pb_sub(const ProtobufCFieldDescriptor *f)
{
        return f->type == PROTOBUF_C_TYPE_MESSAGE ? f->descriptor : NULL;
}

static inline const struct pb_info *pb_field_entry(const ProtobufCFieldDescriptor *f) /* info of the entry, when f is a map */
{
        if (f->label != PROTOBUF_C_LABEL_REPEATED || f->type != PROTOBUF_C_TYPE_MESSAGE)
                return NULL;
        const struct pb_info *ti = pb_info(f->descriptor);

        return ti->entry ? ti : NULL;
}

static inline bool pb_in_oneof(const ProtobufCFieldDescriptor *f)
{
        return f->flags & PROTOBUF_C_FIELD_FLAG_ONEOF;
}

/* Field access by descriptor. */
static inline void *pb_at(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        return (char *)m + f->offset;
}

static inline size_t pb_count(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        return *(const size_t *)((const char *)m + f->quantifier_offset);
}

bool pb_present(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f); /* set, or a list that is not empty */
void pb_mark(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f);          /* sets has_x or the oneof's case */
size_t pb_elem_size(ProtobufCType type);
/* The elements of a repeated field, as an array of pb_elem_size() pieces. */
static inline char *pb_elems(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f)
{
        return *(char **)pb_at(m, f);
}
/* One more element, zeroed, behind the others; memory from `a`. */
void *pb_elem_add(ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, struct arena *a);
ProtobufCMessage *pb_msg_new(const ProtobufCMessageDescriptor *t, struct arena *a);
/* A map's entries in the order of their keys; malloc'd, free() it. */
ProtobufCMessage **pb_entries_sorted(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, size_t *n);

/* Names on the way to a place, kept on the stack and spelled out only when something is said about it. */
struct pb_path {
        const struct pb_path *up;
        struct str name; /* a field or key; or, with name.p NULL, element `index` */
        size_t index;
};
void pb_path_print(const struct pb_path *p, struct buf *out);

/* Map keys: whether all n are different; *dup is the first that is not. */
bool pb_keys_unique(const struct str *keys, size_t n, size_t *dup);
/* Arrays of a node hold pb_node_cap(n) elements, so that appending needs no field for it. */
static inline size_t pb_node_cap(size_t n)
{
        return n <= 4 ? 4 : (size_t)1 << (64 - __builtin_clzl(n - 1));
}

/* Texts of scalars (text.c). */
bool pb_text_is_number(struct str s);     /* a YAML 1.1 number as Go's reader takes it, or a JSON one */
bool pb_text_bool(struct str s, bool *v); /* YAML 1.1: true/yes/on/y ... */
bool pb_text_null(struct str s);
bool pb_text_i64(struct str s, int64_t *v); /* decimal, 0x, 0o, 0b, leading 0, "_", integral "1e3" or "2.0" */
bool pb_text_u64(struct str s, uint64_t *v);
bool pb_text_double(struct str s, double *v);
void pb_double_print(double v, struct buf *out); /* shortest that reads back; no NaN, no infinity */
void pb_float_print(float v, struct buf *out);
bool pb_text_duration(struct str s, bool go, int64_t *seconds, int32_t *nanos);
void pb_duration_print(int64_t seconds, int32_t nanos, struct buf *out);
bool pb_text_time(struct str s, int64_t *seconds, int32_t *nanos);
void pb_time_print(int64_t seconds, int32_t nanos, int frac, struct buf *out); /* frac: digits, or -1: as many as needed */
bool pb_text_base64(struct str s, struct arena *a, uint8_t **p, size_t *n);
bool pb_utf8_valid(struct str s);
void pb_camel(const char *snake, char *out); /* out holds strlen(snake) + 1 */
void pb_snake(struct str camel, struct buf *out);

/* Reading: what pb_from_node carries along (read.c, wellknown.c, scalar.c). */
struct pb_reader {
        struct arena *a;
        struct diags *d;
        const struct diag_at *base;
        unsigned flags;
        unsigned depth;
        bool go_durations; /* the message at hand is one of Istio's or Kubernetes' */
        bool failed;
};
void pb_read_error(struct pb_reader *r, const struct pb_node *n, const struct pb_path *p, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));
void pb_read_warning(struct pb_reader *r, const struct pb_node *n, const struct pb_path *p, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));
/* Whether a diagnostic would still be kept: looking for what somebody may have meant costs more than the rest. */
static inline bool pb_read_heard(const struct pb_reader *r)
{
        return r->d && r->d->n < r->d->max;
}
const char *pb_kind_name(const struct pb_node *n); /* "a list" */
/* Reads n into m; errors are noted in r. */
void pb_read_message(struct pb_reader *r, ProtobufCMessage *m, const struct pb_node *n, const struct pb_path *p);
/* The object's keys except "@type" into m's fields. */
void pb_read_fields(struct pb_reader *r, ProtobufCMessage *m, const struct pb_info *ti, const struct pb_node *n, const struct pb_path *p,
                    bool skip_type);
void pb_read_field(struct pb_reader *r, ProtobufCMessage *m, const struct pb_info *ti, const ProtobufCFieldDescriptor *f,
                   const struct pb_node *n, const struct pb_path *p);
void pb_read_special(struct pb_reader *r, ProtobufCMessage *m, const struct pb_info *ti, const struct pb_node *n, const struct pb_path *p);
/* A scalar of f's type into `out` (a C member of that type). */
bool pb_read_scalar(struct pb_reader *r, const ProtobufCFieldDescriptor *f, const struct pb_node *n, const struct pb_path *p, void *out);

/* Writing (write.c, wellknown.c). */
struct pb_node *pb_write_message(const ProtobufCMessage *m, struct arena *a, unsigned depth);
struct pb_node *pb_write_field(const ProtobufCMessage *m, const ProtobufCFieldDescriptor *f, bool k8s, struct arena *a, unsigned depth);
struct pb_node *pb_write_special(const ProtobufCMessage *m, const struct pb_info *ti, struct arena *a, unsigned depth);
struct pb_node *pb_write_scalar(const ProtobufCFieldDescriptor *f, const void *v, bool k8s, struct arena *a);

#endif
