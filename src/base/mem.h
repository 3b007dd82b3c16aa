/* Allocation that does not return NULL. Out of memory ends the process: in the data plane, limits on streams, buffers and
 * connections come long before it. */
#ifndef BASE_MEM_H
#define BASE_MEM_H

#include <stddef.h>

void *mem_alloc(size_t n);  /* uninitialised */
void *mem_zalloc(size_t n); /* zeroed */
void *mem_calloc(size_t n, size_t size);
void *mem_realloc(void *p, size_t n);
void *mem_dup(const void *p, size_t n);
char *mem_strdup(const char *s);
char *mem_strndup(const char *s, size_t n);
char *mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#define MEM_NEW(type)                   ((type *)mem_zalloc(sizeof(type)))
#define ARRAY_LEN(a)                    (sizeof(a) / sizeof((a)[0]))
#define CONTAINER_OF(ptr, type, member) ((type *)((char *)(ptr)-offsetof(type, member)))

/* Grows *v (elements of `size` bytes) so that it holds at least `need` of them; *cap is in elements. */
void mem_grow(void **v, size_t *cap, size_t need, size_t size);

/* Appends nothing by itself: makes room for one more element and evaluates to the address of that element. `v`, `n` and
 * `cap` are lvalues; `n` and `cap` are size_t. */
#define VEC_PUSH(v, n, cap)                                                     \
        (*({                                                                    \
                if ((n) == (cap))                                               \
                        mem_grow((void **)&(v), &(cap), (n) + 1, sizeof(*(v))); \
                &(v)[(n)++];                                                    \
        }))

#endif
