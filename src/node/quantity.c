/* Exact in 128-bit integers of 10^-9: what the API allows as the finest grain ("n"). */
#include "node/quantity.h"

static const struct {
        const char *suffix;
        unsigned base, exponent; /* base^exponent, in units of 1 */
        int tens;                /* or 10^tens */
} suffixes[] = {
        { "", 0, 0, 0 },      { "n", 0, 0, -9 },    { "u", 0, 0, -6 },    { "m", 0, 0, -3 },    { "k", 0, 0, 3 },     { "M", 0, 0, 6 },
        { "G", 0, 0, 9 },     { "T", 0, 0, 12 },    { "P", 0, 0, 15 },    { "E", 0, 0, 18 },    { "Ki", 1024, 1, 0 }, { "Mi", 1024, 2, 0 },
        { "Gi", 1024, 3, 0 }, { "Ti", 1024, 4, 0 }, { "Pi", 1024, 5, 0 }, { "Ei", 1024, 6, 0 },
};

static bool scale_tens(__int128 *v, int tens)
{
        for (; tens > 0; tens--) {
                if (*v > ((__int128)1 << 120) / 10)
                        return false;
                *v *= 10;
        }
        for (; tens < 0; tens++)
                *v = (*v + (*v > 0 ? 9 : 0)) / 10; /* rounds up, as the API does */
        return true;
}

static bool scale(__int128 *v, struct str suffix)
{
        int64_t tens;

        for (unsigned i = 0; i < sizeof(suffixes) / sizeof(suffixes[0]); i++) {
                if (!str_eqc(suffix, suffixes[i].suffix))
                        continue;
                for (unsigned e = 0; e < suffixes[i].exponent; e++) {
                        if (*v > ((__int128)1 << 120) / 1024)
                                return false;
                        *v *= 1024;
                }
                return scale_tens(v, suffixes[i].tens);
        }
        if (suffix.n > 1 && (suffix.p[0] == 'e' || suffix.p[0] == 'E')) {
                struct str number = str_sub(suffix, suffix.p[1] == '+' ? 2 : 1, suffix.n);
                return str_i64(number, &tens) && tens >= -18 && tens <= 18 && scale_tens(v, (int)tens);
        }
        return false;
}

bool quantity_parse(struct str s, int64_t *milli)
{
        __int128 v = 0;
        bool negative = s.n && s.p[0] == '-', any = false;
        int fraction = -1;
        size_t i = s.n && (s.p[0] == '-' || s.p[0] == '+');

        for (; i < s.n; i++) {
                if (s.p[i] == '.' && fraction < 0) {
                        fraction = 0;
                        continue;
                }
                if (s.p[i] < '0' || s.p[i] > '9')
                        break;
                any = true;
                if (fraction >= 9)
                        continue; /* finer than the finest grain */
                if (v > ((__int128)1 << 90))
                        return false;
                v = v * 10 + (s.p[i] - '0');
                if (fraction >= 0)
                        fraction++;
        }
        if (!any || !scale_tens(&v, 9 - (fraction > 0 ? fraction : 0)) || !scale(&v, str_sub(s, i, s.n)))
                return false;
        v = (v + 999999) / 1000000;
        if (v > INT64_MAX)
                v = INT64_MAX;
        *milli = negative ? -(int64_t)v : (int64_t)v;
        return true;
}
