/* http_inspect(): a final verdict on a beginning stays when more bytes follow. */
#include "proxy/http_inspector.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        enum http_inspect first = HTTP_INSPECT_MORE;

        if (n > 2048)
                return 0;
        for (size_t i = 0; i <= n; i++) {
                enum http_inspect r = http_inspect(str_make((const char *)p, i));

                if (first != HTTP_INSPECT_MORE && r != first)
                        abort();
                first = r;
        }
        return 0;
}
