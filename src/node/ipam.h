/* Addresses of pods, kept on disk so that a pod keeps its own over a restart of the node, and a freed one rests before it is used again. */
#ifndef NODE_IPAM_H
#define NODE_IPAM_H

#include "base/buf.h"
#include "base/hash.h"
#include "net/addr.h"

struct ipam {
        struct cidr range;
        char *path;
        struct strmap by_uid; /* uid -> uint32_t host number, as a pointer */
        uint32_t next;        /* where to look first: behind the last one given */
};

/* Reads `path` if it is there. An unreadable or broken file is an error: two pods must not share an address. */
bool ipam_init(struct ipam *m, const struct cidr *range, const char *path, struct buf *error);
void ipam_fini(struct ipam *m);
/* The uid's address, chosen now if it has none. -ENOSPC when the range is used up; -errno when it cannot be written down. */
int ipam_get(struct ipam *m, struct str uid, struct addr *ip);
void ipam_free(struct ipam *m, struct str uid);
/* Frees every address whose uid `keep` denies. */
void ipam_sweep(struct ipam *m, bool (*keep)(void *arg, struct str uid), void *arg);

#endif
