/* format_compile() and format_render(): any text, over a request that has something of everything. */
#include "http/http.h"
#include "proxy/format.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        struct arena arena;
        struct http_head req;
        struct addr a;
        struct conn_info conn = { .id = 1, .remote = &a, .local = &a, .direct_local = &a, .sni = STR("a.example") };
        struct stream_info si = {
                .conn = &conn, .request = &req, .protocol = SP_HTTP11, .flags = RF_UF, .start_real_us = 1790000000123456
        };
        struct diags d;
        struct diag_at at = { 0 };
        struct buf out = BUF_INIT;

        arena_init(&arena, 512);
        addr_parse(&a, STR("10.0.0.1:80"));
        http_head_init(&req, &arena);
        req.method = STR("GET");
        req.path = STR("/a?b=c");
        http_add(&req, HN_USER_AGENT, STR("x"));
        for (unsigned i = 1; i < ST_COUNT; i += 2)
                si.t[i] = i * 1000;
        diags_init(&d);
        struct format *f = format_compile(str_make((const char *)p, n), n & 1, &at, &d);

        if (!f != !!d.errors)
                abort();
        if (f)
                format_render(f, &si, &out);
        format_free(f);
        buf_fini(&out);
        diags_fini(&d);
        arena_fini(&arena);
        return 0;
}
