/* Looks at the first bytes of a connection: HTTP/2's preface (RFC 9113 §3.4), or the request line of HTTP/1 (RFC 9112 §3)? */
#ifndef PROXY_HTTP_INSPECTOR_H
#define PROXY_HTTP_INSPECTOR_H

#include "base/str.h"

enum { HTTP_INSPECT_MAX = 8192 };

enum http_inspect { HTTP_INSPECT_MORE, HTTP_INSPECT_10, HTTP_INSPECT_11, HTTP_INSPECT_2, HTTP_INSPECT_OTHER };

enum http_inspect http_inspect(struct str seen); /* everything received so far */

#endif
