/* Control groups, as far as the node itself looks at them; the runtime does the rest. */
#ifndef NODE_CGROUP_H
#define NODE_CGROUP_H

#include "base/str.h"

/* Can groups below /postern/CLUSTER be made here? Says so once in the log when not: limits are then not kept. */
bool cgroup_usable(const char *cluster);
/* Kills every process in /postern/CLUSTER, in whichever hierarchy it is. Returns how many were found. */
unsigned cgroup_kill(const char *cluster);
/* Removes the empty groups. False: some are left. */
bool cgroup_remove(const char *cluster);

#endif
