/* Resources from a file (path_config_source). Envoy's rule: the file counts when it is moved into place; we also take one that was closed
 * after writing. The directory is watched, not the file, so that a new file under the name is seen. */
#include "base/log.h"
#include "base/mem.h"
#include "pb/pb.h"
#include "xds/decode.h"

#include <errno.h>
#include <stdlib.h>
#include <sys/inotify.h>
#include <unistd.h>

enum { FILE_MAX_BYTES = 64 << 20 };

struct xds_file {
        struct loop *loop;
        enum xds_type type;
        char *path, *dir, *base;
        bool any_name; /* watched_directory: whatever moves there */
        struct xds_sink sink;
        struct loop_watch watch;
        struct loop_task task;
        struct xds_stats stats;
        struct xds_warned warned;
};

/* Envoy goes by the ending, too: .json, .yaml, .yml, .pb. */
static const Xds__DiscoveryResponse *parse(struct xds_file *f, struct str text, struct arena *a, struct diags *d)
{
        const ProtobufCMessageDescriptor *t = &xds__discovery_response__descriptor;
        struct str path = str_of(f->path);
        struct diag_at at = { .file = path };
        struct pb_node *n, **docs;
        size_t ndocs;

        if (str_ends(path, STR(".pb"))) {
                const ProtobufCMessage *m = pb_unpack(t, text.p, text.n, a, d);

                if (!m)
                        diag_add(d, DIAG_ERROR, "PST0404", &at, "not a packed DiscoveryResponse");
                return (const Xds__DiscoveryResponse *)m;
        }
        if (str_ends(path, STR(".json"))) {
                if (!pb_parse_json(text, path, a, &n, d))
                        return NULL;
        } else {
                if (!pb_parse_yaml(text, path, a, &docs, &ndocs, d))
                        return NULL;
                if (ndocs != 1) {
                        diag_add(d, DIAG_ERROR, "PST0404", &at, "holds %zu documents; one DiscoveryResponse is needed", ndocs);
                        return NULL;
                }
                n = docs[0];
        }
        return (const Xds__DiscoveryResponse *)pb_from_node(t, n, 0, &at, a, d);
}

static void complain(struct xds_file *f, struct diags *d)
{
        struct buf b = BUF_INIT;

        xds_errors_text(d, &b);
        LOG(LOG_ERROR, "xds", "%s from %s refused, what was there before stays: %s", xds_type_name(f->type), f->path, buf_z(&b));
        buf_fini(&b);
}

static void read_file(struct xds_file *f)
{
        const Xds__DiscoveryResponse *r = NULL;
        struct buf text = BUF_INIT;
        struct xds_update u;
        struct arena a;
        struct diags d;

        arena_init(&a, 65536);
        diags_init(&d);
        f->stats.update_attempt++;
        int rc = buf_read_file(&text, f->path, FILE_MAX_BYTES);
        if (rc < 0) {
                struct diag_at at = { .file = str_of(f->path) };

                diag_add(&d, DIAG_ERROR, "PST0404", &at, "cannot be read: %s", strerror(-rc));
                f->stats.update_failure++;
        } else {
                r = parse(f, buf_view(&text), &a, &d);
                if (!r || !xds_decode(r, f->type, &a, &u, &d)) {
                        f->stats.update_rejected++;
                        r = NULL;
                }
        }
        if (r)
                xds_deliver(&f->sink, &u, &f->stats, &d);
        else if (!f->stats.update_success && f->sink.on_timeout) /* nothing to wait for */
                f->sink.on_timeout(f->sink.arg, f->type, STR(""));
        if (d.errors)
                complain(f, &d);
        xds_warn_once(&f->warned, &d);
        buf_fini(&text);
        diags_fini(&d);
        arena_fini(&a);
}

static void on_first(struct loop_task *t)
{
        read_file(t->arg);
}

static void on_notify(struct loop_watch *w, unsigned ready)
{
        struct xds_file *f = w->arg;
        char buf[4096] __attribute__((aligned(__alignof__(struct inotify_event))));
        bool changed = false;
        ssize_t n;

        while ((n = read(w->fd, buf, sizeof(buf))) > 0) {
                for (char *p = buf; p < buf + n;) {
                        const struct inotify_event *e = (const struct inotify_event *)(void *)p;

                        if (e->mask & IN_Q_OVERFLOW ||
                            (e->len && (f->any_name ? (e->mask & IN_MOVED_TO) != 0 : strcmp(e->name, f->base) == 0)))
                                changed = true;
                        p += sizeof(*e) + e->len;
                }
        }
        if (changed)
                read_file(f);
}

struct xds_file *xds_file_new(struct loop *l, enum xds_type t, struct str path, struct str watched_dir, const struct xds_sink *sink)
{
        struct xds_file *f = MEM_NEW(struct xds_file);
        ptrdiff_t slash = str_rchr(path, '/');

        f->loop = l;
        f->type = t;
        f->path = str_dup(path);
        f->base = str_dup(str_sub(path, (size_t)(slash + 1), path.n));
        f->any_name = watched_dir.n > 0;
        f->dir = watched_dir.n ? str_dup(watched_dir)
                 : slash < 0   ? mem_strdup(".")
                 : slash == 0  ? mem_strdup("/")
                               : str_dup(str_sub(path, 0, (size_t)slash));
        f->sink = *sink;
        f->watch.fd = -1;
        f->task = (struct loop_task){ .fn = on_first, .arg = f };
        int fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
        if (fd < 0 || inotify_add_watch(fd, f->dir, IN_MOVED_TO | IN_CLOSE_WRITE | IN_ONLYDIR) < 0 ||
            loop_watch(l, &f->watch, fd, LOOP_READ | LOOP_LEVEL, on_notify, f) < 0) {
                LOG(LOG_WARN, "xds", "%s cannot be watched (%s): changes of %s will not be seen", f->dir, strerror(errno), f->path);
                if (fd >= 0)
                        close(fd);
        }
        loop_defer(l, &f->task);
        return f;
}

void xds_file_free(struct xds_file *f)
{
        if (!f)
                return;
        int fd = f->watch.fd;
        loop_undefer(f->loop, &f->task);
        if (fd >= 0) {
                loop_unwatch(f->loop, &f->watch);
                close(fd);
        }
        xds_warned_fini(&f->warned);
        xds_stats_fini(&f->stats);
        free(f->path);
        free(f->dir);
        free(f->base);
        free(f);
}

const struct xds_stats *xds_file_stats(const struct xds_file *f)
{
        return &f->stats;
}
