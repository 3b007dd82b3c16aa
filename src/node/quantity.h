/* Kubernetes quantities ("250m", "128Mi", "1.5", "2e3"). */
#ifndef NODE_QUANTITY_H
#define NODE_QUANTITY_H

#include "base/str.h"

/* The value in thousandths, rounded up, clamped to int64. False: not a quantity. */
bool quantity_parse(struct str s, int64_t *milli);

#endif
