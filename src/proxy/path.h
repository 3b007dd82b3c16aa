/* Paths as a security matter: what a matcher sees must be what the upstream acts on (RFC 3986 §6.2.2). Pure functions. */
#ifndef PROXY_PATH_H
#define PROXY_PATH_H

#include "base/arena.h"

/* The path without query and fragment. */
struct str path_only(struct str path);

/* normalize_path: dot segments removed, %2E and unreserved characters' escapes decoded, "\" to "/", as Envoy (which uses Chromium's rules).
 * False when the path cannot be normalised (not absolute, "..", above the root). The query is kept as it is; the fragment too. Lives in
 * `a`, or is `path` itself when nothing had to change. */
bool path_normalize(struct arena *a, struct str path, struct str *out);

/* merge_slashes: "//" to "/" in the path, not in the query. */
struct str path_merge_slashes(struct arena *a, struct str path);

/* %2F, %2f, %5C, %5c in the path. */
bool path_has_escaped_slashes(struct str path);
struct str path_unescape_slashes(struct arena *a, struct str path);

/* An authority without its port ("[::1]:80" -> "[::1]"); *port 0 when there is none. */
struct str host_without_port(struct str authority, unsigned *port);

#endif
