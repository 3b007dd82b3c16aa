/* The filter is a deny list of calls that only an attacker of the kernel needs in here: everything else is allowed, so that no program
 * breaks, and the kernel caches "always allowed" per call number, so that the proxy pays nothing for it. A new user namespace is
 * refused because it would give back, inside, every capability that the container was not given. */
#include "node/oci.h"
#include "base/mem.h"

#include <errno.h>
#include <sched.h>

static const char *const denied_calls[] = {
        "acct",
        "add_key",
        "bpf",
        "clock_adjtime",
        "clock_settime",
        "create_module",
        "delete_module",
        "fanotify_init",
        "finit_module",
        "fsconfig",
        "fsmount",
        "fsopen",
        "fspick",
        "get_kernel_syms",
        "init_module",
        "io_uring_enter",
        "io_uring_register",
        "io_uring_setup",
        "ioperm",
        "iopl",
        "kexec_file_load",
        "kexec_load",
        "keyctl",
        "lookup_dcookie",
        "mount",
        "mount_setattr",
        "move_mount",
        "name_to_handle_at",
        "nfsservctl",
        "open_by_handle_at",
        "open_tree",
        "perf_event_open",
        "pivot_root",
        "query_module",
        "quotactl",
        "quotactl_fd",
        "reboot",
        "request_key",
        "setdomainname",
        "sethostname",
        "setns",
        "settimeofday",
        "stime",
        "swapoff",
        "swapon",
        "sysfs",
        "umount",
        "umount2",
        "unshare",
        "userfaultfd",
        "uselib",
        "ustat",
        "vm86",
        "vm86old",
};

static const char *const masked_paths[] = {
        "/proc/acpi",        "/proc/asound",      "/proc/kcore", "/proc/keys",    "/proc/latency_stats",           "/proc/timer_list",
        "/proc/timer_stats", "/proc/sched_debug", "/proc/scsi",  "/sys/firmware", "/sys/devices/virtual/powercap", "/usr/local/etc",
};

static const char *const readonly_paths[] = { "/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger" };

static const struct {
        const char *name;
        bool refused; /* with it, a container is the host */
} capabilities[] = {
        { "CAP_AUDIT_CONTROL", true },   { "CAP_AUDIT_READ", true },    { "CAP_AUDIT_WRITE", false },
        { "CAP_BLOCK_SUSPEND", true },   { "CAP_BPF", true },           { "CAP_CHECKPOINT_RESTORE", true },
        { "CAP_CHOWN", false },          { "CAP_DAC_OVERRIDE", false }, { "CAP_DAC_READ_SEARCH", true },
        { "CAP_FOWNER", false },         { "CAP_FSETID", false },       { "CAP_IPC_LOCK", false },
        { "CAP_IPC_OWNER", false },      { "CAP_KILL", false },         { "CAP_LEASE", false },
        { "CAP_LINUX_IMMUTABLE", true }, { "CAP_MAC_ADMIN", true },     { "CAP_MAC_OVERRIDE", true },
        { "CAP_MKNOD", true },           { "CAP_NET_ADMIN", false },    { "CAP_NET_BIND_SERVICE", false },
        { "CAP_NET_BROADCAST", false },  { "CAP_NET_RAW", false },      { "CAP_PERFMON", true },
        { "CAP_SETFCAP", false },        { "CAP_SETGID", false },       { "CAP_SETPCAP", false },
        { "CAP_SETUID", false },         { "CAP_SYS_ADMIN", true },     { "CAP_SYS_BOOT", true },
        { "CAP_SYS_CHROOT", false },     { "CAP_SYS_MODULE", true },    { "CAP_SYS_NICE", false },
        { "CAP_SYS_PACCT", true },       { "CAP_SYS_PTRACE", false },   { "CAP_SYS_RAWIO", true },
        { "CAP_SYS_RESOURCE", false },   { "CAP_SYS_TIME", true },      { "CAP_SYS_TTY_CONFIG", true },
        { "CAP_SYSLOG", true },          { "CAP_WAKE_ALARM", true },
};

const char *oci_capability(struct str name, bool *refused)
{
        *refused = false;
        for (size_t i = 0; i < ARRAY_LEN(capabilities); i++) {
                struct str full = str_of(capabilities[i].name);
                if (!str_eq_nocase(name, full) && !str_eq_nocase(name, str_sub(full, 4, full.n)))
                        continue;
                *refused = capabilities[i].refused;
                return *refused ? NULL : capabilities[i].name;
        }
        *refused = str_eq_nocase(name, STR("ALL"));
        return NULL;
}

static void put_list(struct buf *b, const char *const *v, size_t n)
{
        buf_char(b, '[');
        for (size_t i = 0; i < n; i++) {
                if (i)
                        buf_char(b, ',');
                buf_json(b, str_of(v[i]));
        }
        buf_char(b, ']');
}

static void put_field(struct buf *b, const char *name, const char *value)
{
        buf_printf(b, "\"%s\":", name);
        buf_json(b, str_of(value));
}

static void put_caps(struct buf *b, const struct oci_container *c)
{
        /* Only an ambient set outlives execve(2) for a user that is not root. */
        static const char *const root_sets[] = { "bounding", "effective", "permitted" };
        static const char *const user_sets[] = { "bounding", "effective", "permitted", "inheritable", "ambient" };
        const char *const *sets = c->uid ? user_sets : root_sets;
        size_t n = c->uid ? ARRAY_LEN(user_sets) : ARRAY_LEN(root_sets);

        buf_cstr(b, "\"capabilities\":{");
        for (size_t i = 0; i < n; i++) {
                buf_printf(b, "%s\"%s\":", i ? "," : "", sets[i]);
                put_list(b, c->caps, c->ncaps);
        }
        buf_char(b, '}');
}

void oci_process(const struct oci_container *c, const char *const *args, size_t nargs, bool tty, struct buf *b)
{
        buf_printf(b, "{\"terminal\":%s,\"user\":{\"uid\":%u,\"gid\":%u,\"umask\":18,\"additionalGids\":[", tty ? "true" : "false", c->uid,
                   c->gid);
        for (size_t i = 0; i < c->ngroups; i++)
                buf_printf(b, "%s%u", i ? "," : "", c->groups[i]);
        buf_cstr(b, "]},\"args\":");
        put_list(b, args, nargs);
        buf_cstr(b, ",\"env\":");
        put_list(b, c->env, c->nenv);
        buf_char(b, ',');
        put_field(b, "cwd", c->cwd);
        buf_char(b, ',');
        put_caps(b, c);
        buf_printf(b, ",\"noNewPrivileges\":%s,\"oomScoreAdj\":%d}", c->new_privileges ? "false" : "true", c->oom_score_adj);
}

static void put_mounts(struct buf *b, const struct oci_container *c)
{
        buf_cstr(
                b,
                "\"mounts\":["
                "{\"destination\":\"/usr\",\"type\":\"bind\",\"source\":\"/"
                "usr\",\"options\":[\"bind\",\"ro\",\"nosuid\",\"nodev\",\"rprivate\"]},"
                "{\"destination\":\"/proc\",\"type\":\"proc\",\"source\":\"proc\",\"options\":[\"nosuid\",\"noexec\",\"nodev\"]},"
                "{\"destination\":\"/"
                "dev\",\"type\":\"tmpfs\",\"source\":\"tmpfs\",\"options\":[\"nosuid\",\"strictatime\",\"mode=755\",\"size=65536k\"]},"
                "{\"destination\":\"/dev/"
                "pts\",\"type\":\"devpts\",\"source\":\"devpts\",\"options\":[\"nosuid\",\"noexec\",\"newinstance\","
                "\"ptmxmode=0666\",\"mode=0620\",\"gid=5\"]},"
                "{\"destination\":\"/dev/"
                "shm\",\"type\":\"tmpfs\",\"source\":\"shm\",\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"mode=1777\","
                "\"size=65536k\"]},"
                "{\"destination\":\"/dev/mqueue\",\"type\":\"mqueue\",\"source\":\"mqueue\",\"options\":[\"nosuid\",\"noexec\",\"nodev\"]},"
                "{\"destination\":\"/sys\",\"type\":\"sysfs\",\"source\":\"sysfs\",\"options\":[\"nosuid\",\"noexec\",\"nodev\",\"ro\"]}");
        for (size_t i = 0; i < c->nmounts; i++) {
                buf_cstr(b, ",{\"type\":\"bind\",");
                put_field(b, "destination", c->mounts[i].to);
                buf_char(b, ',');
                put_field(b, "source", c->mounts[i].from);
                buf_printf(b, ",\"options\":[\"bind\",\"nosuid\",\"nodev\",\"rprivate\",\"%s\"]}", c->mounts[i].read_only ? "ro" : "rw");
        }
        buf_char(b, ']');
}

static void put_resources(struct buf *b, const struct oci_container *c)
{
        if (c->no_cgroup)
                return;
        buf_char(b, ',');
        put_field(b, "cgroupsPath", c->cgroup);
        buf_cstr(b, ",\"resources\":{\"devices\":[{\"allow\":false,\"access\":\"rwm\"}]");
        if (c->memory_bytes)
                buf_printf(b, ",\"memory\":{\"limit\":%lld,\"swap\":%lld}", (long long)c->memory_bytes, (long long)c->memory_bytes);
        if (c->cpu_quota_us || c->cpu_shares) {
                buf_cstr(b, ",\"cpu\":{");
                if (c->cpu_quota_us)
                        buf_printf(b, "\"quota\":%lld,\"period\":100000", (long long)c->cpu_quota_us);
                if (c->cpu_shares)
                        buf_printf(b, "%s\"shares\":%lld", c->cpu_quota_us ? "," : "", (long long)c->cpu_shares);
                buf_char(b, '}');
        }
        if (c->pids_max)
                buf_printf(b, ",\"pids\":{\"limit\":%lld}", (long long)c->pids_max);
        buf_char(b, '}');
}

static void put_seccomp(struct buf *b)
{
        buf_cstr(b, ",\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[");
#if defined(__x86_64__)
        buf_cstr(b, "\"SCMP_ARCH_X86_64\",\"SCMP_ARCH_X86\",\"SCMP_ARCH_X32\"");
#elif defined(__aarch64__)
        buf_cstr(b, "\"SCMP_ARCH_AARCH64\",\"SCMP_ARCH_ARM\"");
#endif
        buf_cstr(b, "],\"syscalls\":[{\"names\":");
        put_list(b, denied_calls, ARRAY_LEN(denied_calls));
        buf_printf(b, ",\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":%d}", EPERM);
        /* clone3 hides its flags behind a pointer: "no such call" makes the C library fall back to clone. */
        buf_printf(b, ",{\"names\":[\"clone3\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":%d}", ENOSYS);
        buf_printf(
                b,
                ",{\"names\":[\"clone\"],\"action\":\"SCMP_ACT_ERRNO\",\"errnoRet\":%d,\"args\":[{\"index\":0,\"value\":%u,\"valueTwo\":%u,"
                "\"op\":\"SCMP_CMP_MASKED_EQ\"}]}",
                EPERM, (unsigned)CLONE_NEWUSER, (unsigned)CLONE_NEWUSER);
        buf_cstr(b, "]}");
}

void oci_config(const struct oci_container *c, struct buf *b)
{
        buf_cstr(b, "{\"ociVersion\":\"1.0.2\",\"process\":");
        oci_process(c, c->args, c->nargs, c->tty, b);
        buf_cstr(b, ",\"root\":{");
        put_field(b, "path", c->rootfs);
        buf_printf(b, ",\"readonly\":%s},", c->read_only_root ? "true" : "false");
        put_field(b, "hostname", c->hostname);
        buf_char(b, ',');
        put_mounts(b, c);
        buf_cstr(b, ",\"linux\":{\"namespaces\":[{\"type\":\"pid\"},{\"type\":\"ipc\"},{\"type\":\"uts\"},{\"type\":\"mount\"},");
        buf_cstr(b, "{\"type\":\"cgroup\"},{\"type\":\"network\",");
        put_field(b, "path", c->netns_path);
        buf_cstr(b, "}],\"maskedPaths\":");
        put_list(b, masked_paths, ARRAY_LEN(masked_paths));
        buf_cstr(b, ",\"readonlyPaths\":");
        put_list(b, readonly_paths, ARRAY_LEN(readonly_paths));
        put_resources(b, c);
        if (!c->unconfined)
                put_seccomp(b);
        buf_cstr(b, "}}\n");
}
