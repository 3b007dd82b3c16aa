/* What the command table looks like to people: --help, man pages (roff with man(7) macros), bash completion. */
#include "base/str.h"
#include "cmd/cmd.h"

#include <ctype.h>

enum { TEXT_WIDTH = 92, OPT_WIDTH = 28 };

static void wrap(struct buf *out, const char *text, unsigned indent, unsigned width)
{
        unsigned col = indent;
        const char *p = text;

        while (*p) {
                if (*p == '\n') {
                        buf_char(out, '\n');
                        for (unsigned i = 0; i < indent && p[1] != '\n'; i++)
                                buf_char(out, ' ');
                        col = indent;
                        p++;
                        continue;
                }
                size_t n = strcspn(p, " \n");

                if (col > indent && col + n > width) {
                        buf_printf(out, "\n%*s", (int)indent, "");
                        col = indent;
                }
                buf_append(out, p, n);
                col += (unsigned)n;
                p += n;
                if (*p == ' ') {
                        while (*p == ' ')
                                p++;
                        buf_char(out, ' ');
                        col++;
                }
        }
        buf_char(out, '\n');
}

static void opt_head(const struct cmd_opt *o, struct buf *out)
{
        if (o->letter)
                buf_printf(out, "-%c, ", o->letter);
        buf_printf(out, "--%s", o->name);
        if (o->arg)
                buf_printf(out, " %s", o->arg);
}

void cmd_help(const struct cmd *c, struct buf *out)
{
        buf_printf(out, "usage: postern %s%s%s%s\n\n", c->name, c->opts && c->opts->name ? " [OPTION]..." : "", *c->operands ? " " : "",
                   c->operands);
        wrap(out, c->description, 0, TEXT_WIDTH);
        buf_cstr(out, "\noptions:\n");
        for (const struct cmd_opt *o = c->opts; o && o->name; o++) {
                size_t start = out->n;

                buf_cstr(out, "  ");
                opt_head(o, out);
                if (out->n - start > OPT_WIDTH - 2)
                        buf_printf(out, "\n%*s", OPT_WIDTH, "");
                else
                        buf_printf(out, "%*s", (int)(OPT_WIDTH - (out->n - start)), "");
                wrap(out, o->text, OPT_WIDTH, TEXT_WIDTH);
        }
        buf_printf(out, "  -h, --help%*sprint this and exit\n", OPT_WIDTH - 12, "");
        if (c->examples) {
                buf_cstr(out, "\nexamples:\n");
                for (const char *const *e = c->examples; e[0]; e += 2)
                        buf_printf(out, "  %s\n      %s\n", e[0], e[1]);
        }
}

static void roff(struct buf *out, const char *text)
{
        bool start = true;

        for (const char *p = text; *p; p++) {
                if (p[0] == '\n' && p[1] == '\n') {
                        buf_cstr(out, "\n.PP\n");
                        p++;
                        start = true;
                        continue;
                }
                if (start && (*p == '.' || *p == '\''))
                        buf_cstr(out, "\\&");
                if (*p == '\\')
                        buf_cstr(out, "\\e");
                else if (*p == '-')
                        buf_cstr(out, "\\-");
                else
                        buf_char(out, *p);
                start = *p == '\n';
        }
        buf_char(out, '\n');
}

static void upper(struct buf *out, const char *s)
{
        for (; *s; s++)
                buf_char(out, (char)toupper((unsigned char)*s));
}

static void man_head(struct buf *out, const char *page, const char *summary)
{
        buf_cstr(out, ".TH ");
        upper(out, page);
        buf_printf(out, " 1 \"\" \"postern " POSTERN_VERSION "\" \"Postern manual\"\n.SH NAME\n%s \\- %s\n.SH SYNOPSIS\n", page, summary);
}

static void man_root(struct buf *out)
{
        man_head(out, "postern", "egress gateway and service mesh that reads Istio's resources");
        buf_cstr(out, ".B postern\n.I COMMAND\n[\\fIOPTION\\fR]...\n.SH DESCRIPTION\n");
        roff(out, "Postern is a data plane, a control plane and a one-machine cluster in one program. It reads the resources that Istio's "
                  "users write, "
                  "speaks Envoy's xDS protocol, and serves an unmodified kubectl.");
        buf_cstr(out, ".SH COMMANDS\n");
        for (unsigned i = 0; cmd_all[i]; i++) {
                if (cmd_all[i]->hidden)
                        continue;
                buf_printf(out, ".TP\n.BR postern\\-%s (1)\n", cmd_all[i]->name);
                roff(out, cmd_all[i]->summary);
        }
        buf_cstr(out, ".SH FILES\n.TP\n.I /run/postern/NAME\nsockets and process ids of the cluster NAME\n"
                      ".TP\n.I /var/lib/postern/NAME\nits store, keys, logs and pods\n");
}

void cmd_man(const struct cmd *c, struct buf *out)
{
        if (!c) {
                man_root(out);
                return;
        }
        struct buf page = BUF_INIT;

        buf_printf(&page, "postern-%s", c->name);
        man_head(out, buf_z(&page), c->summary);
        buf_fini(&page);
        buf_printf(out, ".B postern %s\n%s\n.I %s\n.SH DESCRIPTION\n", c->name, c->opts && c->opts->name ? "[\\fIOPTION\\fR]..." : "",
                   c->operands);
        roff(out, c->description);
        buf_cstr(out, ".SH OPTIONS\n");
        for (const struct cmd_opt *o = c->opts; o && o->name; o++) {
                buf_cstr(out, ".TP\n.B ");
                struct buf h = BUF_INIT;

                opt_head(o, &h);
                roff(out, buf_z(&h));
                buf_fini(&h);
                roff(out, o->text);
        }
        buf_cstr(out, ".TP\n.B \\-h, \\-\\-help\nprint a summary and exit\n");
        if (c->examples) {
                buf_cstr(out, ".SH EXAMPLES\n");
                for (const char *const *e = c->examples; e[0]; e += 2) {
                        buf_cstr(out, ".TP\n.B ");
                        roff(out, e[0]);
                        roff(out, e[1]);
                }
        }
        buf_cstr(out, ".SH EXIT STATUS\n0 on success, 1 when it failed, 2 on wrong usage.\n.SH SEE ALSO\n.BR postern (1)\n");
}

void cmd_completion_bash(struct buf *out)
{
        buf_cstr(out, "_postern()\n{\n        local cur=${COMP_WORDS[COMP_CWORD]} words\n        case $COMP_CWORD in\n        1) words=\"");
        for (unsigned i = 0; cmd_all[i]; i++)
                if (!cmd_all[i]->hidden)
                        buf_printf(out, "%s ", cmd_all[i]->name);
        buf_cstr(out, "--help --version\" ;;\n        *) case ${COMP_WORDS[1]} in\n");
        for (unsigned i = 0; cmd_all[i]; i++) {
                if (cmd_all[i]->hidden)
                        continue;
                buf_printf(out, "                %s) words=\"", cmd_all[i]->name);
                for (const struct cmd_opt *o = cmd_all[i]->opts; o && o->name; o++)
                        buf_printf(out, "--%s ", o->name);
                buf_cstr(out, "--help\" ;;\n");
        }
        buf_cstr(out, "                esac ;;\n        esac\n        if [[ $cur == -* || $COMP_CWORD == 1 ]]; then\n"
                      "                mapfile -t COMPREPLY < <(compgen -W \"$words\" -- \"$cur\")\n        else\n"
                      "                mapfile -t COMPREPLY < <(compgen -f -- \"$cur\")\n        fi\n}\ncomplete -F _postern postern\n");
}
