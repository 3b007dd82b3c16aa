/* The decision falls as early as it can: most foreign protocols are out at their first byte, so that a server-first client is not kept
 * waiting for a line that never ends. */
#include "proxy/http_inspector.h"

#include "base/mem.h"

static const struct str preface = { "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 24 };

static const char *const methods[] = {
        "GET",        "HEAD",   "POST",      "PUT",    "DELETE",   "CONNECT",   "OPTIONS",     "TRACE",  "PATCH",
        "ACL",        "BIND",   "CHECKOUT",  "COPY",   "LINK",     "LOCK",      "M-SEARCH",    "MERGE",  "MKACTIVITY",
        "MKCALENDAR", "MKCOL",  "MOVE",      "NOTIFY", "PROPFIND", "PROPPATCH", "PURGE",       "REBIND", "REPORT",
        "SEARCH",     "SOURCE", "SUBSCRIBE", "UNBIND", "UNLINK",   "UNLOCK",    "UNSUBSCRIBE",
};

/* Could `s` become a known method, or is it one? */
static bool method_possible(struct str s, bool whole)
{
        for (size_t i = 0; i < ARRAY_LEN(methods); i++) {
                struct str m = str_of(methods[i]);

                if (whole ? str_eq(m, s) : str_starts(m, s))
                        return true;
        }
        return false;
}

enum http_inspect http_inspect(struct str s)
{
        ptrdiff_t space, eol;
        struct str line, version;

        if (s.n < preface.n && str_starts(preface, s))
                return HTTP_INSPECT_MORE;
        if (str_starts(s, preface))
                return HTTP_INSPECT_2;
        while (s.n && (s.p[0] == '\r' || s.p[0] == '\n')) /* RFC 9112 §2.2: empty lines before the request line */
                s = str_sub(s, 1, s.n);
        space = str_chr(s, ' ');
        if (space < 0)
                return method_possible(s, false) ? HTTP_INSPECT_MORE : HTTP_INSPECT_OTHER;
        if (!method_possible(str_sub(s, 0, (size_t)space), true))
                return HTTP_INSPECT_OTHER;
        eol = str_chr(s, '\n');
        line = eol < 0 ? s : str_sub(s, 0, (size_t)eol);
        for (size_t i = 0; i < line.n; i++)
                if ((unsigned char)line.p[i] < 0x20 && !(line.p[i] == '\r' && i + 1 == line.n))
                        return HTTP_INSPECT_OTHER;
        if (eol < 0)
                return s.n >= HTTP_INSPECT_MAX ? HTTP_INSPECT_OTHER : HTTP_INSPECT_MORE;
        if (line.n && line.p[line.n - 1] == '\r')
                line.n--;
        space = str_rchr(line, ' ');
        version = str_sub(line, (size_t)space + 1, line.n);
        if (str_eqc(version, "HTTP/1.1"))
                return HTTP_INSPECT_11;
        /* Any other version that has the form of one counts as 1.0, as in Envoy: the HTTP codec then says what is wrong with it. */
        if (version.n == 8 && str_starts(version, STR("HTTP/")) && version.p[5] >= '0' && version.p[5] <= '9' && version.p[6] == '.' &&
            version.p[7] >= '0' && version.p[7] <= '9')
                return HTTP_INSPECT_10;
        return HTTP_INSPECT_OTHER;
}
