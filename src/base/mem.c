#include "base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void *check(void *p)
{
        if (!p) {
                fputs("postern: out of memory\n", stderr);
                abort();
        }
        return p;
}

void *mem_alloc(size_t n)
{
        return check(malloc(n ? n : 1));
}

void *mem_zalloc(size_t n)
{
        return check(calloc(1, n ? n : 1));
}

void *mem_calloc(size_t n, size_t size)
{
        return check(calloc(n ? n : 1, size ? size : 1));
}

void *mem_realloc(void *p, size_t n)
{
        return check(realloc(p, n ? n : 1));
}

void *mem_dup(const void *p, size_t n)
{
        void *q = mem_alloc(n);

        if (n)
                memcpy(q, p, n);
        return q;
}

char *mem_strdup(const char *s)
{
        return mem_dup(s, strlen(s) + 1);
}

char *mem_strndup(const char *s, size_t n)
{
        char *q = mem_alloc(n + 1);

        if (n)
                memcpy(q, s, n);
        q[n] = '\0';
        return q;
}

char *mem_printf(const char *fmt, ...)
{
        va_list ap;
        char *s = NULL;

        va_start(ap, fmt);
        int n = vasprintf(&s, fmt, ap);
        va_end(ap);
        return check(n < 0 ? NULL : s);
}

void mem_grow(void **v, size_t *cap, size_t need, size_t size)
{
        size_t c = *cap ? *cap : 8;

        while (c < need)
                c *= 2;
        if (c > SIZE_MAX / size)
                check(NULL);
        *v = mem_realloc(*v, c * size);
        *cap = c;
}
