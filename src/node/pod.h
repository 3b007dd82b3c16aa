/* Pods and their containers: what is inside of a node. Everything here runs on the node's loop.
 *
 * A pod is driven by one function, pod_sync(), which looks at what is and does the next thing; everything that happens (an object changed,
 * a container ended, a probe answered, a timer rang) only records itself and calls pod_touch(). */
#ifndef NODE_POD_H
#define NODE_POD_H

#include "base/hash.h"
#include "kube/client.h"
#include "net/loop.h"
#include "node/ipam.h"
#include "node/network.h"
#include "node/node.h"
#include "node/rootfs.h"
#include "node/shim.h"
#include "node/spec.h"
#include "node/volume.h"

struct pod;
struct ctr;
struct dns_server;
struct internet;
struct kubelet;
struct http_fetch;
struct tcp_try;
struct exec_job;

struct node {
        struct loop *loop;
        char *name, *node_name, *run_dir, *state_dir, *domain, *binary, *runtime_root;
        struct str host_ip; /* text of the gateway's address */
        struct network net;
        struct ipam ipam;
        struct rootfs_base base;
        struct kube_client *client;
        struct kube_informer *pods, *services, *slices, *configmaps, *secrets, *namespaces;
        struct strmap by_uid; /* struct pod */
        struct dns_server *dns;
        struct internet *internet;
        struct kubelet *kubelet;
        struct loop_timer services_timer, heartbeat, adopt;
        struct loop_task services_task;
        void (*on_ready)(void *arg);
        void *on_ready_arg;
        bool registered, ready_told, no_cgroup, closing;
        uint64_t started_us;
        int64_t cpu_milli, memory_bytes;
};

/* ---- probes ---- */

enum probe_use { PROBE_STARTUP, PROBE_READINESS, PROBE_LIVENESS, PROBE_USES };

struct probe {
        struct ctr *ctr;
        enum probe_use use;
        struct loop_timer timer;
        struct http_fetch *fetch; /* the try under way: one of these three */
        struct tcp_try *tcp;
        struct exec_job *exec;
        unsigned successes, failures; /* in a row */
        unsigned tries;
        bool running, passed; /* passed: the threshold of successes was reached */
};

void probe_start(struct ctr *c, enum probe_use use); /* nothing without such a probe */
void probe_stop(struct ctr *c, enum probe_use use);

/* ---- containers ---- */

enum ctr_kind { CTR_INIT, CTR_SIDECAR /* init container with restartPolicy Always */, CTR_MAIN };
enum ctr_state { CTR_WAITING, CTR_STARTING, CTR_RUNNING, CTR_EXITED };

struct ctr_end {
        int exit_code, signal;
        uint64_t started_us, finished_us;
        const char *reason; /* static: "Completed", "Error", "OOMKilled", "StartError" */
        char *message, *id; /* owned; may be NULL */
};

struct ctr {
        struct pod *pod;
        char *name;
        enum ctr_kind kind;
        enum ctr_state state;
        unsigned index;   /* in its list of the spec */
        unsigned attempt; /* restartCount of the current, or next, run */
        bool ever_started;
        char *id, *dir; /* of the current attempt */
        uint64_t started_us;
        bool started, ready;     /* the startup gate passed; the readiness probe says yes */
        bool post_started;       /* the postStart hook is done, or there is none */
        const char *wait_reason; /* static; while WAITING */
        char *wait_message;
        struct ctr_end end, last; /* of the current run (EXITED); of the one before */
        bool has_last;
        unsigned backoff_s;
        uint64_t backoff_until_ms;
        bool backoff_said, gate_passed; /* gate: was once far enough for the next container to start */
        struct loop_timer backoff_timer, kill_timer;
        struct loop_watch shim; /* a connection to the shim: its end is the container's */
        struct loop_child *launcher;
        struct exec_job *hook;
        struct http_fetch *hook_fetch;
        struct probe probe[PROBE_USES];
        bool stopping, stop_sent, hook_running;
        const char *kill_reason; /* static: why we stop it, for the events */
        uint64_t grace_ms, stop_at_ms;
};

const struct pb_node *ctr_spec(const struct ctr *c);
void ctr_init(struct ctr *c, struct pod *p, enum ctr_kind kind, unsigned index);
void ctr_fini(struct ctr *c);
/* Finds a run that an earlier node left. */
void ctr_adopt(struct ctr *c);
/* Makes root, configuration and log, and launches the shim. The state becomes STARTING, or WAITING with a reason. */
void ctr_start(struct ctr *c);
/* preStop, SIGTERM, and SIGKILL when the grace is over. Repeating it with a shorter grace shortens it. */
void ctr_stop(struct ctr *c, const char *why, uint64_t grace_ms);
void ctr_kill(struct ctr *c, int signo);
void ctr_wait(struct ctr *c, const char *reason, const char *message);
void ctr_remove_files(struct ctr *c, unsigned attempt);
char *ctr_log_path(const struct ctr *c, unsigned attempt);
char *ctr_run_dir(const struct ctr *c, unsigned attempt);
void ctr_end_fini(struct ctr_end *e);

/* ---- short processes in a container, and of the runtime ---- */

struct exec_job;
/* Runs `args` in the running container; fn once, later: the exit code (-1: could not be run, `output` says why; -2: timed out) and the
 * first 10 KiB of its output. */
struct exec_job *exec_start(struct ctr *c, const char *const *args, size_t n, uint64_t timeout_ms,
                            void (*fn)(void *arg, int code, struct str output), void *arg);
void exec_cancel(struct exec_job *j);

/* ---- pods ---- */

struct pod_token;

struct pod {
        struct node *node;
        struct kube_object *obj; /* newest */
        char *uid, *ns, *name;
        struct addr ip;
        struct str ip_text;
        char ip_buf[ADDR_TEXT_MAX];
        char netns[NETNS_PATH_MAX];
        bool have_ip, network_up, volumes_ready, injected, deleting, gone, finished;
        bool mains_begun, final_said, cleaned;
        const char *phase;        /* static; set when finished */
        const char *phase_reason; /* static or NULL */
        char *phase_message;
        struct ctr *v;
        size_t n, ninit; /* all; the first ninit are init containers */
        uint64_t start_us;
        uint64_t stop_deadline_ms;
        struct loop_task sync_task, status_task;
        struct loop_timer retry, status_retry;
        struct pod_token *tokens;
        char *disk_dir, *memory_dir, *log_dir, *ctr_dir, *pod_dir;
        struct strmap events; /* what was said before: counted */
        bool image_event;
        char *status_sent; /* the last status the server took */
        bool status_busy, delete_sent;
        struct strmap condition_times; /* "Ready=True" -> char* time */
};

struct pod *pod_new(struct node *n, struct kube_object *o);
void pod_update(struct pod *p, struct kube_object *o);
void pod_gone(struct pod *p);  /* the object is no more */
void pod_free(struct pod *p);  /* lets go; containers run on */
void pod_touch(struct pod *p); /* pod_sync() at the end of the turn */
struct ctr *pod_ctr(struct pod *p, struct str name);
struct str pod_annotation(void *pod, const char *name);
void pod_config_changed(struct pod *p); /* a ConfigMap or Secret that it uses, or its labels or annotations */
void pod_spec_env(struct pod *p, struct spec_env *env);
void pod_volume_ctx(struct pod *p, struct spec_env *env, struct volume_ctx *x);
/* Are all its processes gone? */
bool pod_stopped(const struct pod *p);
/* Variables of the Services of `ns` ("": only the API server's); of ConfigMaps and Secrets. node.c */
void node_service_env(struct node *n, struct str ns, void (*add)(void *out, struct str name, struct str value), void *out);
const struct pb_node *node_object(struct node *n, const char *kind, struct str ns, struct str name);

/* ---- tokens (token.c) ---- */
bool token_get(struct pod *p, struct str audience, int64_t expiration_s, struct str *token, struct buf *error);
void tokens_free(struct pod *p);

/* ---- what the API server is told (status.c, event.c) ---- */
void status_touch(struct pod *p);
void status_json(struct pod *p, struct buf *out);
void event_pod(struct pod *p, const struct ctr *c, bool warning, const char *reason, const char *fmt, ...)
        __attribute__((format(printf, 5, 6)));
void event_node(struct node *n, bool warning, const char *reason, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
void events_free(struct pod *p);

#endif
