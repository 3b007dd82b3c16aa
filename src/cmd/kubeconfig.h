/* The user's kubeconfig: one cluster, user and context a Postern cluster, named "postern-NAME", merged into what is there. Nothing else
 * in the file is changed; a file that cannot be read as a kubeconfig is left alone. */
#ifndef CMD_KUBECONFIG_H
#define CMD_KUBECONFIG_H

#include "base/diag.h"

struct kubeconfig_entry {
        struct str name;   /* "postern-NAME" */
        struct str server; /* "https://127.0.0.1:PORT" */
        struct str ca_pem, cert_pem, key_pem;
};

/* The file kubectl would write to: in $KUBECONFIG the first that exists, else the last named; without it ~/.kube/config. */
struct str kubeconfig_path(struct arena *a);

/* Adds or replaces the entry, and makes it the current context. Creates the file (mode 0600) and its folder when missing. False with a
 * diagnostic when the file cannot be read, understood or written. */
bool kubeconfig_merge(struct str path, const struct kubeconfig_entry *e, struct diags *d);

/* Whether kubeconfig_merge() is going to work: the file is a kubeconfig or missing, and its folder can be written to. */
bool kubeconfig_check(struct str path, struct diags *d);

/* Removes the entry from every file of $KUBECONFIG (or the default one). When it was the current context, none is afterwards. */
bool kubeconfig_remove(struct str name, struct diags *d);

/* The same entry as a file of its own. */
bool kubeconfig_write_single(struct str path, const struct kubeconfig_entry *e, struct diags *d);

/* The user's home: $HOME, else from the password file. */
struct str kubeconfig_home(struct arena *a);

#endif
