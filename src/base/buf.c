#include "base/buf.h"

#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

void buf_fini(struct buf *b)
{
        free(b->p);
        *b = (struct buf)BUF_INIT;
}

void buf_reserve(struct buf *b, size_t more)
{
        if (b->cap - b->n < more)
                mem_grow((void **)&b->p, &b->cap, b->n + more, 1);
}

void buf_append(struct buf *b, const void *p, size_t n)
{
        if (!n)
                return;
        buf_reserve(b, n);
        memcpy(b->p + b->n, p, n);
        b->n += n;
}

void buf_str(struct buf *b, struct str s)
{
        buf_append(b, s.p, s.n);
}

void buf_cstr(struct buf *b, const char *s)
{
        buf_append(b, s, strlen(s));
}

void buf_char(struct buf *b, char c)
{
        buf_append(b, &c, 1);
}

void buf_vprintf(struct buf *b, const char *fmt, va_list ap)
{
        va_list ap2;

        va_copy(ap2, ap);
        int n = vsnprintf(NULL, 0, fmt, ap2);
        va_end(ap2);
        if (n <= 0)
                return;
        buf_reserve(b, (size_t)n + 1);
        vsnprintf(b->p + b->n, (size_t)n + 1, fmt, ap);
        b->n += (size_t)n;
}

void buf_printf(struct buf *b, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        buf_vprintf(b, fmt, ap);
        va_end(ap);
}

void buf_u64(struct buf *b, uint64_t v)
{
        char t[20];
        size_t i = sizeof(t);

        do
                t[--i] = (char)('0' + v % 10);
        while (v /= 10);
        buf_append(b, t + i, sizeof(t) - i);
}

/* Length of the well-formed UTF-8 sequence at p (RFC 3629), or 0. */
static size_t utf8_len(const unsigned char *p, size_t n)
{
        size_t len;
        unsigned lo = 0x80, hi = 0xbf;

        if (p[0] < 0x80)
                return 1;
        if (p[0] < 0xc2 || p[0] > 0xf4)
                return 0;
        len = p[0] < 0xe0 ? 2 : p[0] < 0xf0 ? 3 : 4;
        if (n < len)
                return 0;
        if (p[0] == 0xe0)
                lo = 0xa0;
        else if (p[0] == 0xed)
                hi = 0x9f;
        else if (p[0] == 0xf0)
                lo = 0x90;
        else if (p[0] == 0xf4)
                hi = 0x8f;
        if (p[1] < lo || p[1] > hi)
                return 0;
        for (size_t i = 2; i < len; i++)
                if ((p[i] & 0xc0) != 0x80)
                        return 0;
        return len;
}

void buf_json(struct buf *b, struct str s)
{
        const unsigned char *p = (const unsigned char *)s.p;
        size_t plain = 0, i = 0;

        buf_char(b, '"');
        while (i < s.n) {
                size_t len = utf8_len(p + i, s.n - i);

                if (len && p[i] >= 0x20 && p[i] != '"' && p[i] != '\\' && p[i] != 0x7f) {
                        i += len;
                        continue;
                }
                buf_append(b, s.p + plain, i - plain);
                if (!len)
                        buf_cstr(b, "\\ufffd");
                else if (p[i] == '"' || p[i] == '\\')
                        buf_printf(b, "\\%c", p[i]);
                else if (p[i] == '\n')
                        buf_cstr(b, "\\n");
                else if (p[i] == '\r')
                        buf_cstr(b, "\\r");
                else if (p[i] == '\t')
                        buf_cstr(b, "\\t");
                else
                        buf_printf(b, "\\u%04x", p[i]);
                plain = ++i;
        }
        if (s.n > plain)
                buf_append(b, s.p + plain, s.n - plain);
        buf_char(b, '"');
}

void buf_consume(struct buf *b, size_t n)
{
        if (n >= b->n) {
                b->n = 0;
                return;
        }
        memmove(b->p, b->p + n, b->n - n);
        b->n -= n;
}

const char *buf_z(struct buf *b)
{
        buf_reserve(b, 1);
        b->p[b->n] = '\0';
        return b->p;
}

char *buf_take(struct buf *b)
{
        buf_z(b);
        char *p = b->p;

        *b = (struct buf)BUF_INIT;
        return p;
}

int buf_read_file(struct buf *b, const char *path, size_t max)
{
        int fd = open(path, O_RDONLY | O_CLOEXEC);

        if (fd < 0)
                return -errno;
        for (;;) {
                buf_reserve(b, 16384);
                ssize_t r = read(fd, b->p + b->n, b->cap - b->n);

                if (r < 0 && errno == EINTR)
                        continue;
                if (r < 0 || (r > 0 && b->n + (size_t)r > max)) {
                        int err = r < 0 ? errno : EFBIG;

                        close(fd);
                        return -err;
                }
                if (r == 0)
                        break;
                b->n += (size_t)r;
        }
        close(fd);
        return 0;
}

int buf_write_file(const struct buf *b, const char *path, unsigned mode)
{
        char *tmp = mem_printf("%s.tmp.%d", path, (int)getpid());
        int err = 0;
        int fd = open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);

        if (fd < 0) {
                err = errno;
                free(tmp);
                return -err;
        }
        if (fchmod(fd, (mode_t)mode) < 0)
                err = errno;
        for (size_t off = 0; !err && off < b->n;) {
                ssize_t w = write(fd, b->p + off, b->n - off);

                if (w < 0 && errno != EINTR)
                        err = errno;
                else if (w > 0)
                        off += (size_t)w;
        }
        if (!err && fsync(fd) < 0)
                err = errno;
        if (close(fd) < 0 && !err)
                err = errno;
        if (!err && rename(tmp, path) < 0)
                err = errno;
        if (err)
                unlink(tmp);
        free(tmp);
        return -err;
}
