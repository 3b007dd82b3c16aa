/* Processes that outlive those who started them: found by the namespace they are in, so that it does not matter who is their parent. */
#ifndef NODE_LEFTOVER_H
#define NODE_LEFTOVER_H

/* Kills every process whose network namespace is the one of that name, and waits (at most a second) until they are gone. Returns how many.
 */
unsigned leftover_kill_in_netns(const char *name);

#endif
