#include "base/arena.h"

#include "base/mem.h"

#include <stdio.h>
#include <stdlib.h>

struct arena_block {
        struct arena_block *next;
        size_t n;
        char data[];
};

void arena_init(struct arena *a, size_t block_bytes)
{
        *a = (struct arena){ .block_bytes = block_bytes ? block_bytes : 4096 };
}

static void free_blocks(struct arena_block *b)
{
        while (b) {
                struct arena_block *next = b->next;

                free(b);
                b = next;
        }
}

void arena_fini(struct arena *a)
{
        free_blocks(a->head);
        a->head = NULL;
        a->cur = a->end = NULL;
        a->used_bytes = 0;
}

void arena_reset(struct arena *a)
{
        a->used_bytes = 0;
        if (!a->head)
                return;
        free_blocks(a->head->next);
        a->head->next = NULL;
        a->cur = a->head->data;
        a->end = a->head->data + a->head->n;
}

/* A request larger than a block gets one of its own, placed behind the current block so that this one stays in use. */
void *arena_alloc_slow(struct arena *a, size_t n)
{
        size_t want = a->block_bytes ? a->block_bytes : 4096;
        bool own = n > want / 2 && a->head;
        struct arena_block *b;

        if (n > want || own)
                want = n;
        b = mem_alloc(sizeof(*b) + want);
        b->n = want;
        if (own) {
                b->next = a->head->next;
                a->head->next = b;
                return b->data;
        }
        b->next = a->head;
        a->head = b;
        a->cur = b->data + n;
        a->end = b->data + want;
        return b->data;
}

void *arena_zalloc(struct arena *a, size_t n)
{
        return memset(arena_alloc(a, n), 0, n);
}

void *arena_dup(struct arena *a, const void *p, size_t n)
{
        void *q = arena_alloc(a, n);

        if (n)
                memcpy(q, p, n);
        return q;
}

char *arena_cstr(struct arena *a, struct str s)
{
        char *q = arena_alloc(a, s.n + 1);

        if (s.n)
                memcpy(q, s.p, s.n);
        q[s.n] = '\0';
        return q;
}

struct str arena_str(struct arena *a, struct str s)
{
        return str_make(arena_cstr(a, s), s.n);
}

struct str arena_vprintf(struct arena *a, const char *fmt, va_list ap)
{
        va_list ap2;

        va_copy(ap2, ap);
        int n = vsnprintf(NULL, 0, fmt, ap2);
        va_end(ap2);
        if (n < 0)
                return STR("");
        char *q = arena_alloc(a, (size_t)n + 1);

        vsnprintf(q, (size_t)n + 1, fmt, ap);
        return str_make(q, (size_t)n);
}

struct str arena_printf(struct arena *a, const char *fmt, ...)
{
        va_list ap;

        va_start(ap, fmt);
        struct str s = arena_vprintf(a, fmt, ap);
        va_end(ap);
        return s;
}
