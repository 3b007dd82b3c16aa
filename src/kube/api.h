/* Inside of the API server: one request from its words to its answer, without any socket. server.c feeds this; tests may as well. */
#ifndef KUBE_API_H
#define KUBE_API_H

#include "base/hash.h"
#include "kube/apiserver.h"
#include "kube/kinds.h"
#include "kube/request.h"
#include "kube/selector.h"
#include "kube/store.h"

#define KUBE_VERSION_MAJOR "1"
#define KUBE_VERSION_MINOR "32"
#define KUBE_VERSION_GIT   "v1.32.4"

struct kube_user {
        struct str name, uid;
        struct str groups[16];
        unsigned ngroups;
        struct str pod_name, pod_uid, node_name; /* of a bound service-account token, or "" */
};

bool kube_user_in_group(const struct kube_user *u, const char *group);

/* What every request shares. */
struct kube_api {
        struct kube_store *store;
        struct kube_admission *admission;
        unsigned nadmission;
        struct kube_view view;
        struct kube_tokens *tokens; /* kube/auth.h; NULL: no service-account tokens */
        struct str node_socket;
        struct str cluster_domain;
        struct str ca_pem;                   /* for kube-root-ca.crt */
        uint32_t service_base, service_mask; /* host byte order */
        struct openapi_cache *openapi;       /* kube/openapi.c */
        uint64_t (*now_us)(void);            /* real time; tests set it */
        struct str server_url;
};

void kube_api_init(struct kube_api *api, struct kube_store *store);
void kube_api_fini(struct kube_api *api);

enum kube_format { KUBE_FMT_JSON, KUBE_FMT_TABLE, KUBE_FMT_PARTIAL };

/* How objects are written to this client. */
struct kube_view_opts {
        enum kube_format format;
        const struct kube_resource *res; /* the version asked for */
        bool table_v1beta1;
        enum { KUBE_ROW_METADATA, KUBE_ROW_OBJECT, KUBE_ROW_NONE } include;
};

enum { KUBE_WARNINGS_MAX = 32 };

struct kube_req {
        struct kube_api *api;
        struct arena *a;
        /* in */
        struct str method, path_text, query_text, accept, content_type, body;
        struct kube_user user;
        /* read from it */
        struct kube_path path;
        struct kube_query *query;
        const struct kube_resource *res;
        unsigned verb; /* KUBE_GET, … */
        struct kube_view_opts view;
        bool dry_run;
        /* out */
        struct kube_error err; /* code 0: none */
        int status;
        const char *type; /* content type of `out` */
        struct buf out;
        struct str warnings[KUBE_WARNINGS_MAX];
        unsigned nwarnings;
        bool wrote; /* the answer must wait for the commit */
        bool unencodable;
};

/* Reads path, query, Accept; finds the resource and the verb; checks what the user may do. False: r->err is set. */
bool kube_req_prepare(struct kube_req *r);
/* Answers everything but watches and proxied sub-resources. Sets status, type and out, or err (which kube_req_fail() writes). */
void kube_req_handle(struct kube_req *r);
/* Writes r->err as the answer. */
void kube_req_fail(struct kube_req *r);
void kube_req_warn(struct kube_req *r, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
bool kube_req_error(struct kube_req *r, int code, const char *reason, const char *fmt, ...)
        __attribute__((format(printf, 4, 5)));                                                 /* false */
bool kube_req_not_found(struct kube_req *r, const struct kube_resource *res, struct str name); /* false */
/* Is this a watch, and a sub-resource that the node serves? After kube_req_prepare(). */
bool kube_req_is_watch(const struct kube_req *r);
bool kube_req_is_proxy(const struct kube_req *r);

/* rest.c: the verbs on stored kinds. */
void kube_rest(struct kube_req *r);
/* Selectors of a list or watch from its query. */
bool kube_rest_selectors(struct kube_req *r, struct kube_selector *labels, struct kube_selector *fields);
/* Reads r->body as JSON or YAML by its content type. */
struct pb_node *kube_rest_body(struct kube_req *r);
/* Creates as a controller does: metadata, defaults, admission and validation as for a client. NULL: *why. */
struct kobj *kube_api_create(struct kube_api *api, unsigned bucket, struct pb_node *object, struct arena *a, struct str *why);
/* Writes a changed copy of `old`. Bumps the generation when the spec changed. */
struct kobj *kube_api_update(struct kube_api *api, const struct kobj *old, struct pb_node *object, struct arena *a);
/* Deletes as DELETE does: pods gracefully, finalizers honoured. policy: "Background", "Foreground", "Orphan" or NULL. */
bool kube_api_delete(struct kube_api *api, const struct kobj *o, const char *policy, int64_t grace_s, struct arena *a);

/* object.c: metadata and defaults. */
void kube_meta_create(struct kube_api *api, const struct kube_resource *res, struct pb_node *o, struct arena *a);
struct str kube_now_text(struct kube_api *api, struct arena *a);
struct str kube_random_suffix(struct arena *a, unsigned n);
struct str kube_base64(struct str in, struct arena *a);
struct pb_node *kube_map(struct arena *a, struct pb_node *parent, const char *key);     /* existing or new map */
struct pb_node *kube_list_at(struct arena *a, struct pb_node *parent, const char *key); /* existing or new list */
void kube_put_int(struct arena *a, struct pb_node *map, const char *key, int64_t v);
void kube_put_bool(struct arena *a, struct pb_node *map, const char *key, bool v);
int64_t kube_int(const struct pb_node *map, const char *dotted, int64_t otherwise);
bool kube_bool(const struct pb_node *map, const char *dotted, bool otherwise);
/* Drops fields that the kind does not have, as decoding into its type would. */
void kube_prune(struct pb_node *o, const struct kube_resource *res);
void kube_defaults(struct kube_api *api, const struct kube_resource *res, struct pb_node *o, struct arena *a);
/* The service-account token volume and mounts that every pod gets. */
void kube_pod_token_volume(struct kube_api *api, struct pb_node *pod, struct arena *a);

/* service_ip.c: cluster addresses of Services. */
struct str kube_service_ip_allocate(struct kube_api *api, struct arena *a); /* "" when none is left */
bool kube_service_ip_free(struct kube_api *api, struct str ip, struct str ns, struct str name);
bool kube_service_ip_in_range(struct kube_api *api, struct str ip);

/* validate.c: shape (descriptors) and meaning (tables). Problems go to r->err with causes. */
bool kube_validate_shape(struct kube_req *r, const struct kube_resource *res, struct pb_node *o);
/* `old` NULL on create. False: e->causes are filled. */
bool kube_validate(struct kube_api *api, const struct kube_resource *res, const struct pb_node *o, const struct pb_node *old,
                   struct arena *a, struct kube_error *e);
/* `Service "x" is invalid: …` from the causes. */
void kube_invalid(struct kube_error *e, const struct kube_resource *res, struct str name, struct arena *a);

/* table.c */
void kube_table_list(const struct kube_req *r, struct kobj *const *v, size_t n, struct str list_meta_json, struct buf *out);
void kube_table_one(const struct kube_view_opts *v, struct kube_api *api, const struct kobj *o, struct buf *out);
/* view.c: any object or change in the client's format. */
void kube_view_object(const struct kube_view_opts *v, struct kube_api *api, const struct kobj *o, struct buf *out);
void kube_view_list(const struct kube_req *r, struct kobj *const *v, size_t n, struct str list_meta_json, struct buf *out);
bool kube_view_parse_accept(struct kube_req *r);

/* discovery.c, openapi.c, subresources.c, crds.c */
bool kube_discovery(struct kube_req *r); /* true: it was discovery, health or version, and is answered */
bool kube_openapi(struct kube_req *r);
void kube_openapi_free(struct openapi_cache *c);
bool kube_subresource(struct kube_req *r);    /* scale, token, eviction, status of virtual kinds; true: answered */
void kube_virtual_create(struct kube_req *r); /* TokenReview, SelfSubjectReview, … */
/* Puts the CustomResourceDefinition of every custom kind into the store. */
void kube_crds_install(struct kube_api *api);

/* auth.c */
bool kube_may(const struct kube_api *api, const struct kube_user *u, const char *verb, struct str group, struct str resource,
              struct str sub, struct str ns, struct str name);

#endif
