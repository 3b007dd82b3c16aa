/* nftables, by libnftables: commands in nft(8)'s language, run in a namespace as one transaction. */
#ifndef NODE_NFT_H
#define NODE_NFT_H

#include "base/buf.h"

/* Runs `script` in the namespace of that name (NULL: the calling thread's). 0; or -EINVAL, with what the library said in `error` (appended,
 * may be NULL); or -errno when the namespace cannot be entered. */
int nft_run(const char *netns, const char *script, struct buf *error);
/* The same, with the output appended to `out`: for `list …` commands. */
int nft_query(const char *netns, const char *script, struct buf *out, struct buf *error);

#endif
