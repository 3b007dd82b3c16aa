/* The patches that kubectl sends: JSON Patch (RFC 6902), JSON Merge Patch (RFC 7396), and Kubernetes' strategic merge patch, which merges
 * lists by key as the kind's descriptors and merge rules say. */
#ifndef KUBE_PATCH_H
#define KUBE_PATCH_H

#include "base/arena.h"
#include "kube/kinds.h"
#include "pb/pb.h"

enum { KUBE_PATCH_MAX_OPS = 10000 };

/* Each returns the patched tree, made in `a`; `original` is left as it is. NULL: *why says what is wrong. */
struct pb_node *kube_patch_json(const struct pb_node *original, const struct pb_node *patch, struct arena *a, struct str *why);
struct pb_node *kube_patch_merge(const struct pb_node *original, const struct pb_node *patch, struct arena *a);
struct pb_node *kube_patch_strategic(const struct pb_node *original, const struct pb_node *patch, const ProtobufCMessageDescriptor *type,
                                     struct arena *a, struct str *why);

#endif
