/* Named network namespaces, as ip-netns(8) keeps them: a file of /run/netns on which a namespace is mounted, so that it lives without a
 * process in it and `ip netns exec` finds it. */
#ifndef NODE_NETNS_H
#define NODE_NETNS_H

#include "net/sock.h"

#define NETNS_DIR "/run/netns"

enum { NETNS_PATH_MAX = 128 };

/* Makes the namespace, with its loopback up. 1: made; 0: there already; or -errno. A file left over without a namespace is mended. */
int netns_create(const char *name);
int netns_delete(const char *name); /* none of that name: 0 */
bool netns_exists(const char *name);
void netns_path(const char *name, char out[NETNS_PATH_MAX]);

/* Runs fn(arg) inside; as sock_in_netns(), by name. */
int netns_run(const char *name, int (*fn)(void *arg), void *arg);

/* Writes a file of /proc/sys/net of the calling thread's namespace: "ipv4/ip_forward". -errno. */
int netns_sysctl(const char *key, const char *value);
int netns_sysctl_get(const char *key, char *out, size_t cap);

#endif
