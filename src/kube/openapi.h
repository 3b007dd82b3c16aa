/* The OpenAPI v2 document in its protobuf form (gnostic's openapi.v2.Document), which kubectl asks for. */
#ifndef KUBE_OPENAPI_H
#define KUBE_OPENAPI_H

#include "kube/api.h"

/* Writes the wire form of a Swagger document, for the parts that openapi.c makes. */
void openapi_gnostic(const struct pb_node *doc, struct buf *out);

#endif
