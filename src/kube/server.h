/* What the files of the API server's outside share: a call is one request on one HTTP stream. */
#ifndef KUBE_SERVER_H
#define KUBE_SERVER_H

#include "http/simple.h"
#include "kube/api.h"
#include "kube/controllers.h"

struct kube_watcher;
struct kube_tunnel;

struct kube_listener {
        struct kube_apiserver *s;
        struct http_service *http;
        bool is_unix;
};

struct kube_call {
        struct kube_apiserver *s;
        struct http_stream *stream; /* NULL: the client went away */
        struct kube_req r;
        struct kube_call *next, **pprev; /* while it waits for a commit */
        unsigned rollbacks;              /* the store's, when the request was handled */
};

enum { KUBE_LISTENERS_MAX = 2 };

struct kube_apiserver {
        struct loop *loop;
        struct kube_store *store;
        struct kube_api api;
        struct kube_controllers *controllers;
        struct kube_listener l[KUBE_LISTENERS_MAX];
        unsigned nl;
        struct kube_call *waiting, **waiting_tail;
        struct kube_watcher *watchers;
        unsigned nwatchers;
        struct kube_tunnel *tunnels;
        struct loop_task commit;
        struct loop_timer drain_timer;
        struct { /* the listener in the node's network namespace, which comes and goes with the node */
                struct kube_listener l;
                struct str address, netns;
                struct tls_ctx *tls;
                uint64_t inode; /* of the namespace that l listens in */
                bool complained;
                struct loop_timer timer;
        } node;
        struct arena arena; /* strings of the options */
        void (*drained)(void *arg);
        void *drained_arg;
        bool draining;
        uint64_t drain_until_ms;
};

/* Commits what is pending and answers those who waited for it; then tells watches and controllers. */
void kube_server_flush(struct kube_apiserver *s);
void kube_server_answer(struct kube_call *c);
/* The head that every answer starts from: warnings and caching. */
void kube_server_head(struct kube_call *c, struct http_head *m);

void kube_watch_start(struct kube_call *c);
void kube_watch_pump_all(struct kube_apiserver *s);
void kube_watch_end_all(struct kube_apiserver *s);

/* log, exec, attach, portforward: to the node's socket and back. `m`, `end`: the request's head. */
void kube_tunnel_start(struct kube_call *c, struct http_head *m, bool end);
void kube_tunnel_end_all(struct kube_apiserver *s);

#endif
