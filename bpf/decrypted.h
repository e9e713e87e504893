/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Packets that IPsec has decrypted. In tunnel mode such a packet passes the ingress hook of the interface that its ESP
 * packet has come by, a second time: the interface has counted one. Devices of their own (vti, xfrm) count them again, and
 * nothing comes by these as ESP first.
 */
#ifndef FLOWTOP_DECRYPTED_H
#define FLOWTOP_DECRYPTED_H

#include "flow.h"
#include "protocols.h"

#define DECRYPTING_ENTRIES 1024       /* interfaces that packets of IPsec have come by */

/* struct bpf_xfrm_state */
struct security_association {
	u32 request_id;
	u32 spi;                      /* network order */
	u16 family;
	u16 extension;
	u32 remote[4];
};

static long (*security_association)(void *skb, u32 index, void *to, u32 octets, u64 flags) = (void *)66;

/* Whether IPsec carries something in this packet that will come by again. */
FLOW_INLINE int is_ipsec(struct flow_key *key)
{
	return key->protocol == PROTOCOL_ESP || key->protocol == PROTOCOL_AH || key->protocol == PROTOCOL_IPCOMP ||
	       (key->protocol == PROTOCOL_UDP && (key->source_port == PORT_IPSEC || key->destination_port == PORT_IPSEC));
}

/* Whether IPsec has decrypted the packet; sets the SPI (RFC 4301) of the outermost security association. */
FLOW_INLINE int is_decrypted(struct __sk_buff *skb, u32 *spi)
{
	struct security_association found = {};

	if (security_association(skb, 0, &found, sizeof(found), 0))
		return 0;
	*spi = from_network_32(found.spi);
	return 1;
}

#endif
