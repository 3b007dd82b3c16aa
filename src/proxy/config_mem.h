/* What a built configuration is made of: one arena, and the few objects in it that need more than its release (compiled regular
 * expressions, formats, references). Freed whole. */
#ifndef PROXY_CONFIG_MEM_H
#define PROXY_CONFIG_MEM_H

#include "base/diag.h"

struct config_cleanup {
        struct config_cleanup *next;
        void (*fn)(void *p);
        void *p;
};

struct config_mem {
        struct arena arena;
        struct arena scratch; /* paths for diagnostics and messages on the way; config_mem_built() drops it */
        struct config_cleanup *cleanup;
};

void config_mem_init(struct config_mem *m);
void config_mem_built(struct config_mem *m);
void config_mem_fini(struct config_mem *m); /* runs what was registered, newest first */
void config_mem_on_free(struct config_mem *m, void (*fn)(void *p), void *p);

#endif
