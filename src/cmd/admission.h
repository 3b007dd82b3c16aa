/* What the API server asks about every object before it stores it: sidecar injection for pods, Istio's rules for Istio's kinds. */
#ifndef CMD_ADMISSION_H
#define CMD_ADMISSION_H

#include "kube/apiserver.h"

struct admission;

struct admission *admission_new(void);
void admission_free(struct admission *a);
/* The hooks, in order, for kube_apiserver_opts. They live as long as `a`. */
const struct kube_admission *admission_hooks(const struct admission *a, unsigned *n);

#endif
