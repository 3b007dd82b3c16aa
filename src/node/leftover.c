#include "node/leftover.h"
#include "base/mem.h"
#include "base/str.h"
#include "node/netns.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { LEFTOVER_WAIT_MS = 1000, LEFTOVER_ROUNDS = 10 };

static unsigned kill_round(const struct stat *ns)
{
        DIR *d = opendir("/proc");
        unsigned found = 0;

        for (struct dirent *e; d && (e = readdir(d));) {
                char path[64];
                struct stat st;
                uint64_t pid;
                if (!str_u64(str_of(e->d_name), &pid) || pid <= 1)
                        continue;
                snprintf(path, sizeof(path), "/proc/%u/ns/net", (unsigned)pid);
                if (stat(path, &st) < 0 || st.st_ino != ns->st_ino || st.st_dev != ns->st_dev)
                        continue;
                /* The descriptor first, the question again after it: a number that changed hands in between is not killed. */
                int fd = (int)syscall(SYS_pidfd_open, (pid_t)pid, 0);
                if (fd < 0)
                        continue;
                if (stat(path, &st) == 0 && st.st_ino == ns->st_ino && (pid_t)pid != getpid() &&
                    syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0) == 0) {
                        struct pollfd p = { fd, POLLIN, 0 };
                        found++;
                        poll(&p, 1, LEFTOVER_WAIT_MS);
                }
                close(fd);
        }
        if (d)
                closedir(d);
        return found;
}

unsigned leftover_kill_in_netns(const char *name)
{
        char path[NETNS_PATH_MAX];
        struct stat ns;
        unsigned all = 0;

        netns_path(name, path);
        if (!netns_exists(name) || stat(path, &ns) < 0)
                return 0;
        for (int i = 0; i < LEFTOVER_ROUNDS; i++) {
                unsigned n = kill_round(&ns); /* a process may fork between two looks */
                all += n;
                if (!n)
                        break;
        }
        return all;
}
