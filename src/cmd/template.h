/* ${name} templates: how the manifests under deploy/ get their values. Values are inserted as they are: JSON is YAML, so they are JSON. */
#ifndef CMD_TEMPLATE_H
#define CMD_TEMPLATE_H

#include "base/buf.h"

struct template_var {
        const char *name;
        struct str value;
};

/* Appends `text` with every ${name} replaced. Every name must be in `vars` (asserted: templates are part of the program). */
void template_fill(const char *text, const struct template_var *vars, size_t n, struct buf *out);

#endif
