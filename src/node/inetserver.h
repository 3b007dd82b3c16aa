/* The process that plays the Internet: gunicorn serving httpbin on port 80 of every address, and in front of it our own TLS and HTTP/2 on
 * port 443. Runs in the namespace postern-NAME.inet. */
#ifndef NODE_INETSERVER_H
#define NODE_INETSERVER_H

#include "base/diag.h"
#include "net/loop.h"

struct inetserver;

struct inetserver_opts {
        struct str cert_pem, key_pem;
        uint16_t http_port, https_port; /* 0: 80 and 443 */
};

struct inetserver *inetserver_new(struct loop *l, const struct inetserver_opts *o, struct diags *d);
void inetserver_free(struct inetserver *s);

#endif
