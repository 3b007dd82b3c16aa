/* base64 and base64url (RFC 4648 §4, §5). Padding is the caller's concern when decoding, because the rules about it differ: tokens have
 * none, Kubernetes' files have it, proto3-JSON may. */
#ifndef BASE_BASE64_H
#define BASE_BASE64_H

#include "base/buf.h"

enum { BASE64_STANDARD = 1, BASE64_URL = 2 };

void base64_print(struct buf *out, const void *p, size_t n);    /* standard, padded */
void base64url_print(struct buf *out, const void *p, size_t n); /* without padding */

/* Decodes digits of the given alphabets (BASE64_*, or both) into `out`, which holds at least s.n / 4 * 3 + 2 bytes. No '=' may be left in
 * s; bits that make no whole byte are dropped. False when a character is no digit. */
bool base64_decode(struct str s, unsigned alphabets, void *out, size_t *n);

#endif
