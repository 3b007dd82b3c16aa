#include "base/clock.h"

#include <string.h>
#include <time.h>

static uint64_t ns_of(clockid_t id)
{
        struct timespec ts;

        clock_gettime(id, &ts);
        return (uint64_t)ts.tv_sec * 1000000000u + (uint64_t)ts.tv_nsec;
}

uint64_t clock_mono_ns(void)
{
        return ns_of(CLOCK_MONOTONIC);
}

uint64_t clock_mono_us(void)
{
        return clock_mono_ns() / 1000;
}

uint64_t clock_mono_ms(void)
{
        return clock_mono_ns() / 1000000;
}

uint64_t clock_real_us(void)
{
        return ns_of(CLOCK_REALTIME) / 1000;
}

int64_t clock_real_s(void)
{
        return (int64_t)(clock_real_us() / 1000000);
}

size_t clock_rfc3339(uint64_t real_us, unsigned frac, char *out)
{
        /* The second of the line before, which in a busy log is mostly that of this one. */
        static _Thread_local struct {
                time_t t;
                size_t n;
                char text[32];
        } last;
        time_t t = (time_t)(real_us / 1000000);

        if (!last.n || last.t != t) {
                struct tm tm;

                gmtime_r(&t, &tm);
                last.n = strftime(last.text, sizeof(last.text), "%Y-%m-%dT%H:%M:%S", &tm);
                last.t = t;
        }
        size_t n = last.n;

        memcpy(out, last.text, n);

        if (frac) {
                char us[] = "000000000";
                unsigned v = (unsigned)(real_us % 1000000);

                for (unsigned i = 6; i--; v /= 10)
                        us[i] = (char)('0' + v % 10);
                if (frac > 9)
                        frac = 9;
                out[n++] = '.';
                memcpy(out + n, us, frac);
                n += frac;
        }
        out[n++] = 'Z';
        out[n] = '\0';
        return n;
}

static bool digits(struct str *s, unsigned n, int *v)
{
        *v = 0;
        if (s->n < n)
                return false;
        for (unsigned i = 0; i < n; i++) {
                if (s->p[i] < '0' || s->p[i] > '9')
                        return false;
                *v = *v * 10 + (s->p[i] - '0');
        }
        *s = str_sub(*s, n, s->n);
        return true;
}

static bool lit(struct str *s, const char *any)
{
        if (!s->n || !strchr(any, s->p[0]))
                return false;
        *s = str_sub(*s, 1, s->n);
        return true;
}

bool clock_parse_rfc3339(struct str s, uint64_t *real_us)
{
        struct tm tm = { 0 };
        int y, us = 0, off = 0;

        if (!digits(&s, 4, &y) || !lit(&s, "-") || !digits(&s, 2, &tm.tm_mon) || !lit(&s, "-") || !digits(&s, 2, &tm.tm_mday) ||
            !lit(&s, "Tt ") || !digits(&s, 2, &tm.tm_hour) || !lit(&s, ":") || !digits(&s, 2, &tm.tm_min) || !lit(&s, ":") ||
            !digits(&s, 2, &tm.tm_sec))
                return false;
        if (lit(&s, ".")) {
                int scale = 100000, any = 0;

                while (s.n && s.p[0] >= '0' && s.p[0] <= '9') {
                        us += (s.p[0] - '0') * scale;
                        scale /= 10;
                        any = 1;
                        s = str_sub(s, 1, s.n);
                }
                if (!any)
                        return false;
        }
        if (!lit(&s, "Zz")) {
                int h, m;
                bool neg = s.n && s.p[0] == '-';

                if (!lit(&s, "+-") || !digits(&s, 2, &h) || !lit(&s, ":") || !digits(&s, 2, &m))
                        return false;
                off = (h * 60 + m) * 60 * (neg ? -1 : 1);
        }
        if (s.n || tm.tm_mon < 1 || tm.tm_mon > 12 || tm.tm_mday < 1 || tm.tm_mday > 31 || tm.tm_hour > 23 || tm.tm_min > 59 ||
            tm.tm_sec > 60 || y < 1970)
                return false;
        tm.tm_mon--;
        tm.tm_year = y - 1900;
        int64_t t = (int64_t)timegm(&tm) - off;

        if (t < 0)
                return false;
        *real_us = (uint64_t)t * 1000000u + (uint64_t)us;
        return true;
}

void clock_http_date(int64_t real_s, char out[30])
{
        time_t t = (time_t)real_s;
        struct tm tm;

        gmtime_r(&t, &tm);
        strftime(out, 30, "%a, %d %b %Y %H:%M:%S GMT", &tm);
}
