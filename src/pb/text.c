/* Scalars as text: numbers as YAML 1.1 (Go's reader of it, which kubectl uses) and JSON write them, durations, times, base64, names. */
#include "base/base64.h"
#include "base/mem.h"
#include "pb/internal.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static bool is_digit(char c)
{
        return c >= '0' && c <= '9';
}

static int digit_of(char c)
{
        if (is_digit(c))
                return c - '0';
        c = ascii_lower(c);
        return c >= 'a' && c <= 'f' ? c - 'a' + 10 : 99;
}

/* ---- numbers ---- */

/* [-+]? then 0x.., 0o.., 0b.., 0.. (octal) or decimal digits, "_" between digits. False: not of this form, or past 64 bits. */
static bool parse_int(struct str s, bool *negative, uint64_t *v)
{
        unsigned base = 10;
        size_t i = 0, digits = 0;
        uint64_t x = 0;

        *negative = false;
        if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
                *negative = s.p[i++] == '-';
        if (i + 1 < s.n && s.p[i] == '0') {
                char c = ascii_lower(s.p[i + 1]);

                base = c == 'x' ? 16 : c == 'o' ? 8 : c == 'b' ? 2 : 8;
                i += is_digit(c) || c == '_' ? 1 : 2;
        }
        for (; i < s.n; i++) {
                if (s.p[i] == '_' && digits)
                        continue;
                unsigned dgt = (unsigned)digit_of(s.p[i]);

                if (dgt >= base || x > (UINT64_MAX - dgt) / base)
                        return false;
                x = x * base + dgt;
                digits++;
        }
        *v = x;
        return digits > 0;
}

/* [-+]?(digits)(.digits)?([eE][-+]?digits)? with a digit somewhere, or .inf, .nan, Infinity, NaN. */
static bool float_shape(struct str s, bool *special, double *v)
{
        static const struct {
                const char *name;
                double v;
        } words[] = { { ".inf", HUGE_VAL },  { "+.inf", HUGE_VAL },  { "-.inf", -HUGE_VAL }, { ".Inf", HUGE_VAL },
                      { "+.Inf", HUGE_VAL }, { "-.Inf", -HUGE_VAL }, { ".INF", HUGE_VAL },   { "-.INF", -HUGE_VAL },
                      { ".nan", NAN },       { ".NaN", NAN },        { ".NAN", NAN } };
        size_t i = 0, digits = 0;

        *special = false;
        for (size_t k = 0; k < ARRAY_LEN(words); k++)
                if (str_eqc(s, words[k].name)) {
                        *special = true;
                        *v = words[k].v;
                        return true;
                }
        if (s.n && (s.p[0] == '-' || s.p[0] == '+'))
                i++;
        for (; i < s.n && is_digit(s.p[i]); i++)
                digits++;
        if (i < s.n && s.p[i] == '.')
                for (i++; i < s.n && is_digit(s.p[i]); i++)
                        digits++;
        if (!digits)
                return false;
        if (i < s.n && ascii_lower(s.p[i]) == 'e') {
                i++;
                if (i < s.n && (s.p[i] == '-' || s.p[i] == '+'))
                        i++;
                if (i == s.n)
                        return false;
                while (i < s.n && is_digit(s.p[i]))
                        i++;
        }
        return i == s.n;
}

bool pb_text_is_number(struct str s)
{
        bool flag;
        double d;
        uint64_t v;

        if (!s.n || s.n > 400)
                return false;
        if (parse_int(s, &flag, &v))
                return true;
        /* Past what a double holds it is only text. */
        return float_shape(s, &flag, &d) && (flag || pb_text_double(s, &d));
}

bool pb_text_double(struct str s, double *v)
{
        bool special, negative;
        uint64_t u;
        char text[512];

        if (!s.n || s.n >= sizeof(text))
                return false;
        if (float_shape(s, &special, v)) {
                if (special)
                        return true;
                memcpy(text, s.p, s.n);
                text[s.n] = '\0';
                /* A leading 0 means octal to the integer reader; a plain "010" in a number field is 8 there and here. */
                if (!(parse_int(s, &negative, &u) && s.n > 1 && memchr("-+0", text[0], 3) && !memchr(text, '.', s.n))) {
                        *v = strtod(text, NULL);
                        return isfinite(*v);
                }
        }
        if (!parse_int(s, &negative, &u))
                return false;
        *v = negative ? -(double)u : (double)u;
        return true;
}

/* "1e3", "2.0": proto3-JSON takes them where an integer is wanted, as long as they are one. */
static bool integral_double(struct str s, double *v)
{
        bool special;

        return float_shape(s, &special, v) && !special && pb_text_double(s, v) && trunc(*v) == *v && fabs(*v) <= 9007199254740992.0;
}

bool pb_text_i64(struct str s, int64_t *v)
{
        bool negative;
        uint64_t u;
        double d;

        if (s.n > 400)
                return false;
        if (parse_int(s, &negative, &u)) {
                if (u > (uint64_t)INT64_MAX + negative)
                        return false;
                *v = negative ? (int64_t)(0 - u) : (int64_t)u;
                return true;
        }
        if (!integral_double(s, &d))
                return false;
        *v = (int64_t)d;
        return true;
}

bool pb_text_u64(struct str s, uint64_t *v)
{
        bool negative;
        double d;

        if (s.n > 400)
                return false;
        if (parse_int(s, &negative, v))
                return !negative || *v == 0;
        if (!integral_double(s, &d) || d < 0)
                return false;
        *v = (uint64_t)d;
        return true;
}

bool pb_text_bool(struct str s, bool *v)
{
        static const char *const yes[] = { "true", "yes", "on", "y" }, *const no[] = { "false", "no", "off", "n" };
        char lower[6];

        if (!s.n || s.n > 5)
                return false;
        for (size_t i = 0; i < s.n; i++)
                lower[i] = ascii_lower(s.p[i]);
        /* Three spellings: "yes", "Yes", "YES". */
        for (size_t i = 1; i < s.n; i++) {
                bool first_low = s.p[0] == lower[0], second_low = s.p[1] == lower[1], low = s.p[i] == lower[i];

                if (low != second_low || (first_low && !low))
                        return false;
        }
        for (size_t i = 0; i < ARRAY_LEN(yes); i++)
                if (str_eqc(str_make(lower, s.n), yes[i]) || str_eqc(str_make(lower, s.n), no[i])) {
                        *v = str_eqc(str_make(lower, s.n), yes[i]);
                        return true;
                }
        return false;
}

bool pb_text_null(struct str s)
{
        return s.n == 0 || str_eqc(s, "~") || str_eqc(s, "null") || str_eqc(s, "Null") || str_eqc(s, "NULL");
}

void pb_double_print(double v, struct buf *out)
{
        char text[40];

        if (v == trunc(v) && fabs(v) < 1e15) {
                buf_printf(out, "%s%.0f", v == 0 && signbit(v) ? "-" : "", fabs(v) == 0 ? 0.0 : v);
                return;
        }
        for (int digits = 15; digits <= 17; digits++) {
                snprintf(text, sizeof(text), "%.*g", digits, v);
                if (strtod(text, NULL) == v)
                        break;
        }
        buf_cstr(out, text);
}

void pb_float_print(float v, struct buf *out)
{
        char text[40];

        for (int digits = 6; digits <= 9; digits++) {
                snprintf(text, sizeof(text), "%.*g", digits, (double)v);
                if (strtof(text, NULL) == v)
                        break;
        }
        buf_cstr(out, text);
}

/* ---- durations and times ---- */

enum { NANOS = 1000000000 };
#define DURATION_S_MAX 315576000000LL

/* "1.5s", at most nine digits of a fraction (proto3-JSON). */
static bool duration_seconds(struct str s, int64_t *seconds, int32_t *nanos)
{
        bool negative = s.n && s.p[0] == '-';
        size_t i = negative, digits = 0;
        int64_t sec = 0;
        int32_t ns = 0, unit = NANOS / 10;

        if (s.n < 2 || s.p[s.n - 1] != 's')
                return false;
        for (; is_digit(s.p[i]); i++, digits++) {
                sec = sec * 10 + (s.p[i] - '0');
                if (sec > DURATION_S_MAX)
                        return false;
        }
        if (s.p[i] == '.')
                for (i++; is_digit(s.p[i]); i++, digits++) {
                        if (!unit)
                                return false;
                        ns += unit * (s.p[i] - '0');
                        unit /= 10;
                }
        if (!digits || i != s.n - 1)
                return false;
        *seconds = negative ? -sec : sec;
        *nanos = negative ? -ns : ns;
        return true;
}

/* "1h30m", "250ms": Go's time.ParseDuration, which Istio and Kubernetes read durations with. */
static bool duration_go(struct str s, int64_t *seconds, int32_t *nanos)
{
        static const struct {
                const char *unit;
                double ns;
        } units[] = { { "ns", 1 },   { "us", 1e3 }, { "\xc2\xb5s", 1e3 }, { "\xce\xbcs", 1e3 },
                      { "ms", 1e6 }, { "s", 1e9 },  { "m", 60e9 },        { "h", 3600e9 } };
        bool negative = s.n && s.p[0] == '-';
        size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+');
        long double total = 0;

        if (str_eqc(str_sub(s, i, s.n), "0")) {
                *seconds = *nanos = 0;
                return true;
        }
        if (i == s.n || s.n > 64)
                return false;
        while (i < s.n) {
                long double v = 0, scale = 1;
                size_t digits = 0, k;

                for (; i < s.n && is_digit(s.p[i]); i++, digits++)
                        v = v * 10 + (s.p[i] - '0');
                if (i < s.n && s.p[i] == '.')
                        for (i++; i < s.n && is_digit(s.p[i]); i++, digits++)
                                v += (s.p[i] - '0') * (scale /= 10);
                size_t end = i;

                while (end < s.n && !is_digit(s.p[end]) && s.p[end] != '.')
                        end++;
                struct str unit = str_sub(s, i, end - i);

                for (k = 0; k < ARRAY_LEN(units) && !str_eqc(unit, units[k].unit); k++)
                        ;
                if (!digits || k == ARRAY_LEN(units))
                        return false;
                total += v * (long double)units[k].ns;
                if (total > 9223372036854775807.0L)
                        return false;
                i = end;
        }
        int64_t ns = (int64_t)(total + 0.5L);

        *seconds = (negative ? -1 : 1) * (ns / NANOS);
        *nanos = (int32_t)((negative ? -1 : 1) * (ns % NANOS));
        return true;
}

bool pb_text_duration(struct str s, bool go, int64_t *seconds, int32_t *nanos)
{
        return duration_seconds(s, seconds, nanos) || (go && duration_go(s, seconds, nanos));
}

/* 0, 3, 6 or 9 digits of a fraction. */
static void fraction_print(int32_t ns, struct buf *out)
{
        uint32_t n = ns < 0 ? (uint32_t)-ns : (uint32_t)ns;

        n %= NANOS;
        if (!n)
                return;
        if (n % 1000000 == 0)
                buf_printf(out, ".%03u", n / 1000000);
        else if (n % 1000 == 0)
                buf_printf(out, ".%06u", n / 1000);
        else
                buf_printf(out, ".%09u", n);
}

void pb_duration_print(int64_t seconds, int32_t nanos, struct buf *out)
{
        if (seconds < 0 || nanos < 0)
                buf_char(out, '-');
        buf_u64(out, seconds < 0 ? 0 - (uint64_t)seconds : (uint64_t)seconds);
        fraction_print(nanos, out);
        buf_char(out, 's');
}

/* Days since 1970-01-01 of a date of the proleptic Gregorian calendar, counting years from March so that a leap day is a year's last. */
static int64_t days_of(int64_t y, int m, int d)
{
        y -= m <= 2;
        int64_t era = (y >= 0 ? y : y - 399) / 400, yoe = y - era * 400;
        int64_t doy = (153 * (m + (m > 2 ? -3 : 9)) + 2) / 5 + d - 1, doe = yoe * 365 + yoe / 4 - yoe / 100 + doy;

        return era * 146097 + doe - 719468;
}

static void date_of(int64_t days, int64_t *y, int *m, int *d)
{
        days += 719468;
        int64_t era = (days >= 0 ? days : days - 146096) / 146097, doe = days - era * 146097;
        int64_t yoe = (doe - doe / 1460 + doe / 36524 - doe / 146096) / 365, doy = doe - (365 * yoe + yoe / 4 - yoe / 100);
        int64_t mp = (5 * doy + 2) / 153;

        *d = (int)(doy - (153 * mp + 2) / 5 + 1);
        *m = (int)(mp < 10 ? mp + 3 : mp - 9);
        *y = yoe + era * 400 + (*m <= 2);
}

static bool two(const char *p, int lo, int hi, int *v)
{
        if (!is_digit(p[0]) || !is_digit(p[1]))
                return false;
        *v = (p[0] - '0') * 10 + p[1] - '0';
        return *v >= lo && *v <= hi;
}

/* RFC 3339 §5.6, years 0001 to 9999. */
bool pb_text_time(struct str s, int64_t *seconds, int32_t *nanos)
{
        static const int month_days[] = { 31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };
        int c, y, mon, d, h, min, sec, oh = 0, om = 0;
        int32_t ns = 0, unit = NANOS / 10;
        size_t i = 19;

        if (s.n < 20 || s.n > 64 || !two(s.p, 0, 99, &c) || !two(s.p + 2, 0, 99, &y) || s.p[4] != '-' || !two(s.p + 5, 1, 12, &mon) ||
            s.p[7] != '-' || !two(s.p + 8, 1, 31, &d) || (s.p[10] != 'T' && s.p[10] != 't') || !two(s.p + 11, 0, 23, &h) ||
            s.p[13] != ':' || !two(s.p + 14, 0, 59, &min) || s.p[16] != ':' || !two(s.p + 17, 0, 60, &sec))
                return false;
        y += c * 100;
        bool leap = (y % 4 == 0 && y % 100 != 0) || y % 400 == 0;

        if (y == 0 || d > month_days[mon - 1] || (mon == 2 && d == 29 && !leap))
                return false;
        if (s.p[i] == '.') {
                for (i++; i < s.n && is_digit(s.p[i]); i++, unit /= 10)
                        ns += unit * (s.p[i] - '0');
                if (!is_digit(s.p[i - 1]))
                        return false;
        }
        struct str zone = str_sub(s, i, s.n);

        if (zone.n == 6 && (zone.p[0] == '+' || zone.p[0] == '-')) {
                if (!two(zone.p + 1, 0, 23, &oh) || zone.p[3] != ':' || !two(zone.p + 4, 0, 59, &om))
                        return false;
                if (zone.p[0] == '-') {
                        oh = -oh;
                        om = -om;
                }
        } else if (!(zone.n == 1 && (zone.p[0] == 'Z' || zone.p[0] == 'z'))) {
                return false;
        }
        *seconds = days_of(y, mon, d) * 86400 + h * 3600 + min * 60 + sec - oh * 3600 - om * 60;
        *nanos = ns;
        return true;
}

void pb_time_print(int64_t seconds, int32_t nanos, int frac, struct buf *out)
{
        int64_t y, days = seconds / 86400, rest = seconds % 86400;
        int m, d;

        /* Years past what the form can hold would come from a broken peer; the nearest that it can. */
        if (seconds < -62135596800 || seconds > 253402300799) {
                pb_time_print(seconds < 0 ? -62135596800 : 253402300799, 0, frac, out);
                return;
        }
        if (rest < 0) {
                rest += 86400;
                days--;
        }
        date_of(days, &y, &m, &d);
        buf_printf(out, "%04d-%02d-%02dT%02d:%02d:%02d", (int)y, m, d, (int)(rest / 3600), (int)(rest / 60 % 60), (int)(rest % 60));
        if (frac == 6)
                buf_printf(out, ".%06d", (nanos < 0 ? 0 : nanos % NANOS) / 1000);
        else if (frac < 0)
                fraction_print(nanos, out);
        buf_char(out, 'Z');
}

/* ---- base64, UTF-8, names ---- */

/* Both alphabets of RFC 4648, padding optional (proto3-JSON). */
bool pb_text_base64(struct str s, struct arena *a, uint8_t **p, size_t *n)
{
        size_t len = s.n;

        while (len && s.n - len < 2 && s.p[len - 1] == '=')
                len--;
        if (len % 4 == 1 || (len != s.n && s.n % 4 != 0))
                return false;
        *p = arena_alloc(a, len / 4 * 3 + 3);
        return base64_decode(str_make(s.p, len), BASE64_STANDARD | BASE64_URL, *p, n);
}

bool pb_utf8_valid(struct str s)
{
        const unsigned char *p = (const unsigned char *)s.p, *end = p + s.n;

        while (p < end) {
                if (*p < 0x80) {
                        p++;
                        continue;
                }
                unsigned more = *p >= 0xf0 ? 3 : *p >= 0xe0 ? 2 : 1;
                uint32_t c = *p & (0x3fu >> more), least = more == 3 ? 0x10000 : more == 2 ? 0x800 : 0x80;

                if (*p < 0xc2 || *p > 0xf4 || (size_t)(end - p) <= more)
                        return false;
                for (unsigned i = 1; i <= more; i++) {
                        if ((p[i] & 0xc0) != 0x80)
                                return false;
                        c = c << 6 | (p[i] & 0x3f);
                }
                if (c < least || c > 0x10ffff || (c >= 0xd800 && c <= 0xdfff))
                        return false;
                p += more + 1;
        }
        return true;
}

void pb_camel(const char *snake, char *out)
{
        for (bool up = false; *snake; snake++) {
                if (*snake == '_') {
                        up = true;
                        continue;
                }
                *out++ = up && *snake >= 'a' && *snake <= 'z' ? (char)(*snake - 32) : *snake;
                up = false;
        }
        *out = '\0';
}

void pb_snake(struct str camel, struct buf *out)
{
        for (size_t i = 0; i < camel.n; i++) {
                char c = camel.p[i];

                if (c >= 'A' && c <= 'Z') {
                        buf_char(out, '_');
                        c = ascii_lower(c);
                }
                buf_char(out, c);
        }
}
