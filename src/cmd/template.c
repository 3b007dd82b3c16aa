#include "cmd/template.h"

#include <assert.h>

void template_fill(const char *text, const struct template_var *vars, size_t n, struct buf *out)
{
        struct str rest = str_of(text);
        ptrdiff_t i;

        while ((i = str_find(rest, STR("${"))) >= 0) {
                struct str tail = str_sub(rest, (size_t)i + 2, rest.n);
                ptrdiff_t end = str_chr(tail, '}');
                const struct template_var *v = vars;

                assert(end > 0);
                buf_append(out, rest.p, (size_t)i);
                while (v < vars + n && !str_eqc(str_sub(tail, 0, (size_t)end), v->name))
                        v++;
                assert(v < vars + n);
                if (v < vars + n)
                        buf_str(out, v->value);
                rest = str_sub(tail, (size_t)end + 1, tail.n);
        }
        buf_str(out, rest);
}
