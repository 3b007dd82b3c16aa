/* Starting and stopping a cluster, for `postern up|down` and for `kind`. */
#ifndef CMD_UP_H
#define CMD_UP_H

#include <stdbool.h>

struct up_opts {
        const char *name;
        bool offline;
        long api_port;          /* 0: any */
        const char *kubeconfig; /* NULL: the user's */
        long wait_s;
};

int up_cluster(const struct up_opts *o);
int down_cluster(const char *name);

#endif
