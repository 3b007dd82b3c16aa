#include "cmd/cmd.h"

#include "base/mem.h"
#include "base/str.h"

#include <assert.h>
#include <limits.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const struct cmd_opt no_opts[] = { { 0 } };

static const struct cmd_opt *opts_of(const struct cmd *c)
{
        return c->opts ? c->opts : no_opts;
}

static const char *current = ""; /* for messages: the command that runs */

int cmd_error(const char *fmt, ...)
{
        va_list ap;

        fprintf(stderr, "postern%s%s: ", *current ? " " : "", current);
        va_start(ap, fmt);
        vfprintf(stderr, fmt, ap);
        va_end(ap);
        fputc('\n', stderr);
        return CMD_FAILED;
}

void cmd_diags(const struct diags *d)
{
        struct buf b = BUF_INIT;

        diags_format(d, &b);
        fwrite(b.p, 1, b.n, stderr);
        buf_fini(&b);
}

static void assert_known(const struct cmd_args *a, const char *name)
{
        for (const struct cmd_opt *o = opts_of(a->cmd); o->name; o++)
                if (strcmp(o->name, name) == 0)
                        return;
        assert(!"option is not in the command's table");
}

const char *cmd_nth(const struct cmd_args *a, const char *name, unsigned i)
{
        assert_known(a, name);
        for (unsigned k = 0; k < a->n; k++)
                if (strcmp(a->v[k].opt->name, name) == 0 && i-- == 0)
                        return a->v[k].value;
        return NULL;
}

const char *cmd_value(const struct cmd_args *a, const char *name, const char *otherwise)
{
        const char *v = otherwise;

        assert_known(a, name);
        for (unsigned k = 0; k < a->n; k++)
                if (strcmp(a->v[k].opt->name, name) == 0)
                        v = a->v[k].value;
        return v;
}

bool cmd_flag(const struct cmd_args *a, const char *name)
{
        return cmd_nth(a, name, 0) != NULL;
}

bool cmd_number(const struct cmd_args *a, const char *name, long lo, long hi, long *v)
{
        const char *text = cmd_value(a, name, NULL);
        char *end;

        if (!text)
                return true;
        long x = strtol(text, &end, 10);

        if (end == text || *end || x < lo || x > hi) {
                cmd_error("--%s: \"%s\" is not a whole number from %ld to %ld", name, text, lo, hi);
                return false;
        }
        *v = x;
        return true;
}

static const char *nearest(const char *name, const char *(*at)(const void *, unsigned), const void *ctx)
{
        const char *best = NULL, *t;
        unsigned best_d = 3;

        for (unsigned i = 0; (t = at(ctx, i)); i++) {
                unsigned d = str_distance(str_of(name), str_of(t), 3);

                if (d < best_d) {
                        best_d = d;
                        best = t;
                }
        }
        return best;
}

static const char *opt_at(const void *ctx, unsigned i)
{
        return ((const struct cmd_opt *)ctx)[i].name;
}

static const char *visible_at(const void *ctx, unsigned i)
{
        (void)ctx;
        return cmd_all[i] ? cmd_all[i]->name : NULL;
}

const char *cmd_suggest(const char *name)
{
        return nearest(name, visible_at, NULL);
}

const struct cmd *cmd_find(const char *name)
{
        for (unsigned i = 0; cmd_all[i]; i++)
                if (strcmp(cmd_all[i]->name, name) == 0)
                        return cmd_all[i];
        return NULL;
}

static bool store(struct cmd_args *a, const struct cmd_opt *o, const char *value)
{
        if (a->n == CMD_MAX_VALUES) {
                cmd_error("more than %d options", CMD_MAX_VALUES);
                return false;
        }
        a->v[a->n].opt = o;
        a->v[a->n++].value = value;
        return true;
}

static int usage(const char *fmt, const char *what, const char *hint)
{
        char *text = mem_printf(fmt, what);

        if (hint)
                cmd_error("%s (did you mean \"%s\"?)", text, hint);
        else
                cmd_error("%s; see \"postern %s --help\"", text, current);
        free(text);
        return CMD_USAGE;
}

/* One "--name", "--name=value" or "--name value". Moves *i past a value it takes. */
static int long_opt(struct cmd_args *a, int argc, char **argv, int *i)
{
        const char *name = argv[*i] + 2, *eq = strchr(name, '=');
        size_t n = eq ? (size_t)(eq - name) : strlen(name);
        const struct cmd_opt *o = opts_of(a->cmd);

        while (o->name && (strlen(o->name) != n || strncmp(o->name, name, n) != 0))
                o++;
        if (!o->name) {
                char *key = mem_strndup(name, n);
                const char *near = nearest(key, opt_at, opts_of(a->cmd));
                char *hint = near ? mem_printf("--%s", near) : NULL;
                int rc = usage("unknown option --%s", key, hint);

                free(hint);
                free(key);
                return rc;
        }
        if (!o->arg) {
                if (!eq)
                        return store(a, o, "") ? CMD_OK : CMD_USAGE;
                if (strcmp(eq + 1, "true") == 0)
                        return store(a, o, "") ? CMD_OK : CMD_USAGE;
                if (strcmp(eq + 1, "false") == 0)
                        return CMD_OK;
                return usage("--%s takes no value", o->name, NULL);
        }
        if (!eq && *i + 1 >= argc)
                return usage("--%s needs a value", o->name, NULL);
        return store(a, o, eq ? eq + 1 : argv[++*i]) ? CMD_OK : CMD_USAGE;
}

/* A bundle of short options: "-yf FILE", "-fFILE". */
static int short_opts(struct cmd_args *a, int argc, char **argv, int *i)
{
        for (const char *p = argv[*i] + 1; *p; p++) {
                const struct cmd_opt *o = opts_of(a->cmd);
                const char one[] = { *p, '\0' };

                while (o->name && o->letter != *p)
                        o++;
                if (!o->name)
                        return usage("unknown option -%s", one, NULL);
                if (!o->arg) {
                        if (!store(a, o, ""))
                                return CMD_USAGE;
                        continue;
                }
                if (!p[1] && *i + 1 >= argc)
                        return usage("-%s needs a value", one, NULL);
                return store(a, o, p[1] ? p + 1 : argv[++*i]) ? CMD_OK : CMD_USAGE;
        }
        return CMD_OK;
}

int cmd_run(const struct cmd *c, int argc, char **argv)
{
        struct cmd_args a = { .cmd = c, .operands = mem_calloc((size_t)argc + 1, sizeof(char *)) };
        int rc = CMD_OK;
        bool only_operands = false, help = false;

        current = c->name;
        for (int i = 1; i < argc && rc == CMD_OK && !help; i++) {
                const char *s = argv[i];

                if (only_operands || s[0] != '-' || !s[1])
                        a.operands[a.noperands++] = argv[i];
                else if (strcmp(s, "--") == 0)
                        only_operands = true;
                else if (strcmp(s, "--help") == 0 || strcmp(s, "-h") == 0)
                        help = true;
                else if (s[1] == '-')
                        rc = long_opt(&a, argc, argv, &i);
                else
                        rc = short_opts(&a, argc, argv, &i);
        }
        if (help) {
                struct buf b = BUF_INIT;

                cmd_help(c, &b);
                fwrite(b.p, 1, b.n, stdout);
                buf_fini(&b);
        } else if (rc == CMD_OK && c->max_operands >= 0 && a.noperands > c->max_operands) {
                rc = usage("unexpected argument \"%s\"", a.operands[c->max_operands], NULL);
        } else if (rc == CMD_OK) {
                rc = c->run(&a);
        }
        free(a.operands);
        return rc;
}

const char *cmd_self(void)
{
        static char path[PATH_MAX];
        ssize_t n = *path ? 0 : readlink("/proc/self/exe", path, sizeof(path) - 1);

        if (n < 0)
                return "postern";
        if (n > 0)
                path[n] = '\0';
        return path;
}
