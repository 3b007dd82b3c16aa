/* Reading object trees into structs: fields by their camelCase name or the original snake_case one, wrong types as absent (mesh_validate()
 * has refused them before), all strings copied into one arena. */
#ifndef MESH_READ_H
#define MESH_READ_H

#include "mesh/mesh.h"

const struct pb_node *read_field(const struct pb_node *map, const char *camel);
struct str read_str(struct arena *a, const struct pb_node *map, const char *field); /* {NULL,0} when absent */
uint32_t read_u32(const struct pb_node *map, const char *field);                    /* 0 when absent */
int64_t read_i64(const struct pb_node *map, const char *field, int64_t otherwise);
int read_bool(const struct pb_node *map, const char *field); /* -1 absent, 0, 1 */
double read_double(const struct pb_node *map, const char *field, double otherwise);
int64_t read_duration_us(const struct pb_node *map, const char *field, int64_t otherwise);
/* "1h2m3.5s", "100ms": Go's and Istio's form. Signs are allowed; the caller judges the range. */
bool read_duration_parse(struct str s, int64_t *us);
struct str *read_strs(struct arena *a, const struct pb_node *map, const char *field, size_t *n);
struct mesh_label *read_pairs(struct arena *a, const struct pb_node *map, size_t *n); /* a map of strings, sorted by key */
struct mesh_labels read_labels(struct arena *a, const struct pb_node *map);
struct mesh_export read_export(struct arena *a, const struct pb_node *spec);
struct mesh_export read_export_list(struct arena *a, struct str *v, size_t n);
struct mesh_port read_port(struct arena *a, const struct pb_node *port);             /* Istio's { number, name, protocol, targetPort } */
size_t read_list(const struct pb_node *map, const char *field, struct pb_node ***v); /* 0 when absent or not a list */

/* One a kind. They fill what `meta` (already read) leaves open; nothing can fail. */
void read_virtual_service(struct arena *a, const struct pb_node *object, struct str domain, struct mesh_vs *out);
void read_gateway(struct arena *a, const struct pb_node *object, struct mesh_gateway *out);
void read_destination_rule(struct arena *a, const struct pb_node *object, struct str domain, struct mesh_dr *out);
void read_sidecar(struct arena *a, const struct pb_node *object, struct mesh_sidecar *out);
void read_pod(struct arena *a, const struct pb_node *object, struct mesh_pod *out);
struct mesh_service *read_service(struct arena *a, const struct pb_node *object, const struct mesh_meta *meta, struct str domain);
struct mesh_service *read_service_entry(struct arena *a, const struct pb_node *object, const struct mesh_meta *meta, size_t *n);
struct mesh_slice *read_endpoint_slice(struct arena *a, const struct pb_node *object, const struct mesh_meta *meta);
struct mesh_slice *read_endpoints(struct arena *a, const struct pb_node *object, const struct mesh_meta *meta, size_t *n);
struct mesh_endpoint read_workload(struct arena *a, const struct pb_node *spec, const struct mesh_meta *meta);
/* The `mesh` text of the ConfigMap; false with diagnostics when it is not YAML or has values that cannot be used. */
bool read_mesh_config(struct arena *a, const struct pb_node *object, struct str file, struct mesh_config *out, struct diags *d);

#endif
