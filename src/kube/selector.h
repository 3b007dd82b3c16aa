/* Label selectors (equality and sets) and field selectors, in Kubernetes' query syntax and as LabelSelector objects. */
#ifndef KUBE_SELECTOR_H
#define KUBE_SELECTOR_H

#include "base/arena.h"
#include "pb/pb.h"

enum kube_sel_op { KUBE_SEL_IN, KUBE_SEL_NOT_IN, KUBE_SEL_EXISTS, KUBE_SEL_NOT_EXISTS, KUBE_SEL_GREATER, KUBE_SEL_LESS };

struct kube_sel_term {
        struct str key;
        enum kube_sel_op op;
        struct str *v; /* IN, NOT_IN: the set; GREATER, LESS: one number */
        size_t n;
};

enum { KUBE_SEL_MAX_TERMS = 64, KUBE_SEL_MAX_VALUES = 256 };

struct kube_selector { /* all terms must hold; no term: everything matches */
        struct kube_sel_term *t;
        size_t n;
};

/* "a=b,c!=d,e in (f,g),h notin (i),j,!k,l>3". On error false, *why says what is wrong. Parts of `text` are kept. */
bool kube_labels_parse(struct str text, struct arena *a, struct kube_selector *s, struct str *why);
/* A LabelSelector object: {matchLabels, matchExpressions}. NULL matches nothing in Kubernetes: the caller decides. */
bool kube_labels_from_node(const struct pb_node *selector, struct arena *a, struct kube_selector *s, struct str *why);
/* A plain map, as in Service.spec.selector. */
void kube_labels_from_map(const struct pb_node *map, struct arena *a, struct kube_selector *s);
bool kube_labels_match(const struct kube_selector *s, const struct pb_node *labels); /* labels may be NULL */

/* "metadata.name=a,spec.nodeName!=b". `allowed`: the kind's fields besides metadata.name and metadata.namespace, space-separated. */
bool kube_fields_parse(struct str text, const char *allowed, struct arena *a, struct kube_selector *s, struct str *why);
bool kube_fields_match(const struct kube_selector *s, const struct pb_node *object);
/* The value that metadata.name must have, or {NULL,0}: lets a list or watch look at one object. */
struct str kube_fields_name(const struct kube_selector *s);

/* "must be no more than 63 characters", … or NULL when fine. RFC 1123 label and subdomain, RFC 1035 label; qualified names for keys. */
const char *kube_check_dns_label(struct str s);
const char *kube_check_dns1035_label(struct str s);
const char *kube_check_dns_subdomain(struct str s);
const char *kube_check_label_value(struct str s);
const char *kube_check_qualified_name(struct str s);

#endif
