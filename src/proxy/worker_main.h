/* Workers as the main thread sees them. */
#ifndef PROXY_WORKER_MAIN_H
#define PROXY_WORKER_MAIN_H

#include "proxy/worker.h"

struct worker *worker_new(struct server *s, unsigned index);
bool worker_start(struct worker *w); /* false: logged */
void worker_stop(struct worker *w);  /* closes everything and waits for the thread */
void worker_free(struct worker *w);  /* after worker_stop() */

#endif
