/* See config_mem.h. */
#include "proxy/config_mem.h"

void config_mem_init(struct config_mem *m)
{
        arena_init(&m->arena, 0);
        arena_init(&m->scratch, 0);
        m->cleanup = NULL;
}

void config_mem_built(struct config_mem *m)
{
        arena_fini(&m->scratch);
        arena_init(&m->scratch, 0);
}

void config_mem_fini(struct config_mem *m)
{
        for (struct config_cleanup *c = m->cleanup; c; c = c->next)
                c->fn(c->p);
        m->cleanup = NULL;
        arena_fini(&m->scratch);
        arena_fini(&m->arena);
}

void config_mem_on_free(struct config_mem *m, void (*fn)(void *p), void *p)
{
        struct config_cleanup *c = ARENA_NEW(&m->arena, struct config_cleanup);

        c->fn = fn;
        c->p = p;
        c->next = m->cleanup;
        m->cleanup = c;
}
