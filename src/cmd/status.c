/* `postern status`: which clusters there are on this machine, and which of their parts run. */
#include "base/mem.h"
#include "cmd/cluster.h"
#include "cmd/cmd.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static pid_t pid_of(const struct cluster *c, const char *role)
{
        char *file = mem_printf(STR_FMT "/%s.pid", STR_ARG(c->run_dir), role);
        struct buf b = BUF_INIT;
        uint64_t pid = 0;

        if (buf_read_file(&b, file, 64) == 0 && b.n)
                str_u64(str_sub(buf_view(&b), 0, b.n - 1), &pid);
        buf_fini(&b);
        free(file);
        return pid && kill((pid_t)pid, 0) == 0 ? (pid_t)pid : 0;
}

static bool show(const char *name)
{
        static const char *const roles[] = { "apiserver", "node" };
        struct cluster c;
        struct buf port = BUF_INIT;

        if (!cluster_init(&c, name))
                return false;
        pid_t sup = cluster_supervisor(&c);
        bool ok = sup != 0;

        buf_read_file(&port, c.port_file.p, 32);
        while (port.n && port.p[port.n - 1] == '\n')
                port.n--;
        printf("%s\n  context     %s\n  supervisor  %s", name, c.context.p,
               sup                  ? "running"
               : cluster_exists(&c) ? "not running (\"postern up\" starts the cluster again)"
                                    : "none");
        if (sup)
                printf(", pid %d", (int)sup);
        putchar('\n');
        for (size_t i = 0; i < ARRAY_LEN(roles); i++) {
                pid_t pid = pid_of(&c, roles[i]);

                ok &= pid != 0;
                printf("  %-12s%s", roles[i], pid ? "running" : "not running");
                if (pid)
                        printf(", pid %d", (int)pid);
                if (i == 0 && pid && port.n)
                        printf(", https://127.0.0.1:" STR_FMT, STR_ARG(buf_view(&port)));
                putchar('\n');
        }
        printf("  network     %s%s\n", access(c.netns.p, F_OK) == 0 ? "namespace " : "no namespace",
               access(c.netns.p, F_OK) == 0 ? c.context.p : "");
        buf_fini(&port);
        cluster_fini(&c);
        return ok;
}

static int run_status(struct cmd_args *a)
{
        struct arena arena;
        struct str *names;
        const char *one = cmd_value(a, "name", NULL);
        bool ok = true;

        if (one)
                return show(one) ? CMD_OK : CMD_FAILED;
        arena_init(&arena, 0);
        size_t n = cluster_list(&arena, &names);

        for (size_t i = 0; i < n; i++)
                ok &= show(names[i].p);
        if (!n)
                puts("There is no cluster; \"postern up\" starts one.");
        arena_fini(&arena);
        return ok ? CMD_OK : CMD_FAILED;
}

static const struct cmd_opt opts[] = {
        { "name", 'n', "NAME", "only this cluster", false },
        { 0 },
};

const struct cmd cmd_status = {
        .name = "status",
        .summary = "show the clusters of this machine",
        .operands = "",
        .description =
                "Shows the clusters of this machine and which of their processes run. The exit status is 0 when everything shown runs.",
        .opts = opts,
        .run = run_status,
        .max_operands = 0,
};
