/* A context is made inside the namespace, because its netlink socket belongs to where it was opened, and freed at once: the
 * library's cache of what the kernel holds would only grow stale between two runs. */
#include "node/nft.h"
#include "node/netns.h"

#include <errno.h>
#include <nftables/libnftables.h>

struct nft_job {
        const char *script;
        struct buf *out, *error;
};

static int nft_job_run(void *arg)
{
        struct nft_job *j = arg;
        struct nft_ctx *nft = nft_ctx_new(NFT_CTX_DEFAULT);

        if (!nft)
                return -ENOMEM;
        nft_ctx_buffer_error(nft);
        nft_ctx_buffer_output(nft);
        int err = nft_run_cmd_from_buffer(nft, j->script) ? -EINVAL : 0;
        if (err && j->error) {
                const char *text = nft_ctx_get_error_buffer(nft);
                buf_cstr(j->error, text && *text ? text : "nftables refused the rules");
                while (j->error->n && j->error->p[j->error->n - 1] == '\n')
                        j->error->n--;
        }
        if (!err && j->out)
                buf_cstr(j->out, nft_ctx_get_output_buffer(nft));
        nft_ctx_free(nft);
        return err;
}

int nft_query(const char *netns, const char *script, struct buf *out, struct buf *error)
{
        struct nft_job j = { script, out, error };

        return netns ? netns_run(netns, nft_job_run, &j) : nft_job_run(&j);
}

int nft_run(const char *netns, const char *script, struct buf *error)
{
        return nft_query(netns, script, NULL, error);
}
