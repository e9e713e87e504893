/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Copy octets of a frame into a record of a ring buffer. */
#ifndef FLOWTOP_COPY_H
#define FLOWTOP_COPY_H

#include "link.h"

/*
 * Copy `octets` of the frame from `from` on: at least one and at most `room`, which the verifier must be able to see.
 * Before Linux 6.8 it learns nothing from a comparison with 0, so one comparison of `octets` - 1 proves both; the empty
 * asm keeps the compiler from splitting it again.
 */
FLOW_INLINE void copy_frame(struct __sk_buff *skb, u32 from, u8 *to, u64 octets, const u64 room)
{
	u64 more = octets - 1;

	asm volatile("" : "+r"(more));
	if (more >= room)
		return;
	asm volatile("" : "+r"(more));
	bpf_skb_load_bytes(skb, from, to, more + 1);
}

#endif
