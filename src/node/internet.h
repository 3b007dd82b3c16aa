/* The offline Internet, seen from the node: which names are on it, the throw-away CA behind its certificates, and the process that plays
 * it. */
#ifndef NODE_INTERNET_H
#define NODE_INTERNET_H

#include "base/diag.h"
#include "node/dnsanswer.h"

struct node;
struct internet;

/* Is there a host of this name (lower case)? */
void internet_lookup(struct str name, struct dns_found *found);
/* The CA's certificate; made on the first call for this folder. */
bool internet_ca(const char *state_dir, struct buf *ca_pem, struct diags *d);
/* Gives the namespace its addresses and starts the process, or finds the one that an earlier node started. */
struct internet *internet_start(struct node *n, struct diags *d);
void internet_free(struct internet *i); /* the process goes on; NULL: nothing */

#endif
