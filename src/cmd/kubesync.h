/* Kubernetes requests for commands that wait for the answer. */
#ifndef CMD_KUBESYNC_H
#define CMD_KUBESYNC_H

#include "base/diag.h"
#include "pb/pb.h"

struct kubesync;

/* Connects as `config` (a kubeconfig file; empty: the user's) and `context` (empty: the current one) say. NULL with diagnostics. */
struct kubesync *kubesync_new(struct str config, struct str context, struct diags *d);
void kubesync_free(struct kubesync *k);

struct kubesync_answer {
        int status;           /* 0: no answer */
        struct str text;      /* the Status message, or why there was no answer; "" on success */
        struct pb_node *body; /* parsed JSON, or NULL */
        struct str warnings[16];
        unsigned nwarnings;
};

/* One request, waiting at most timeout_ms. The answer lives in `a`. `body` NULL: none. True on 2xx. */
bool kubesync_do(struct kubesync *k, const char *method, struct str path, const char *content_type, const struct pb_node *body,
                 unsigned timeout_ms, struct arena *a, struct kubesync_answer *out);

/* The resource path of an object: collection ("/api/v1/namespaces/x/services") or, with `named`, the object's own. Empty for a kind that
 * commands do not use. */
struct str kubesync_path(const struct pb_node *object, bool named, struct arena *a);

/* Waits up to `ms` while events are handled: for polling with a pause. */
void kubesync_pause(struct kubesync *k, unsigned ms);

#endif
