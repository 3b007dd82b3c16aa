/* One HTTP exchange with an API server, streaming: what kube_request() and the informers are made of. Not for others. */
#ifndef KUBE_CLIENT_CALL_H
#define KUBE_CLIENT_CALL_H

#include "base/chain.h"
#include "http/http.h"
#include "kube/client.h"

struct kube_call;

struct kube_call_ops {
        void (*on_head)(void *arg, const struct http_head *m); /* the final response's head */
        void (*on_data)(void *arg, struct chain *data);
        void (*on_end)(void *arg, const char *error); /* the last call; NULL: the whole answer was received */
        void (*on_drop)(void *arg);                   /* the last call instead, when the client is freed; may be NULL */
};

struct kube_call_opts {
        const char *method;
        struct str path, content_type, body; /* copied; the path with its query */
        unsigned timeout_ms;                 /* of everything; 0: none */
        unsigned silence_ms;                 /* without a byte; 0: none */
        bool long_lived;                     /* a watch: not counted against the limit of requests under way */
};

struct kube_call *kube_call_new(struct kube_client *c, const struct kube_call_opts *o, const struct kube_call_ops *ops, void *arg);
void kube_call_cancel(struct kube_call *k); /* no callback afterwards; harmless on NULL */

struct loop *kube_client_loop(const struct kube_client *c);
/* Informers are told of the client's end; a list by their own links. */
struct kube_informer;
void kube_client_adopt(struct kube_client *c, struct kube_informer *i);
void kube_client_abandon(struct kube_client *c, struct kube_informer *i);
void kube_informer_orphan(struct kube_informer *i);

#endif
