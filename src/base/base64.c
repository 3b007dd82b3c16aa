#include "base/base64.h"

static const char standard[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
static const char url[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

static void print(struct buf *out, const char *alphabet, bool pad, const uint8_t *p, size_t n)
{
        buf_reserve(out, (n + 2) / 3 * 4);
        for (size_t i = 0; i < n; i += 3) {
                uint32_t v = (uint32_t)p[i] << 16 | (i + 1 < n ? (uint32_t)p[i + 1] << 8 : 0) | (i + 2 < n ? p[i + 2] : 0);
                char q[4] = { alphabet[v >> 18], alphabet[v >> 12 & 63], i + 1 < n ? alphabet[v >> 6 & 63] : '=',
                              i + 2 < n ? alphabet[v & 63] : '=' };

                buf_append(out, q, pad || i + 2 < n ? 4 : i + 1 < n ? 3 : 2);
        }
}

void base64_print(struct buf *out, const void *p, size_t n)
{
        print(out, standard, true, p, n);
}

void base64url_print(struct buf *out, const void *p, size_t n)
{
        print(out, url, false, p, n);
}

static int digit(char c, unsigned alphabets)
{
        if (c >= 'A' && c <= 'Z')
                return c - 'A';
        if (c >= 'a' && c <= 'z')
                return c - 'a' + 26;
        if (c >= '0' && c <= '9')
                return c - '0' + 52;
        if (((alphabets & BASE64_STANDARD) && c == '+') || ((alphabets & BASE64_URL) && c == '-'))
                return 62;
        if (((alphabets & BASE64_STANDARD) && c == '/') || ((alphabets & BASE64_URL) && c == '_'))
                return 63;
        return -1;
}

bool base64_decode(struct str s, unsigned alphabets, void *out, size_t *n)
{
        uint8_t *p = out;
        uint32_t bits = 0;
        unsigned have = 0;

        *n = 0;
        for (size_t i = 0; i < s.n; i++) {
                int d = digit(s.p[i], alphabets);

                if (d < 0)
                        return false;
                bits = bits << 6 | (uint32_t)d;
                have += 6;
                if (have >= 8) {
                        have -= 8;
                        p[(*n)++] = (uint8_t)(bits >> have);
                }
        }
        return true;
}
