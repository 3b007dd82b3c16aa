/* A small mesh to translate: the tutorial's pods and services, and whatever a test adds. */
#ifndef TEST_WORLD_H
#define TEST_WORLD_H

#include "translate/translate.h"

struct world {
        struct mesh *mesh;
        struct arena arena;
        struct diags diags;
        struct translator *translator;
        struct mesh_snapshot *snap; /* of the last world_build() */
        struct translate_proxy sidecar, gateway;
};

/* Services curl and istio-egressgateway with a pod each; meshConfig as the tutorial installs it. */
void world_init(struct world *w, bool allow_any);
void world_fini(struct world *w);
/* Every document of a YAML text, or the test fails with the diagnostics. */
void world_apply(struct world *w, const char *yaml);
struct translate_config *world_build(struct world *w, const struct translate_proxy *p);
/* A resource, unpacked into the world's arena; NULL: it is not there. */
ProtobufCMessage *world_get(struct world *w, const struct translate_config *c, enum translate_type type, const char *name);

#endif
