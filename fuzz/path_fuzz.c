/* Path normalisation: it must end, stay within its memory, and be a fixed point: what was normalised once is normal. */
#include "proxy/path.h"

#include <assert.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
        struct str in = str_make((const char *)data, size), out, again, host;
        struct arena a;
        unsigned port;

        if (size > 4096)
                return 0;
        arena_init(&a, 0);
        if (path_normalize(&a, in, &out)) {
                assert(out.n && out.p[0] == '/');
                for (struct str rest = path_only(out), part; str_next(&rest, '/', &part);)
                        assert(!str_eqc(part, "..") && !str_eqc(part, "."));
                assert(path_normalize(&a, out, &again) && str_eq(out, again));
        }
        out = path_merge_slashes(&a, in);
        assert(str_find(path_only(out), STR("//")) < 0);
        assert(!path_has_escaped_slashes(path_unescape_slashes(&a, str_make(in.p, path_only(in).n))) || str_find(in, STR("%")) >= 0);
        host = host_without_port(in, &port);
        assert(host.n <= in.n && port <= 65535);
        arena_fini(&a);
        return 0;
}
