/* Never blocks and never fails towards the container: what a full disk does not take is counted, and said once there is room again. */
#include "node/ctrlog.h"
#include "base/clock.h"
#include "base/mem.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

static const char *const stream_names[] = { "stdout", "stderr" };

int ctrlog_open(struct ctrlog *l, const char *path, uint64_t max_bytes)
{
        struct stat st;

        *l = (struct ctrlog){ .path = mem_strdup(path), .max_bytes = max_bytes ? max_bytes : CTRLOG_FILE_BYTES };
        l->fd = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
        if (l->fd < 0) {
                int err = -errno;
                free(l->path);
                return err;
        }
        l->size = fstat(l->fd, &st) == 0 ? (uint64_t)st.st_size : 0;
        return 0;
}

static void ctrlog_rotate(struct ctrlog *l)
{
        for (int i = CTRLOG_FILES - 1; i > 0; i--) {
                char *from = i == 1 ? mem_strdup(l->path) : mem_printf("%s.%d", l->path, i - 1), *to = mem_printf("%s.%d", l->path, i);
                rename(from, to);
                free(from);
                free(to);
        }
        int fd = open(l->path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0640);
        if (fd < 0)
                return;
        close(l->fd);
        l->fd = fd;
        l->size = 0;
}

static void ctrlog_record(struct ctrlog *l, enum ctrlog_stream s, bool partial, struct str text)
{
        char head[80];
        size_t n = clock_rfc3339(clock_real_us(), 6, head);

        n += (size_t)snprintf(head + n, sizeof(head) - n, " %s %c ", stream_names[s], partial ? 'P' : 'F');
        struct iovec iov[] = { { head, n }, { (char *)text.p, text.n }, { "\n", 1 } };
        size_t all = n + text.n + 1;
        if (l->size + all > l->max_bytes && l->size)
                ctrlog_rotate(l);
        ssize_t wrote = writev(l->fd, iov, 3);
        if (wrote == (ssize_t)all) {
                l->size += all;
                return;
        }
        /* Half a record would glue itself to the next one. */
        l->dropped += all;
        if (wrote > 0 && ftruncate(l->fd, (off_t)l->size) < 0)
                l->size += (uint64_t)wrote;
}

void ctrlog_write(struct ctrlog *l, enum ctrlog_stream s, struct str bytes)
{
        struct buf *line = &l->line[s];

        while (bytes.n) {
                ptrdiff_t end = str_chr(bytes, '\n');
                size_t n = end < 0 ? bytes.n : (size_t)end;
                if (line->n + n > CTRLOG_LINE_MAX) {
                        n = CTRLOG_LINE_MAX - line->n;
                        buf_append(line, bytes.p, n);
                        bytes = str_sub(bytes, n, bytes.n);
                        ctrlog_record(l, s, true, buf_view(line));
                        line->n = 0;
                        continue;
                }
                if (end < 0) {
                        buf_append(line, bytes.p, n);
                        return;
                }
                if (line->n) {
                        buf_append(line, bytes.p, n);
                        ctrlog_record(l, s, false, buf_view(line));
                        line->n = 0;
                } else {
                        ctrlog_record(l, s, false, str_sub(bytes, 0, n));
                }
                bytes = str_sub(bytes, n + 1, bytes.n);
        }
}

void ctrlog_close(struct ctrlog *l)
{
        for (int s = 0; s < 2; s++) {
                if (l->line[s].n)
                        ctrlog_record(l, (enum ctrlog_stream)s, true, buf_view(&l->line[s]));
                buf_fini(&l->line[s]);
        }
        close(l->fd);
        free(l->path);
}

bool ctrlog_parse(struct str line, struct ctrlog_record *r)
{
        struct str stream, tag;

        if (!str_next(&line, ' ', &r->time) || !str_next(&line, ' ', &stream) || !str_next(&line, ' ', &tag) || !line.p)
                return false;
        if (!clock_parse_rfc3339(r->time, &r->time_us) || tag.n != 1 || (tag.p[0] != 'F' && tag.p[0] != 'P'))
                return false;
        if (!str_eqc(stream, "stdout") && !str_eqc(stream, "stderr"))
                return false;
        r->stream = str_eqc(stream, "stdout") ? CTRLOG_STDOUT : CTRLOG_STDERR;
        r->partial = tag.p[0] == 'P';
        r->text = line;
        return true;
}
