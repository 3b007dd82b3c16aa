/* A kubeconfig, and the server that it names. */
#include "kube/client.h"

#include <stdio.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *p, size_t n)
{
        struct buf b = { (char *)p, n, n };
        struct kube_client_config c;
        struct arena a;
        struct diags d;
        char path[64];

        snprintf(path, sizeof(path), "/dev/shm/postern-fuzz-kc-%d", getpid());
        buf_write_file(&b, path, 0600);
        arena_init(&a, 0);
        diags_init(&d);
        if (kube_client_config_load(str_of(path), STR(""), &a, &c, &d)) {
                struct loop *l = loop_new();

                kube_client_free(kube_client_new(l, &c, &d));
                loop_turn(l, 0);
                loop_free(l);
        } else if (!d.errors) {
                __builtin_trap();
        }
        diags_fini(&d);
        arena_fini(&a);
        unlink(path);
        return 0;
}
