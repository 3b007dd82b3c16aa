/* A Kubernetes API client on a loop: requests, and informers (list + watch with resourceVersion, relist on 410 Gone, reconnect with
 * jittered back-off). The same client talks to the embedded API server and to a real one. */
#ifndef KUBE_CLIENT_H
#define KUBE_CLIENT_H

#include "base/diag.h"
#include "net/loop.h"
#include "pb/pb.h"

struct kube_client;

struct kube_client_config {
        struct str server; /* "https://127.0.0.1:6443"; "http://…" for tests; "unix:/path" */
        struct str ca_pem, cert_pem, key_pem;
        struct str token_file;  /* bearer token, read again for each request */
        struct str token;       /* the same, given as such */
        struct str server_name; /* the name that the certificate must carry; empty: the server's host */
};

struct kube_client *kube_client_new(struct loop *l, const struct kube_client_config *c, struct diags *d);
void kube_client_free(struct kube_client *c);
/* Reads a kubeconfig's current context (or `context`). Path empty: the in-cluster files where they are present, else $KUBECONFIG (a list of
 * files: the first that knows a name decides), else ~/.kube/config. What cannot be honoured (exec plugins, proxies, ...) is an error. */
bool kube_client_config_load(struct str path, struct str context, struct arena *a, struct kube_client_config *out, struct diags *d);

struct kube_response {
        int status; /* HTTP; 0: no answer, `error` says why */
        const char *error;
        struct str content_type, body;
        const struct str *warnings; /* texts of Warning: 299 headers */
        unsigned nwarnings;
};

typedef void kube_response_fn(void *arg, const struct kube_response *r);

/* One request; fn is called once, later, unless the client is freed first. content_type "" with an empty body. */
void kube_request(struct kube_client *c, const char *method, struct str path_and_query, struct str content_type, struct str body,
                  kube_response_fn *fn, void *arg);

struct kube_object { /* immutable, reference-counted */
        unsigned refs;
        struct arena arena;
        struct str namespace_, name, uid, resource_version;
        struct pb_node *node; /* the whole object; apiVersion and kind filled in */
};

struct kube_object *kube_object_ref(struct kube_object *o);
void kube_object_unref(struct kube_object *o);

struct kube_informer_ops {
        void (*on_set)(void *arg, struct kube_object *now, struct kube_object *before); /* before NULL: new to us */
        void (*on_delete)(void *arg, struct kube_object *last);
        void (*on_synced)(void *arg);                   /* the first list is in; once */
        void (*on_trouble)(void *arg, const char *why); /* connection or server trouble; may be NULL; it keeps trying */
};

struct kube_informer;

/* `path`: "/api/v1/pods", "/apis/networking.istio.io/v1/gateways", or namespaced; `query`: "labelSelector=…" or "". */
struct kube_informer *kube_informer_new(struct kube_client *c, struct str path, struct str query, const struct kube_informer_ops *ops,
                                        void *arg);
void kube_informer_free(struct kube_informer *i);
struct kube_object *kube_informer_get(struct kube_informer *i, struct str ns, struct str name); /* borrowed, or NULL */
void kube_informer_each(struct kube_informer *i, void (*fn)(void *arg, struct kube_object *o), void *arg);
bool kube_informer_synced(const struct kube_informer *i);

#endif
