/* Who a workload is, as Istio's proxies tell each other (x-envoy-peer-metadata: a base64 of a serialised Struct) and as the control plane
 * tells a proxy about itself (node metadata). */
#ifndef PROXY_PEER_INFO_H
#define PROXY_PEER_INFO_H

#include "base/arena.h"

struct Gp__Struct;
struct server;

struct peer_info {
        struct str workload, namespace, cluster, canonical_name, canonical_revision, app, version;
};

/* The value that we send about ourselves; empty when there is no node metadata. In `a`. */
struct str peer_metadata_encode(const struct server *s, struct arena *a);
/* What a peer said. NULL when it is not what it should be. Lives in `a`. */
struct peer_info *peer_metadata_decode(struct str base64, struct arena *a);
/* Ourselves. */
struct peer_info *peer_info_self(const struct server *s, struct arena *a);

#endif
