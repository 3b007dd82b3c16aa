/* What rest.c shares with the sub-resources. */
#ifndef KUBE_REST_H
#define KUBE_REST_H

#include "base/clock.h"
#include "kube/api.h"
#include "kube/patch.h"

/* Applies the patch in r->body, of the kind that its content type names, to `from`. NULL: r->err is set. */
struct pb_node *kube_rest_patch(struct kube_req *r, const struct pb_node *from, const ProtobufCMessageDescriptor *type);

#endif
