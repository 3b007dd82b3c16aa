/* Finding all nodes of a pattern in an object: "spec.http[].match[].uri", "metadata.labels{}". */
#ifndef MESH_WALK_H
#define MESH_WALK_H

#include "mesh/read.h"

enum { WALK_PATH_MAX = 512 };

/* `n` NULL: `parent` is there and the last field is not. */
typedef void walk_fn(void *arg, const struct pb_node *n, const struct pb_node *parent, const char *path);

/* Calls fn for each node that `pattern` leads to. "[]" goes through a list, "{}" through a map's values (its path then has the key).
 * With `missing`, also where only the last field is missing. */
void walk(const struct pb_node *root, const char *pattern, bool missing, walk_fn *fn, void *arg);
/* The part of a diagnostic's place that an object gives: "VirtualService ns/name". */
struct str walk_resource(struct arena *a, const struct pb_node *object);

#endif
