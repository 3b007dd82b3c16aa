/* OpenAPI schemas from descriptors, so that what is documented and what is parsed cannot disagree: OpenAPI v2 definitions, v3 component
 * schemas, and the structural schemas of CustomResourceDefinitions. Field texts come from the comments in the .proto files. */
#ifndef PB_SCHEMA_H
#define PB_SCHEMA_H

#include "pb/pb.h"

enum pb_schema_kind {
        PB_SCHEMA_V2,         /* Swagger 2.0 definitions; other messages by $ref */
        PB_SCHEMA_V3,         /* OpenAPI 3.0 component schemas; other messages by $ref */
        PB_SCHEMA_STRUCTURAL, /* a CRD's openAPIV3Schema: everything in line, recursion ends in preserve-unknown-fields */
};

struct pb_schema_opts {
        enum pb_schema_kind kind;
        const char *ref_prefix; /* "#/definitions/", "#/components/schemas/" */
        /* May be NULL. Appends members to the schema of field `f` of `t`, each with a comma before it
         * (`,"x-kubernetes-patch-strategy":"merge"`). */
        void (*extra)(void *arg, const ProtobufCMessageDescriptor *t, const ProtobufCFieldDescriptor *f, const char *json_name,
                      struct buf *out);
        void *arg;
};

/* The schema object of one message type, appended to `out`. */
void pb_schema_json(const ProtobufCMessageDescriptor *t, const struct pb_schema_opts *o, struct buf *out);

/* A Kubernetes kind. */
struct pb_schema_object {
        const char *group, *version, *kind;
        const ProtobufCMessageDescriptor *type;
        bool custom; /* `type` is the spec beside apiVersion, kind, metadata and a free-form status; else it is the whole object
                        without apiVersion and kind */
};
/* Its schema with apiVersion, kind and x-kubernetes-group-version-kind. */
void pb_schema_object_json(const struct pb_schema_object *ob, const struct pb_schema_opts *o, struct buf *out);
/* The name of its definition ("io.k8s.api.core.v1.Pod", "io.istio.networking.v1.Gateway"); with `list`, of the list of it. */
void pb_schema_object_name(const struct pb_schema_object *ob, bool list, struct buf *out);
/* The list's schema: metadata and items. */
void pb_schema_list_json(const struct pb_schema_object *ob, const struct pb_schema_opts *o, struct buf *out);

/* The name that $ref uses for a type: "k8s.io.api.core.v1.Pod" is "io.k8s.api.core.v1.Pod", all others are as in protobuf. */
void pb_schema_name(const ProtobufCMessageDescriptor *t, struct buf *out);
/* All types that the roots refer to, however far, the roots themselves included and ObjectMeta and ListMeta with them; sorted by name.
 * malloc'd: free(). Types with a JSON form of their own (Duration, IntOrString, ...) and maps are printed in line and are not among them.
 */
const ProtobufCMessageDescriptor **pb_schema_closure(const ProtobufCMessageDescriptor *const *roots, size_t n, size_t *n_all);

/* The comment on a field in its .proto file, or on the message itself with field NULL. "" when there is none. */
const char *pb_schema_doc(const ProtobufCMessageDescriptor *t, const char *field);

#endif
