/* From Service and EndpointSlice objects to the table of virtual addresses, to variables of pods, and to answers of the cluster DNS. */
#ifndef NODE_SERVICES_H
#define NODE_SERVICES_H

#include "node/pod.h"

/* Replaces the table (service.h) by what the objects say now. On a failure it is tried again. */
void services_apply(struct node *n);

/* One endpoint of a Service, as DNS needs it. */
struct services_endpoint {
        struct addr ip;      /* no port */
        struct str hostname; /* "" when it has none */
        bool ready;
};

/* Calls fn for each endpoint of the Service. */
void services_endpoints(struct node *n, struct str ns, struct str service, void (*fn)(void *arg, const struct services_endpoint *e),
                        void *arg);

#endif
