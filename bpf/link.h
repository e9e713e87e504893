/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Frame -> EtherType and offset of the IP header; the same as flowtop/capture/packets/link.py and headers.py.
 *
 * Plain Ethernet and VLAN tags first. Only a frame that is not IP then costs more: MPLS labels, PPPoE and PBB are
 * skipped by skip_headers.
 */
#ifndef FLOWTOP_LINK_H
#define FLOWTOP_LINK_H

#include "flow.h"
#include "protocols.h"

#define FLOW_INLINE static inline __attribute__((always_inline))

#define VLAN_TAGS_MAX 4               /* in the frame, in addition to one in metadata */
#define IP_OFFSET_MASK 0x1f           /* Ethernet header and four tags: 30 */
#define LINK_OFFSET_MASK 0x7f         /* what may precede the network header of a device without link header */
#define HEADERS_MAX 6                 /* between Ethernet and IP, each with a stack of labels before it */
#define MPLS_LABELS_MAX 12
#define HEADERS_OFFSET_MASK 0x1ff     /* six headers of 18 octets and six stacks end below it if they begin below 115 */

/* Types beside EtherTypes. */
#define HEADER_ETHERNET 0x10001       /* behind labels */
#define HEADER_CONTROL_WORD 0x10002   /* and Ethernet */
#define HEADER_NOT_IP 0x10003
#define HEADER_TYPE_MASK 0x1ffff

/*
 * load_NAME(skb, offset, to): copy the header at `offset` of the frame. Returns 0 if the frame is shorter. Headers of a
 * non-linear skb may be outside data..data_end: the helper reads them without pulling. The empty asm keeps one pointer
 * for check and access; if it were computed twice, the verifier would reject the access.
 */
#define DEFINE_LOAD(name, type)                                                              \
	FLOW_INLINE int load_##name(struct __sk_buff *skb, u64 offset, type *to)             \
	{                                                                                    \
		type *from = (void *)(long)skb->data + offset;                               \
                                                                                             \
		asm volatile("" : "+r"(from));                                               \
		if ((void *)(from + 1) > (void *)(long)skb->data_end)                        \
			return bpf_skb_load_bytes(skb, offset, to, sizeof(*to)) == 0;        \
		*to = *from;                                                                 \
		return 1;                                                                    \
	}

DEFINE_LOAD(ethertype, u16)

/* The same for any object, only up to `end`; a constant 0: of the frame. */
FLOW_INLINE int load_before(struct __sk_buff *skb, u64 offset, u64 end, void *to, const u32 octets)
{
	return !(end && offset + octets > end) && bpf_skb_load_bytes(skb, offset, to, octets) == 0;
}

FLOW_INLINE int is_tag(u64 type)
{
	return type == ETHERTYPE_VLAN || type == ETHERTYPE_SERVICE_VLAN || type == ETHERTYPE_QINQ;
}

/*
 * Skip VLAN tags in the frame from *ip_offset on, which stays within `mask`. `tags`: number of tags before them.
 * Returns the EtherType after them; with more than VLAN_TAGS_MAX tags it is that of a tag: see skip_headers.
 */
FLOW_INLINE u64 skip_tags(struct __sk_buff *skb, u64 type, u64 *ip_offset, const u64 mask, u64 tags,
			  struct flow_key *key)
{
	u64 offset = *ip_offset, i;
	struct {
		u16 control;
		u16 type;
	} tag;

#pragma clang loop unroll(disable)
	for (i = 0; i < VLAN_TAGS_MAX; i++) {
		long missing;

		if (!is_tag(type))
			break;
		missing = bpf_skb_load_bytes(skb, offset, &tag, VLAN_TAG);
		if (missing < 0)
			break;
		if (tags == 0)
			key->vlan_id = from_network_16(tag.control) & VLAN_ID_MASK;
		else if (tags == 1)
			key->customer_vlan_id = from_network_16(tag.control) & VLAN_ID_MASK;
		tags++;
		type = from_network_16(tag.type);
		/* `missing` is 0, but unknown to the verifier, so it treats all numbers of tags as one case. */
		offset = (offset + VLAN_TAG + missing) & mask;
	}
	*ip_offset = offset;
	return type;
}

/* Skip VLAN tags: the one in metadata, then those in the frame. Returns the EtherType after them. */
FLOW_INLINE u64 parse_ethernet(struct __sk_buff *skb, u64 *ip_offset, struct flow_key *key)
{
	u16 type;

	if (!load_ethertype(skb, ETHERNET_TYPE_OFFSET, &type))
		return ETHERTYPE_MINIMUM;    /* too short for an EtherType: not IP */
	*ip_offset = ETHERNET_HEADER;
	if (skb->vlan_present)
		key->vlan_id = skb->vlan_tci & VLAN_ID_MASK;
	type = from_network_16(type);
	if (is_tag(type))
		return skip_tags(skb, type, ip_offset, IP_OFFSET_MASK, skb->vlan_present ? 1 : 0, key);
	return type;
}

/*
 * Offset of the network header in the frame of a device without link header. Its packets may begin with another header
 * all the same: that of the interface where IPsec decrypted them (vti, xfrm), of the tunnel that they left (ip6gre,
 * ip6tnl before Linux 5.12) or will enter (gre with many ends). The kernel does not say where the network header is, but
 * reads from it on to the end of the linear data: what cannot be read is before it. At most 127.
 * Without branches, so that all offsets are one case for the verifier.
 */
static long (*load_bytes_relative)(void *skb, u32 offset, void *to, u32 octets, u32 from) = (void *)68;
#define FROM_NETWORK_HEADER 1         /* BPF_HDR_START_NET */

FLOW_INLINE u64 network_offset(struct __sk_buff *skb)
{
	u64 linear = (long)skb->data_end - (long)skb->data, offset = 0;
	u8 octet;

	if (!linear || linear > 0xffff)      /* more than the helper reads before Linux 5.19 */
		return 0;
	if (load_bytes_relative(skb, linear - 1, &octet, sizeof(octet), FROM_NETWORK_HEADER) == 0)
		return 0;
#pragma unroll
	for (u32 step = 64; step; step >>= 1) {
		u64 at = linear - offset - step;  /* below 0: the header would begin after the data */
		u64 failed = load_bytes_relative(skb, at, &octet, sizeof(octet), FROM_NETWORK_HEADER);

		offset += (failed >> 63 & ~(at >> 63) & 1) * step;
	}
	asm volatile("" : "+r"(offset));     /* mask the sum: older verifiers lose the range of an OR */
	return offset & LINK_OFFSET_MASK;
}

/* Whether a header follows that skip_headers skips. */
FLOW_INLINE int precedes_ip(u64 type)
{
	return type == ETHERTYPE_MPLS || type == ETHERTYPE_MPLS_MULTICAST || type == ETHERTYPE_PPPOE_SESSION ||
	       type == ETHERTYPE_BACKBONE || type == ETHERTYPE_VLAN_9200 || is_tag(type);
}

/* Whether this EtherType shows that it is one: it is IP's, or of what precedes IP. */
FLOW_INLINE int leads_to_ip(u64 type)
{
	return type == ETHERTYPE_IPV4 || type == ETHERTYPE_IPV6 || precedes_ip(type);
}

/*
 * The type of what is behind the bottom of a stack of labels, by its first four bits, which are IP's version, or not:
 * HEADER_CONTROL_WORD if they are 0, HEADER_NOT_IP for a control channel (RFC 4385), else HEADER_ETHERNET. Without a
 * control word, a MAC address that begins like IP is taken for IP, as routers do (RFC 8469).
 */
FLOW_INLINE u64 behind_labels(u8 first)
{
	switch (first >> 4) {
	case 0:
		return HEADER_CONTROL_WORD;
	case 1:
		return HEADER_NOT_IP;
	case 4:
		return ETHERTYPE_IPV4;
	case 6:
		return ETHERTYPE_IPV6;
	}
	return HEADER_ETHERNET;
}

/*
 * Skip labels up to the bottom of the stack (RFC 3032). Returns the type of what follows, see behind_labels, and
 * HEADER_NOT_IP where there is no bottom.
 */
FLOW_INLINE u64 skip_labels(struct __sk_buff *skb, u64 *at, u64 end, const u64 mask, struct flow_key *key)
{
	u64 offset = *at;
	u8 label[MPLS_LABEL + 1];
	long missing;

#pragma clang loop unroll(disable)
	for (u32 i = 0; i < MPLS_LABELS_MAX; i++) {
		if (end && offset + sizeof(label) > end)
			break;
		missing = bpf_skb_load_bytes(skb, offset, label, sizeof(label));
		if (missing < 0)
			return HEADER_NOT_IP;
		offset = (offset + MPLS_LABEL + missing) & mask;
#ifdef FLOW_DECAP
		key->tunnel = FLOW_TUNNEL_MPLS;
		key->tunnel_id = label[0] << 12 | label[1] << 4 | label[2] >> 4;
#endif
		if (label[2] & MPLS_BOTTOM) {
			*at = offset;
			return behind_labels(label[4]);
		}
	}
	return HEADER_NOT_IP;
}

/* The content of a PPPoE session by PPP's protocol field (RFC 1661), the last of *octets; one octet if it is
 * compressed, which PPPoE discourages (RFC 2516 section 7). */
FLOW_INLINE u64 ppp_type(u64 protocol, u64 *octets)
{
	if (protocol & 0x100) {
		*octets -= 1;
		protocol >>= 8;
	}
	if (protocol == PPP_IPV4)
		return ETHERTYPE_IPV4;
	if (protocol == PPP_IPV6)
		return ETHERTYPE_IPV6;
	return protocol == PPP_MPLS || protocol == PPP_MPLS_MULTICAST ? ETHERTYPE_MPLS : HEADER_NOT_IP;
}

/*
 * Skip what may stand before IP: MPLS labels, a pseudowire's Ethernet (RFC 4448), PPPoE (RFC 2516), the I-TAG of a
 * backbone bridge (IEEE 802.1ah), and VLAN tags among them, whose IDs fill those of the key that are still 0.
 * `end`: of what may be read; a constant 0: the frame's, which costs the verifier no comparison. The offset stays
 * within `mask`. With FLOW_DECAP, label and session are the key's tunnel.
 * Returns the EtherType of IP and sets *ip_offset; or leaves that as it is, and returns `type` if it is none of these,
 * and HEADER_NOT_IP if something else follows.
 */
FLOW_INLINE u64 skip_headers(struct __sk_buff *skb, u64 type, u64 *ip_offset, u64 end, const u64 mask,
			     struct flow_key *key)
{
	u64 offset = *ip_offset, i;
	u8 head[4];
	u16 word;

	if (!precedes_ip(type))
		return type;
#pragma clang loop unroll(disable)
	for (i = 0; i < HEADERS_MAX; i++) {
		u64 octets, next;
		long missing;

		if (type == ETHERTYPE_MPLS || type == ETHERTYPE_MPLS_MULTICAST)
			type = skip_labels(skb, &offset, end, mask, key);
		if (type == HEADER_ETHERNET)
			octets = ETHERNET_HEADER;
		else if (type == HEADER_CONTROL_WORD || type == ETHERTYPE_BACKBONE)
			octets = CONTROL_WORD + ETHERNET_HEADER;   /* the I-TAG has the same length */
		else if (type == ETHERTYPE_PPPOE_SESSION)
			octets = PPPOE_HEADER;
		else if (is_tag(type) || type == ETHERTYPE_VLAN_9200)
			octets = VLAN_TAG;
		else
			break;
		if (end && offset + octets > end)
			break;
		if (bpf_skb_load_bytes(skb, offset, head, sizeof(head)))
			break;
		missing = bpf_skb_load_bytes(skb, offset + octets - sizeof(word), &word, sizeof(word));
		if (missing < 0)
			break;
		next = from_network_16(word);
		/* Whether a control word precedes the Ethernet frame, or its MAC address begins with four zero bits. */
		if (type == HEADER_CONTROL_WORD && !leads_to_ip(next)) {
			octets = ETHERNET_HEADER;
			if (bpf_skb_load_bytes(skb, offset + ETHERNET_TYPE_OFFSET, &word, sizeof(word)))
				break;
			next = from_network_16(word);
		} else if (type == ETHERTYPE_PPPOE_SESSION) {
			next = head[0] == PPPOE_VERSION_TYPE && head[1] == 0 ? ppp_type(next, &octets) : HEADER_NOT_IP;
#ifdef FLOW_DECAP
			key->tunnel = FLOW_TUNNEL_PPPOE;
			key->tunnel_id = head[2] << 8 | head[3];
#endif
		} else if (octets == VLAN_TAG) {
			u16 vlan_id = (head[0] << 8 | head[1]) & VLAN_ID_MASK;

			if (!key->vlan_id)
				key->vlan_id = vlan_id;
			else if (!key->customer_vlan_id)
				key->customer_vlan_id = vlan_id;
		}
		/* As in skip_tags: the sums are the same, but all paths are one case for the verifier. */
		type = (next + missing) & HEADER_TYPE_MASK;
		offset = (offset + octets + missing) & mask;
	}
	if (type != ETHERTYPE_IPV4 && type != ETHERTYPE_IPV6)
		return HEADER_NOT_IP;
	*ip_offset = offset;
	return type;
}

#endif
