/* The table of resources that the API server serves, and how each is shaped. Several versions of a kind (networking.istio.io v1, v1beta1,
 * v1alpha3) are one bucket in the store, because their schemas are the same. Everything that lists kinds (discovery, OpenAPI, tables,
 * validation, patches) walks this table. */
#ifndef KUBE_KINDS_H
#define KUBE_KINDS_H

#include "base/str.h"

#include <protobuf-c/protobuf-c.h>

enum {
        KUBE_GET = 1,
        KUBE_LIST = 2,
        KUBE_WATCH = 4,
        KUBE_CREATE = 8,
        KUBE_UPDATE = 16,
        KUBE_PATCH = 32,
        KUBE_DELETE = 64,
        KUBE_DELETE_COLLECTION = 128,
        KUBE_RO = KUBE_GET | KUBE_LIST | KUBE_WATCH,
        KUBE_ALL = 255,
};

enum kube_shape {
        KUBE_BUILTIN, /* `type` is the whole object; strategic merge patch works */
        KUBE_CUSTOM,  /* `type` is the spec; the object has metadata, spec and a free-form status, as CRDs do */
};

enum kube_sub {
        KUBE_SUB_STATUS = 1,
        KUBE_SUB_SCALE = 2,
        KUBE_SUB_POD = 4 /* log exec attach portforward eviction */,
        KUBE_SUB_TOKEN = 8,
        KUBE_SUB_FINALIZE = 16
};

struct kube_resource {
        const char *group, *version; /* group "": core */
        const char *plural, *singular, *kind;
        const char *short_names, *categories; /* space-separated, or "" */
        bool namespaced;
        enum kube_shape shape;
        const char *type; /* protobuf full name */
        unsigned verbs, subs;
        const char *fields; /* field selectors besides metadata.name and metadata.namespace; space-separated */
        const char *bucket; /* name in the store: "pods", "gateways.networking.istio.io" */
        /* filled in by kube_kinds_init(): */
        unsigned bucket_id;
        bool storage;                           /* the version that is stored and preferred */
        const ProtobufCMessageDescriptor *desc; /* NULL: not built in, so not served */
};

extern struct kube_resource kube_resources[];
extern const unsigned kube_resources_n;

/* Resolves descriptors and buckets. Idempotent; call before anything else here. */
void kube_kinds_init(void);
unsigned kube_buckets_n(void);
/* The storage version's entry of a bucket; and a bucket by its name, or -1. */
const struct kube_resource *kube_bucket_resource(unsigned bucket_id);
int kube_bucket_find(struct str name);

const struct kube_resource *kube_resource_find(struct str group, struct str version, struct str plural);
const struct kube_resource *kube_resource_kind(struct str group, struct str version, struct str kind);
bool kube_group_version_served(struct str group, struct str version);
/* "v1" or "apps/v1"; static. */
const char *kube_api_version(const struct kube_resource *r);
/* "pods" or "deployments.apps", as errors name a resource; static. */
const char *kube_qualified(const struct kube_resource *r);

/* Buckets that code names. */
struct kube_bucket_ids {
        unsigned namespaces, nodes, pods, services, endpoints, endpointslices, serviceaccounts, configmaps, secrets, events, deployments,
                replicasets;
};
extern struct kube_bucket_ids kube_b;

/* A field of a message by its JSON name, or NULL. */
const ProtobufCFieldDescriptor *kube_field(const ProtobufCMessageDescriptor *m, struct str json_name);
/* Is this repeated message field a protobuf map? */
bool kube_field_is_map(const ProtobufCFieldDescriptor *f);
/* How strategic merge patch treats a list or map field: merge key ("" with *merge: a list of primitives), retainKeys. */
struct kube_patch_rule {
        const char *message, *field, *merge_key;
        bool merge, retain_keys;
};
const struct kube_patch_rule *kube_patch_rule(const ProtobufCMessageDescriptor *m, struct str field);

#endif
