/* `postern shell`, and the two names it lends: in that shell `kind` and `istioctl` are postern, so that a tutorial written for those tools
 * can be pasted word for word. Words of theirs that Postern has no counterpart for are refused by name. */
#include "cmd/shell.h"
#include "base/mem.h"
#include "cmd/cluster.h"
#include "cmd/cmd.h"
#include "cmd/up.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#define NAMES_DIR "/run/postern/.bin"

static bool link_name(const char *name)
{
        char *path = mem_printf(NAMES_DIR "/%s", name);

        unlink(path);
        bool ok = symlink(cmd_self(), path) == 0;

        if (!ok)
                cmd_error("%s: %s", path, strerror(errno));
        free(path);
        return ok;
}

static int run_shell(struct cmd_args *a)
{
        const char *shell = getenv("SHELL"), *path = getenv("PATH");

        if (!cluster_need_root())
                return CMD_FAILED;
        if (cluster_mkdirs(STR(NAMES_DIR), 0755) < 0 || !link_name("kind") || !link_name("istioctl") || !link_name("postern"))
                return CMD_FAILED;
        char *new_path = mem_printf(NAMES_DIR ":%s", path ? path : "/usr/sbin:/usr/bin:/sbin:/bin");

        setenv("PATH", new_path, 1);
        setenv("POSTERN_SHELL", "1", 1);
        setenv("POSTERN_OFFLINE", cmd_flag(a, "online") ? "0" : "1", 1);
        free(new_path);
        if (!shell || access(shell, X_OK) != 0)
                shell = "/bin/sh";
        const char *command = cmd_value(a, "command", NULL);

        if (command) {
                execl(shell, shell, "-c", command, (char *)NULL);
        } else {
                printf("In this shell kind and istioctl are postern%s; \"exit\" leaves it.\n",
                       cmd_flag(a, "online") ? "" : ", and clusters have an Internet of their own (--online uses the real one)");
                fflush(stdout);
                execl(shell, shell, (char *)NULL);
        }
        return cmd_error("%s: %s", shell, strerror(errno));
}

static const struct cmd_opt opts[] = {
        { "command", 'c', "COMMAND", "run this and exit, instead of an interactive shell", false },
        { "online", 0, NULL, "clusters made here use the real network instead of an offline Internet", false },
        { 0 },
};

const struct cmd cmd_shell = {
        .name = "shell",
        .summary = "open a shell in which kind and istioctl are postern",
        .operands = "",
        .description = "Opens $SHELL with the names kind and istioctl in front of its PATH, both being postern, so that the commands of "
                       "Istio's tutorials can be pasted as "
                       "they are: kind create cluster is postern up --offline, istioctl install is postern install.",
        .opts = opts,
        .run = run_shell,
        .max_operands = 0,
};

/* "--name N" or "--name=N" among the words of kind. Other words are refused by name. NULL after a refusal. */
static const char *kind_name(int argc, char **argv, const char *const *ignored)
{
        const char *name = "kind";

        for (int i = 0; i < argc; i++) {
                bool known = false;

                if (strncmp(argv[i], "--name=", 7) == 0) {
                        name = argv[i] + 7;
                        continue;
                }
                if ((strcmp(argv[i], "--name") == 0 || strcmp(argv[i], "-n") == 0) && i + 1 < argc) {
                        name = argv[++i];
                        continue;
                }
                for (const char *const *k = ignored; *k; k++)
                        known |= strcmp(argv[i], *k) == 0;
                if (!known) {
                        cmd_error("kind: \"%s\" has no counterpart here", argv[i]);
                        return NULL;
                }
        }
        return name;
}

static int kind_get_clusters(void)
{
        struct arena a;
        struct str *names;

        arena_init(&a, 0);
        size_t n = cluster_list(&a, &names);

        for (size_t i = 0; i < n; i++)
                printf(STR_FMT "\n", STR_ARG(names[i]));
        if (!n)
                fputs("No kind clusters found.\n", stderr);
        arena_fini(&a);
        return CMD_OK;
}

int shell_as_kind(int argc, char **argv)
{
        static const char *const none[] = { NULL }, *const quiet[] = { "-q", "--quiet", NULL };
        const char *verb = argc > 1 ? argv[1] : "", *what = argc > 2 ? argv[2] : "", *offline = getenv("POSTERN_OFFLINE");
        const char *name;

        if (strcmp(verb, "version") == 0 || strcmp(verb, "--version") == 0) {
                puts("kind, as postern " POSTERN_VERSION " answers to it");
                return CMD_OK;
        }
        if (strcmp(verb, "create") == 0 && strcmp(what, "cluster") == 0) {
                if (!(name = kind_name(argc - 3, argv + 3, quiet)))
                        return CMD_USAGE;
                return up_cluster(&(struct up_opts){ .name = name, .offline = !offline || strcmp(offline, "0") != 0, .wait_s = 30 });
        }
        if (strcmp(verb, "delete") == 0 && strcmp(what, "cluster") == 0) {
                if (!(name = kind_name(argc - 3, argv + 3, none)))
                        return CMD_USAGE;
                return down_cluster(name);
        }
        if (strcmp(verb, "get") == 0 && strcmp(what, "clusters") == 0)
                return kind_get_clusters();
        cmd_error(
                "kind: postern answers to \"create cluster\", \"delete cluster\" and \"get clusters\" (each with --name) and \"version\"");
        return CMD_USAGE;
}

int shell_as_istioctl(int argc, char **argv)
{
        static const struct {
                const char *verb, *command;
        } same[] = { { "install", "install" } };
        const char *verb = argc > 1 ? argv[1] : "";

        for (size_t i = 0; i < ARRAY_LEN(same); i++) {
                const struct cmd *c = strcmp(verb, same[i].verb) == 0 ? cmd_find(same[i].command) : NULL;

                if (c)
                        return cmd_run(c, argc - 1, argv + 1);
        }
        if (strcmp(verb, "version") == 0) {
                puts("client version: postern-" POSTERN_VERSION);
                return CMD_OK;
        }
        cmd_error("istioctl: \"%s\" has no counterpart here yet; postern answers to \"install\" and \"version\"", verb);
        return CMD_USAGE;
}
