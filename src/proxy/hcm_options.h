/* Protocol options that downstream and upstream connections share. */
#ifndef PROXY_HCM_OPTIONS_H
#define PROXY_HCM_OPTIONS_H

#include "base/diag.h"
#include "http/http.h"

struct Xds__HttpProtocolOptions;
struct Xds__Http1ProtocolOptions;
struct Xds__Http2ProtocolOptions;

void hcm_common_options(struct http_opts *o, const struct Xds__HttpProtocolOptions *p);
void hcm_h1_options(struct http_opts *o, const struct Xds__Http1ProtocolOptions *p, const struct diag_at *at, struct diags *d,
                    struct arena *a);
void hcm_h2_options(struct http_opts *o, const struct Xds__Http2ProtocolOptions *p, const struct diag_at *at, struct diags *d,
                    struct arena *a);

#endif
