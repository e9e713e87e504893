/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* ABI between bpf/packets.bpf.c and flowtop/capture/ebpf/packet_taps.py; like flow.h, without kernel headers. */
#ifndef FLOWTOP_PACKETS_H
#define FLOWTOP_PACKETS_H

#include "flow.h"

/* Precedes each frame in the ring buffer. */
struct packet_record {
	struct flow_key key;
	flow_u64 time_ns;                 /* CLOCK_MONOTONIC */
	flow_u32 wire;                    /* octets of the frame, including a VLAN tag in metadata */
	flow_u32 captured;                /* octets that follow here */
};

/* By ifindex, per CPU: selected packets that are not in the ring buffer. Never reset. */
struct packet_losses {
	flow_u64 dropped;                 /* the ring buffer was full */
	flow_u64 capped;                  /* beyond the limit of packets per flow */
};

#ifndef __cplusplus
_Static_assert(sizeof(struct packet_record) == sizeof(struct flow_key) + 16, "packet_record has no holes");
_Static_assert(sizeof(struct packet_losses) == 16, "packet_losses is 16 bytes without holes");
#endif

#endif
