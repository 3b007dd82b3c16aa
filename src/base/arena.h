/* An arena: many allocations, one release. Grows by blocks; never moves what it handed out. Not thread-safe. */
#ifndef BASE_ARENA_H
#define BASE_ARENA_H

#include "base/str.h"

#include <stdarg.h>

struct arena_block;

struct arena {
        struct arena_block *head;
        char *cur, *end;
        size_t block_bytes;
        size_t used_bytes; /* handed out since the last reset */
};

/* `block_bytes` is the size of the first block that the first allocation makes (0: 4096). */
void arena_init(struct arena *a, size_t block_bytes);
void arena_fini(struct arena *a);
void arena_reset(struct arena *a); /* frees all but one block */

void *arena_alloc_slow(struct arena *a, size_t n);

static inline void *arena_alloc(struct arena *a, size_t n) /* aligned to 8, uninitialised */
{
        n = (n + 7) & ~(size_t)7;
        a->used_bytes += n;
        if ((size_t)(a->end - a->cur) >= n && a->cur) {
                void *p = a->cur;
                a->cur += n;
                return p;
        }
        return arena_alloc_slow(a, n);
}

void *arena_zalloc(struct arena *a, size_t n);
void *arena_dup(struct arena *a, const void *p, size_t n);
struct str arena_str(struct arena *a, struct str s); /* copy; also NUL-terminated behind its n bytes */
char *arena_cstr(struct arena *a, struct str s);
struct str arena_printf(struct arena *a, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
struct str arena_vprintf(struct arena *a, const char *fmt, va_list ap);

#define ARENA_NEW(a, type) ((type *)arena_zalloc((a), sizeof(type)))

#endif
