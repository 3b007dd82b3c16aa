/* Envoy's substitution format strings ("%REQ(X?Y):Z%"): compiled once into a list of operations, rendered many times. Used by access
 * logs, header values, direct response bodies and reasons. An operator that we do not know is an error that names it. */
#ifndef PROXY_FORMAT_H
#define PROXY_FORMAT_H

#include "base/diag.h"
#include "proxy/stream_info.h"

struct format; /* immutable, shareable between threads */
struct Gp__Struct;

/* NULL with diagnostics. `omit_empty`: what is absent renders as "" rather than "-" (omit_empty_values; header values use true). */
struct format *format_compile(struct str text, bool omit_empty, const struct diag_at *at, struct diags *d);
void format_free(struct format *f);
void format_render(const struct format *f, const struct stream_info *si, struct buf *out);
/* The text when it has no operators at all (nothing to render per request). */
bool format_is_literal(const struct format *f, struct str *text);
/* True when some operator had no value during this rendering: for headers, which are then not added at all when the whole value is one
 * operator (Envoy's keep_empty_value rule). */
bool format_render_value(const struct format *f, const struct stream_info *si, struct buf *out);

/* json_format: a Struct whose strings are formats. One line, a newline behind it; numeric operators alone in a string become numbers,
 * absent ones null (or are left out with omit_empty); keys sorted with sort_properties. */
struct format_json;
struct format_json *format_json_compile(const struct Gp__Struct *s, bool omit_empty, bool sort, const struct diag_at *at, struct diags *d);
void format_json_free(struct format_json *f);
void format_json_render(const struct format_json *f, const struct stream_info *si, struct buf *out);

#endif
