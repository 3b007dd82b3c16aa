/* Lines of a container's log file, which a container cannot write but a full disk can cut; annotations and quantities of a pod, which
 * anybody may write. */
#include "node/ctrlog.h"
#include "node/quantity.h"
#include "node/redirect.h"
#include "node/spec.h"

#include <stdlib.h>

static struct str annotation(void *arg, const char *name)
{
        struct str *text = arg;
        size_t part = text->n / 4, at = (strlen(name) % 4) * part;

        return str_sub(*text, at, part);
}

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        struct str text = { (const char *)p, n };
        struct buf out = BUF_INIT, error = BUF_INIT;
        static const char *const vars[] = { "A=1", "B=$(A)" };
        struct ctrlog_record r;
        struct arena a;
        int64_t milli;

        if (ctrlog_parse(text, &r) && r.text.n > n)
                abort();
        quantity_parse(text, &milli);
        if (!redirect_script(annotation, &text, &out, &error) && !error.n)
                abort(); /* a refusal says why */
        arena_init(&a, 0);
        spec_expand(text, vars, 2, &a);
        out.n = 0;
        spec_base64(text, &out);
        arena_fini(&a);
        buf_fini(&out);
        buf_fini(&error);
        return 0;
}
