/* The kubelet-like API on RUN/node.sock, for the API server:
 *
 *      GET /containerLogs/NS/POD/CONTAINER?follow=&tailLines=&sinceSeconds=&sinceTime=&timestamps=&previous=&limitBytes=&stream=
 *      /exec/NS/POD/CONTAINER?command=..&stdin=&stdout=&stderr=&tty=      upgraded (kube/streams.h)
 *      /attach/NS/POD/CONTAINER?stdin=&stdout=&stderr=&tty=               upgraded
 *      /portForward/NS/POD                                                upgraded
 *
 * Errors are Status objects with the code that a kubelet gives (400, 404), ready to be shown by kubectl. */
#ifndef NODE_KUBELET_H
#define NODE_KUBELET_H

#include "http/simple.h"
#include "kube/request.h"
#include "node/pod.h"

struct kubelet *kubelet_new(struct node *n, struct diags *d);
void kubelet_free(struct kubelet *k); /* NULL: nothing */

void kubelet_refuse(struct http_stream *s, int status, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

/* The parts; each takes over the stream. */
void kubelet_logs(struct ctr *c, struct http_stream *s, const struct kube_query *q);
void kubelet_exec(struct ctr *c, struct http_stream *s, struct http_head *m, const struct kube_query *q);
void kubelet_attach(struct ctr *c, struct http_stream *s, struct http_head *m, const struct kube_query *q);
void kubelet_forward(struct pod *p, struct http_stream *s, struct http_head *m);

#endif
