/* Does a stock Envoy take what we made? Without Istio's own filters, which it does not know, and with the routes inline. */
#ifndef TEST_ENVOY_H
#define TEST_ENVOY_H

#include "world.h"

const char *envoy_path(void); /* $POSTERN_ENVOY, else in PATH, else /opt/peers/bin/envoy; NULL: not here */
/* Runs it with --mode validate; fails the test with what it says. */
void envoy_validates(struct world *w, const struct translate_config *c, const char *title);

#endif
