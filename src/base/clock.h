/* Clocks. Monotonic for waiting, realtime for people. */
#ifndef BASE_CLOCK_H
#define BASE_CLOCK_H

#include "base/str.h"

uint64_t clock_mono_ms(void);
uint64_t clock_mono_us(void);
uint64_t clock_mono_ns(void);
uint64_t clock_real_us(void); /* since 1970 */
int64_t clock_real_s(void);

/* "2026-11-24T06:05:00Z" (frac 0), with `frac` digits of a second behind a dot. Returns the length; out holds at least 40. */
size_t clock_rfc3339(uint64_t real_us, unsigned frac, char *out);
/* RFC 3339 to µs since 1970. */
bool clock_parse_rfc3339(struct str s, uint64_t *real_us);
/* "Tue, 24 Nov 2026 06:05:00 GMT" (RFC 9110 §5.6.7): 29 bytes and a NUL. */
void clock_http_date(int64_t real_s, char out[30]);

#endif
