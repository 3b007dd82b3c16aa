/* Where a cluster on this machine keeps its things, and whether it runs. Shared by up, down, status, shell and the supervisor. */
#ifndef CMD_CLUSTER_H
#define CMD_CLUSTER_H

#include "base/diag.h"

#include <sys/types.h>

enum { CLUSTER_NAME_MAX = 32 };

struct cluster {
        struct arena arena;
        struct str name;         /* "default" */
        struct str context;      /* "postern-NAME" */
        struct str run_dir;      /* /run/postern/NAME */
        struct str state_dir;    /* /var/lib/postern/NAME */
        struct str log_dir;      /* STATE/log */
        struct str pki_dir;      /* STATE/pki */
        struct str netns;        /* /run/netns/postern-NAME */
        struct str lock_file;    /* RUN/supervisor.lock: held, with its pid in it, while the cluster runs */
        struct str port_file;    /* RUN/apiserver.port */
        struct str offline_file; /* STATE/offline: present when started with --offline */
};

/* False with an error on standard error when the name is not a lower-case DNS label of at most CLUSTER_NAME_MAX bytes. */
bool cluster_init(struct cluster *c, const char *name);
void cluster_fini(struct cluster *c);

/* The supervisor's pid, or 0 when the cluster does not run. */
pid_t cluster_supervisor(const struct cluster *c);
/* Is something of it there (running, or left by a crash)? */
bool cluster_exists(const struct cluster *c);
/* Takes the lock; the fd, or -1 when a supervisor holds it. Writes the pid. */
int cluster_lock(const struct cluster *c);

/* Creates a folder and its parents. 0 or -errno. */
int cluster_mkdirs(struct str path, unsigned mode);

/* Names of the clusters of this machine, in `a`. */
size_t cluster_list(struct arena *a, struct str **names);

/* Root? If not, says so in one sentence. */
bool cluster_need_root(void);

#endif
