/* A growable run of bytes in one piece; it owns its memory. */
#ifndef BASE_BUF_H
#define BASE_BUF_H

#include "base/str.h"

#include <stdarg.h>

struct buf {
        char *p;
        size_t n, cap;
};

#define BUF_INIT           \
        {                  \
                NULL, 0, 0 \
        }

void buf_fini(struct buf *b);
void buf_reserve(struct buf *b, size_t more); /* room for `more` bytes behind n */
void buf_append(struct buf *b, const void *p, size_t n);
void buf_str(struct buf *b, struct str s);
void buf_cstr(struct buf *b, const char *s);
void buf_char(struct buf *b, char c);
void buf_printf(struct buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void buf_vprintf(struct buf *b, const char *fmt, va_list ap);
void buf_u64(struct buf *b, uint64_t v);
void buf_json(struct buf *b, struct str s); /* a quoted JSON string, RFC 8259 §7; invalid UTF-8 becomes U+FFFD */
void buf_consume(struct buf *b, size_t n);  /* drops n bytes from the front */
const char *buf_z(struct buf *b);           /* NUL-terminated; the NUL is not counted */
/* Hands the NUL-terminated memory to the caller (free()) and empties b. */
char *buf_take(struct buf *b);

static inline struct str buf_view(const struct buf *b)
{
        return str_make(b->p, b->n);
}

/* Reads a whole file of at most `max` bytes. 0, or -errno (-EFBIG past max). */
int buf_read_file(struct buf *b, const char *path, size_t max);
/* Replaces `path` by b's bytes in one step: a temporary file beside it, fsync, rename. 0, or -errno. */
int buf_write_file(const struct buf *b, const char *path, unsigned mode);

#endif
