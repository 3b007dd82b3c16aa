/* The cluster's own certificate authority and what it signs, as files of one directory:
 *   ca.crt ca.key                  made once
 *   apiserver.crt apiserver.key    made anew at each start, for the names and addresses of that start
 *   admin.* controller.* node.*    client certificates: system:masters, postern:controllers, system:nodes
 *   *.kubeconfig                   the same with the server's address, for kubectl and our own roles; written at each start
 *   sa.key                         signs service-account tokens; made once
 * Keys are readable by their owner only. Nothing that exists and is good is replaced, but for what is near its end. */
#ifndef KUBE_PKI_H
#define KUBE_PKI_H

#include "base/diag.h"

struct kube_pki {
        struct buf ca_cert, ca_key, server_cert, server_key, sa_key;
};

/* `dns` and `ips`: what the server certificate is for. False with diagnostics. */
bool kube_pki_open(struct kube_pki *p, struct str dir, const struct str *dns, unsigned ndns, const struct str *ips, unsigned nips,
                   struct diags *d);
void kube_pki_fini(struct kube_pki *p);
/* Writes admin.kubeconfig, controller.kubeconfig and node.kubeconfig for a server at `url`. */
bool kube_pki_kubeconfigs(struct str dir, struct str url, struct diags *d);
/* Makes a directory (mode 0700) and those above it. 0, or -errno. */
int kube_make_dirs(const char *path);

#endif
