/* Sub-commands as data: one table makes the parser, --help, the man pages and the shell completion, so they cannot disagree. */
#ifndef CMD_CMD_H
#define CMD_CMD_H

#include "base/diag.h"

#include <stdbool.h>

struct cmd_opt {
        const char *name; /* long name without dashes; NULL ends the table */
        char letter;      /* short form, or 0 */
        const char *arg;  /* what the value is called ("FILE"); NULL: a flag */
        const char *text; /* one sentence without a full stop */
        bool repeats;
};

struct cmd_args;

struct cmd {
        const char *name;
        const char *summary;     /* half a line: what it does */
        const char *operands;    /* "[NAME...]", or "" */
        const char *description; /* paragraphs divided by an empty line */
        const struct cmd_opt *opts;
        const char *const *examples; /* pairs: command, what it does; NULL ends */
        int (*run)(struct cmd_args *a);
        bool hidden;      /* roles that other commands start */
        int max_operands; /* -1: any number */
};

enum { CMD_MAX_VALUES = 256 };

struct cmd_args {
        const struct cmd *cmd;
        struct {
                const struct cmd_opt *opt;
                const char *value;
        } v[CMD_MAX_VALUES];
        unsigned n;
        char **operands;
        int noperands;
};

enum { CMD_OK = 0, CMD_FAILED = 1, CMD_USAGE = 2 };

/* The last value given, or `otherwise`. `name` must be in the table (asserted). */
const char *cmd_value(const struct cmd_args *a, const char *name, const char *otherwise);
bool cmd_flag(const struct cmd_args *a, const char *name);
/* The i-th value of a repeated option, or NULL. */
const char *cmd_nth(const struct cmd_args *a, const char *name, unsigned i);
/* A whole number in [lo, hi], or an error on standard error and false. Without the option: *v stays. */
bool cmd_number(const struct cmd_args *a, const char *name, long lo, long hi, long *v);

/* Runs `c` with argv[0] being its name. Prints help and usage errors itself. */
int cmd_run(const struct cmd *c, int argc, char **argv);

/* "postern NAME: text" on standard error; returns CMD_FAILED. */
int cmd_error(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* All of them on standard error, one a line. */
void cmd_diags(const struct diags *d);

extern const struct cmd *const cmd_all[]; /* NULL ends */
const struct cmd *cmd_find(const char *name);
const char *cmd_suggest(const char *name); /* the nearest command's name, or NULL */

void cmd_help(const struct cmd *c, struct buf *out);
void cmd_man(const struct cmd *c, struct buf *out); /* roff; NULL: the page of postern itself */
void cmd_completion_bash(struct buf *out);

/* The path of the running executable; static storage. */
const char *cmd_self(void);

#endif
