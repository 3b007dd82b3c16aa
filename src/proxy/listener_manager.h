/* The main thread's side of listeners: what is configured, what warms (waits for its route configurations), sockets, and posts to the
 * workers. */
#ifndef PROXY_LISTENER_MANAGER_H
#define PROXY_LISTENER_MANAGER_H

#include "proxy/listener.h"

struct listener_manager;

struct listener_main {
        struct str name;                          /* in active's or warming's arena */
        struct listener_config *active, *warming; /* referenced */
        bool dynamic;
        struct addr bound[LISTENER_ADDRESSES_MAX]; /* with the port that 0 became */
        char *version;
        uint64_t updated_us;
        char *error; /* of the last refused update; NULL: none */
        char *error_version;
        uint64_t error_us;
        int *fds; /* opened for `warming`, nworkers * naddr; NULL: keeps the active one's */
};

struct listener_manager *listener_manager_new(struct server *s);
void listener_manager_free(struct listener_manager *m);
/* Adds or replaces; binds. False with diagnostics: nothing changed. Warming ones start by themselves. */
bool listener_manager_set(struct listener_manager *m, const struct Xds__Listener *p, bool dynamic, struct str version,
                          const struct diag_at *at, struct diags *d);
bool listener_manager_remove(struct listener_manager *m, struct str name);
/* Starts what no longer waits. Before listener_manager_start() nothing starts. */
void listener_manager_check(struct listener_manager *m);
void listener_manager_start(struct listener_manager *m);       /* clusters are initialised: listeners may begin */
bool listener_manager_ready(const struct listener_manager *m); /* started, and nothing warms */
void listener_manager_drain(struct listener_manager *m, bool inbound_only, bool stop_accepting);
size_t listener_manager_count(const struct listener_manager *m);
struct listener_main *listener_manager_at(const struct listener_manager *m, size_t i);

#endif
