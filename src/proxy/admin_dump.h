/* What /config_dump, /clusters, /listeners and /server_info print. */
#ifndef PROXY_ADMIN_DUMP_H
#define PROXY_ADMIN_DUMP_H

#include "base/buf.h"
#include "proxy/server.h"

/* Envoy's field names (snake_case), two spaces of indentation. `resource`: one repeated field of one dump ("dynamic_active_clusters"), ""
 * all. `mask`: comma-separated field paths below it; "" all. `name_regex`: only resources with such a name; "" all. False: *why says what
 * is wrong with the request. */
bool admin_config_dump(struct server *s, struct str resource, struct str mask, struct str name_regex, bool include_eds, struct buf *out,
                       struct buf *why);
void admin_clusters_text(struct server *s, struct str filter, struct buf *out);
void admin_clusters_json(struct server *s, struct buf *out);
void admin_listeners_text(struct server *s, struct buf *out);
void admin_listeners_json(struct server *s, struct buf *out);
void admin_server_info(struct server *s, struct buf *out);
const char *server_state_name(const struct server *s);

#endif
