#include "base/diag.h"

#include "base/mem.h"

#include <stdlib.h>

void diags_init(struct diags *d)
{
        *d = (struct diags){ .max = 100 };
        arena_init(&d->arena, 1024);
}

void diags_fini(struct diags *d)
{
        free(d->v);
        arena_fini(&d->arena);
        *d = (struct diags){ 0 };
}

void diags_clear(struct diags *d)
{
        arena_reset(&d->arena);
        d->n = d->errors = d->dropped = 0;
}

void diag_add(struct diags *d, enum diag_severity sev, const char *code, const struct diag_at *at, const char *fmt, ...)
{
        static const struct diag_at nowhere;
        va_list ap;

        if (sev == DIAG_ERROR)
                d->errors++;
        if (d->n >= d->max) {
                d->dropped++;
                return;
        }
        if (!at)
                at = &nowhere;
        va_start(ap, fmt);
        struct str text = arena_vprintf(&d->arena, fmt, ap);
        va_end(ap);
        VEC_PUSH(d->v, d->n, d->cap) = (struct diag){
                .severity = sev,
                .code = code,
                .file = arena_str(&d->arena, at->file),
                .line = at->line,
                .column = at->column,
                .resource = arena_str(&d->arena, at->resource),
                .path = arena_str(&d->arena, at->path),
                .text = text,
        };
}

void diag_format(const struct diag *g, struct buf *out)
{
        if (g->file.n)
                buf_printf(out, STR_FMT ":", STR_ARG(g->file));
        if (g->line)
                buf_printf(out, "%s%u:%u:", g->file.n ? "" : "line ", g->line, g->column);
        if (g->file.n || g->line)
                buf_char(out, ' ');
        if (g->severity == DIAG_WARNING)
                buf_cstr(out, "warning: ");
        if (g->resource.n)
                buf_printf(out, STR_FMT ": ", STR_ARG(g->resource));
        if (g->path.n)
                buf_printf(out, STR_FMT ": ", STR_ARG(g->path));
        buf_str(out, g->text);
        if (g->code)
                buf_printf(out, " [%s]", g->code);
}

void diags_format(const struct diags *d, struct buf *out)
{
        for (size_t i = 0; i < d->n; i++) {
                diag_format(&d->v[i], out);
                buf_char(out, '\n');
        }
        if (d->dropped)
                buf_printf(out, "... and %zu more\n", d->dropped);
}
