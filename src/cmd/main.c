/* The one binary. It is a multi-call program: started as `kind` or `istioctl` (in `postern shell`), it answers to those tools' words. */
#include "base/buf.h"
#include "base/mem.h"
#include "cmd/cmd.h"
#include "cmd/shell.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

extern const struct cmd cmd_proxy, cmd_up, cmd_down, cmd_status, cmd_install, cmd_shell, cmd_supervise, cmd_node, cmd_shim, cmd_internet,
        cmd_apiserver, cmd_controller, cmd_help_cmd;

static const struct cmd_opt help_opts[] = {
        { "man", 0, NULL, "print the man page (roff) instead", false },
        { "completion", 0, NULL, "print bash completion for every command", false },
        { 0 },
};

static int run_help(struct cmd_args *a)
{
        struct buf b = BUF_INIT;
        const struct cmd *c = a->noperands ? cmd_find(a->operands[0]) : NULL;

        if (a->noperands && !c && strcmp(a->operands[0], "postern") != 0)
                return cmd_error("there is no command \"%s\"", a->operands[0]);
        if (cmd_flag(a, "completion"))
                cmd_completion_bash(&b);
        else if (cmd_flag(a, "man"))
                cmd_man(c, &b);
        else if (c)
                cmd_help(c, &b);
        else
                for (unsigned i = 0; cmd_all[i]; i++)
                        if (!cmd_all[i]->hidden)
                                buf_printf(&b, "  %-14s%s\n", cmd_all[i]->name, cmd_all[i]->summary);
        fwrite(b.p, 1, b.n, stdout);
        buf_fini(&b);
        return CMD_OK;
}

const struct cmd cmd_help_cmd = {
        .name = "help",
        .summary = "say what a command does",
        .operands = "[COMMAND]",
        .description = "Prints the help of a command, or the list of all commands.",
        .opts = help_opts,
        .run = run_help,
        .max_operands = 1,
};

const struct cmd *const cmd_all[] = {
        &cmd_proxy, &cmd_up,   &cmd_down,     &cmd_status,    &cmd_install,    &cmd_shell,    &cmd_supervise,
        &cmd_node,  &cmd_shim, &cmd_internet, &cmd_apiserver, &cmd_controller, &cmd_help_cmd, NULL,
};

static void top_help(FILE *f)
{
        fputs("usage: postern COMMAND [OPTION]...\n\nAn egress gateway and service mesh that reads Istio's resources.\n\ncommands:\n", f);
        for (unsigned i = 0; cmd_all[i]; i++)
                if (!cmd_all[i]->hidden)
                        fprintf(f, "  %-14s%s\n", cmd_all[i]->name, cmd_all[i]->summary);
        fputs("\n\"postern COMMAND --help\" says more; \"man postern\" too.\n", f);
}

int main(int argc, char **argv)
{
        const char *base = strrchr(argv[0], '/');

        base = base ? base + 1 : argv[0];
        signal(SIGPIPE, SIG_IGN);
        if (strcmp(base, "kind") == 0)
                return shell_as_kind(argc, argv);
        if (strcmp(base, "istioctl") == 0)
                return shell_as_istioctl(argc, argv);
        if (argc < 2) {
                top_help(stderr);
                return CMD_USAGE;
        }
        if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0) {
                top_help(stdout);
                return CMD_OK;
        }
        if (strcmp(argv[1], "--version") == 0 || strcmp(argv[1], "-V") == 0 || strcmp(argv[1], "version") == 0) {
                puts("postern " POSTERN_VERSION);
                return CMD_OK;
        }
        const struct cmd *c = cmd_find(argv[1]);

        if (c)
                return cmd_run(c, argc - 1, argv + 1);
        const char *near = cmd_suggest(argv[1]);

        if (near)
                cmd_error("there is no command \"%s\" (did you mean \"%s\"?)", argv[1], near);
        else
                cmd_error("there is no command \"%s\"; \"postern --help\" lists them", argv[1]);
        return CMD_USAGE;
}
