/* Inside the store: mesh.c changes it, snapshot.c freezes and reads it. */
#ifndef MESH_STORE_H
#define MESH_STORE_H

#include "mesh/read.h"

enum kind { K_SERVICE, K_ENTRY, K_VS, K_GATEWAY, K_DR, K_SIDECAR, K_POD, K_SLICE, K_ENDPOINTS, K_WORKLOAD, K_CONFIG, K_NAMESPACE, KINDS };
enum list { L_SERVICES, L_VS, L_GATEWAYS, L_DR, L_SIDECARS, L_PODS, L_SLICES, L_WORKLOADS, LISTS };

/* One object, read. What it declares lies in `items` (services, or one struct of its kind, or slices), each `size` bytes. */
struct mesh_obj {
        unsigned refs;
        enum kind kind;
        uint64_t content;
        struct mesh_meta meta;
        struct arena arena;
        char *items;
        size_t nitems, size;
};

struct item {
        void *p;
        struct mesh_obj *owner;
};

struct list_now {
        struct item *v;
        size_t n, cap;
        uint64_t version;      /* of the last change */
        struct frozen *frozen; /* or NULL: changed since */
};

/* What snapshots share: the pointers of one list, keeping their objects alive. */
struct frozen {
        unsigned refs;
        uint64_t version;
        void **v;
        size_t n;
        struct mesh_obj **owners;
        size_t nowners;
        struct mesh_pod **by_ip; /* L_PODS */
        struct arena arena;      /* merged DestinationRules */
};

struct mesh_store {
        struct frozen *list[LISTS];
        struct mesh_obj *config_owner;
};

struct mesh {
        struct strmap objects; /* "kind/ns/name" -> struct mesh_obj */
        struct list_now list[LISTS];
        uint64_t version;
        struct mesh_obj *config; /* or NULL: defaults */
        struct mesh_snapshot *last;
};

void mesh_obj_unref(struct mesh_obj *o);
void mesh_frozen_unref(struct frozen *f);
int mesh_cmp_age(const struct mesh_meta *a, const struct mesh_meta *b); /* the older first, then by namespace and name */
int mesh_cmp_name(const struct mesh_meta *a, const struct mesh_meta *b);

#endif
