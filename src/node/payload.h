/* Files that change under a running container, all at once: the folder holds links to ..data/NAME, and ..data is a link to a folder that is
 * made whole beside the old one and then swapped in by one rename (what Kubernetes' volumes look like, and what programs that watch them
 * expect). */
#ifndef NODE_PAYLOAD_H
#define NODE_PAYLOAD_H

#include "base/arena.h"
#include "base/buf.h"

struct payload_file {
        struct str path; /* relative; may have folders in it */
        struct str data;
        unsigned mode;
};

struct payload {
        struct arena arena;
        struct payload_file *v;
        size_t n, cap;
};

void payload_init(struct payload *p);
void payload_fini(struct payload *p);
/* Copies. A later file of the same path replaces the earlier. False: the path is absolute, empty, or leads out ("..", or begins with "..").
 */
bool payload_add(struct payload *p, struct str path, struct str data, unsigned mode);
uint64_t payload_hash(const struct payload *p);
/* Puts it in force in `dir`, which must exist. `gid`: the files' group, or -1. 0, or -errno; on an error what was there stays. */
int payload_write(const struct payload *p, const char *dir, int64_t gid);

#endif
