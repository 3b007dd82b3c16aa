/* Transparent redirection of a pod's TCP to its sidecar, with the rules of Istio's istio-init, as one nftables table in the pod's own
 * namespace:
 *
 *      out  -> 15001   unless uid or gid 1337 (the proxy), loopback, or excluded by annotation
 *      in   -> 15006   unless 15008, 15020, 15021, 15090, or excluded by annotation
 *
 * A connection of the proxy to its own pod's address over loopback counts as inbound, so that a pod that calls itself through its Service
 * meets its own inbound rules. Both address families. */
#ifndef NODE_REDIRECT_H
#define NODE_REDIRECT_H

#include "base/buf.h"

/* The value of one of the pod's annotations; p NULL when it has none of that name. */
typedef struct str redirect_annotation_fn(void *arg, const char *name);

/* Is this pod injected and its traffic to be redirected? */
bool redirect_wanted(redirect_annotation_fn *get, void *arg);
/* Appends the nft script. False: `error` names the annotation that is wrong. */
bool redirect_script(redirect_annotation_fn *get, void *arg, struct buf *script, struct buf *error);
/* Puts it in force in the namespace, in one transaction; replaces what was there. */
int redirect_apply(const char *netns, redirect_annotation_fn *get, void *arg, struct buf *error);

#endif
