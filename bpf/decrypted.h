/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Packets that IPsec has decrypted. In tunnel mode such a packet passes the ingress hook of the interface that its ESP
 * packet has come by, a second time: the interface has counted one. Devices of their own (vti, xfrm) count them again, and
 * nothing comes by these as ESP first; nor by an interface where GRO decrypts (esp4_offload, a network card). So a decrypted
 * packet is a repetition only if one with the SPI of its security association came by before: what has another SPI, which
 * anybody can send, says nothing about it.
 */
#ifndef FLOWTOP_DECRYPTED_H
#define FLOWTOP_DECRYPTED_H

#include "flow.h"
#include "protocols.h"

#define DECRYPTING_ENTRIES 4096       /* security associations whose packets have come by */

/* One at an interface. */
struct decrypting_key {
	u32 ifindex;
	u32 spi;
};

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

/* The SPI of a packet of IPsec as Linux knows it: of IPComp the CPI; 0: it has none, as IKE on IPsec's port. */
FLOW_INLINE u32 ipsec_spi(struct __sk_buff *skb, struct flow_key *key, struct packet *packet)
{
	u32 spi = 0, offset = packet->transport_offset;

	if (!offset)
		return 0;
	if (key->protocol == PROTOCOL_AH)
		offset += 4;
	else if (key->protocol == PROTOCOL_UDP)
		offset += UDP_HEADER;
	if (bpf_skb_load_bytes(skb, offset, &spi, sizeof(spi)))
		return 0;
	spi = from_network_32(spi);
	return key->protocol == PROTOCOL_IPCOMP ? spi & 0xffff : spi;
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
