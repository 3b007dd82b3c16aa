/* Kubernetes' protobuf bodies (application/vnd.kubernetes.protobuf): newer kubectls create built-in kinds with them. */
#ifndef KUBE_WIRE_H
#define KUBE_WIRE_H

#include "base/arena.h"
#include "pb/pb.h"

/* The object as a JSON tree, with apiVersion and kind. `type` is the message that its apiVersion and kind must be. NULL: *why. */
struct pb_node *kube_wire_decode(struct str body, const ProtobufCMessageDescriptor *type, struct arena *a, struct str *why);

#endif
