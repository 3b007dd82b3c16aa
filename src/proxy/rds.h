/* Route configurations by name: one slot for each (name, source), shared by every HCM that asks for it. The main thread subscribes,
 * builds the table with the HTTP room's route_table_build() and posts it to the workers; a refused update leaves the last good one. */
#ifndef PROXY_RDS_H
#define PROXY_RDS_H

#include "base/diag.h"

struct server;
struct worker;
struct rds_slot;
struct route_table;
struct Xds__RouteConfiguration;
struct Xds__Rds;

/* The HTTP room's. Immutable, reference-counted (atomic), no pointer into rc kept. */
struct route_table *route_table_build(struct server *s, const struct Xds__RouteConfiguration *rc, const struct diag_at *at,
                                      struct diags *d);
struct route_table *route_table_ref(const struct route_table *t);
void route_table_unref(const struct route_table *t);

/* Main thread, during a filter's build. Reference-counted; NULL with diagnostics (a source that is not supported, an empty name). */
struct rds_slot *rds_slot_get(struct server *s, const struct Xds__Rds *rds, const struct diag_at *at, struct diags *d);
void rds_slot_unref(struct rds_slot *r); /* any thread */
/* A worker's current table: borrowed until the end of the turn (route_table_ref() to keep). NULL: never arrived (404, flag NR). */
struct route_table *rds_slot_table(struct worker *w, const struct rds_slot *r);

#endif
