/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Frame -> Flow Key, wire packets and IP octets.
 *
 * Reads only, through struct __sk_buff: the packet is never changed or pulled. No maps here (bcc rewrites map
 * accesses in the main file only), so fragments are told apart here and joined in flow.bpf.c.
 */
#ifndef FLOWTOP_PARSE_H
#define FLOWTOP_PARSE_H

#include "flow.h"
#include "protocols.h"

#define FLOW_INLINE static inline __attribute__((always_inline))

#define VLAN_TAGS_MAX 4               /* in the frame, beside one in metadata */
#define IPV6_EXTENSIONS_MAX 10

/*
 * Offsets in a frame, bounded for the verifier. Ten extension headers of 2048 octets end below this, so masking changes
 * no offset; it makes every path into what follows look the same, and the verifier walks that once, not per path.
 */
#define OFFSET_MASK 0x7fff
#define IP_OFFSET_MASK 0x1f           /* Ethernet header and four tags: 30 */

#define PARSED_IP (-1)                /* else an enum flow_ignored */

typedef u32 __attribute__((may_alias)) flow_word;

enum fragment_place {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST = 1,
	FRAGMENT_LATER = 2,
};

/* One skb, parsed. Octets and packets are of the wire: a super-packet counts as the segments it stands for. */
struct packet {
	u64 packets;
	u64 octets;                   /* IP octets */
	u64 ip_offset;                /* where the IP header starts in the frame */
	u64 ip_octets;                /* of the skb, before segmentation */
	u64 transport_offset;         /* 0: this packet holds no start of a transport header */
	u64 header_octets;            /* IP, extension and transport header: what each segment repeats */
	u64 phantom_octets;           /* part of both that is never on the wire: IPv6 BIG TCP's jumbo option */
	u32 fragment_id;
	u16 tcp_bits;
	u8  fragment;                 /* enum fragment_place */
	u8  fragment_protocol;        /* what identifies the fragmented packet beside addresses and id */
	u8  tos;
	u8  ttl;
#ifdef FLOW_DECAP
	u64 mac_offset;               /* of a carried packet: its Ethernet header, if has_mac */
	u8  carried;                  /* in a tunnel */
	u8  has_mac;
	u8  pad[6];
#endif
};

/* Whether the packet was in a tunnel: all its headers have been read then. */
FLOW_INLINE int is_carried(struct packet *packet)
{
#ifdef FLOW_DECAP
	return packet->carried;
#else
	return 0;
#endif
}

/*
 * load_NAME(skb, offset, to): copy the header at `offset` of the frame. 0 when the frame is shorter.
 * Headers of a non-linear skb may lie outside data..data_end: the helper reads those without pulling.
 * The empty asm keeps one pointer for check and access; computed twice, the verifier does not see that they agree.
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
DEFINE_LOAD(ipv4, struct ipv4_header)
DEFINE_LOAD(ipv6, struct ipv6_header)
DEFINE_LOAD(tcp, struct tcp_header)
DEFINE_LOAD(ports, struct ports)

/* Ports, ICMP type and code, TCP control bits. `end`: end of the IP packet; what the frame holds after it is padding. */
FLOW_INLINE void parse_transport(struct __sk_buff *skb, u64 offset, u64 end, struct flow_key *key,
				 struct packet *packet)
{
	struct tcp_header tcp;
	struct ports ports;
	struct icmp_header icmp;

	switch (key->protocol) {
	case PROTOCOL_TCP:
		if (offset + sizeof(tcp) <= end && load_tcp(skb, offset, &tcp)) {
			u64 length = (tcp.offset_bits >> 4) * 4;

			key->source_port = from_network_16(tcp.source_port);
			key->destination_port = from_network_16(tcp.destination_port);
			packet->tcp_bits = (tcp.offset_bits << 8 | tcp.bits) & TCP_CONTROL_BITS;
			if ((packet->tcp_bits & (TCP_SYN | TCP_ACK)) == TCP_SYN)
				packet->tcp_bits |= 1 << FLOW_TCP_OPENING;
			packet->header_octets += length < TCP_HEADER_MINIMUM ? TCP_HEADER_MINIMUM : length;
			return;
		}
		break;                /* cut: its ports may still be there */
	case PROTOCOL_UDP:
		packet->header_octets += UDP_HEADER;
		break;
	case PROTOCOL_SCTP:
		packet->header_octets += SCTP_HEADER;
		break;
	case PROTOCOL_DCCP:
	case PROTOCOL_UDPLITE:
		break;
	case PROTOCOL_ICMP:
	case PROTOCOL_ICMPV6:
		if (offset + sizeof(icmp) <= end && bpf_skb_load_bytes(skb, offset, &icmp, sizeof(icmp)) == 0)
			key->destination_port = icmp.type << 8 | icmp.code;
		return;
	default:
		return;
	}
	if (offset + sizeof(ports) <= end && load_ports(skb, offset, &ports)) {
		key->source_port = from_network_16(ports.source);
		key->destination_port = from_network_16(ports.destination);
	}
}

/* `end`: of what the packet may reach to. */
FLOW_INLINE int parse_ipv4(struct __sk_buff *skb, u64 offset, u64 end, struct flow_key *key, struct packet *packet)
{
	u64 available = end - offset;
	u64 header_octets, octets, fragment;
	struct ipv4_header ip;

	if (!load_ipv4(skb, offset, &ip))
		return FLOW_IGNORED_MALFORMED;
	header_octets = (ip.version_ihl & 15) * 4;
	octets = from_network_16(ip.total_length);
	if (skb->gso_size && is_carried(packet) && octets && octets != available)
		return FLOW_IGNORED_MALFORMED;   /* datagrams to be cut: each is a tunnel's packet of its own */
	if (skb->gso_size || !octets) /* BIG TCP writes 0: too long for 16 bits. Super-packets have no padding */
		octets = available;
	/* A length beyond the frame is believed: a capture that was cut shows such packets too, and means the same by them. */
	if (ip.version_ihl >> 4 != 4 || header_octets < IPV4_HEADER || octets < header_octets)
		return FLOW_IGNORED_MALFORMED;

	*(flow_word *)key->source_address = ip.source;
	*(flow_word *)key->destination_address = ip.destination;
	key->protocol = ip.protocol;
	key->ip_version = 4;
	packet->tos = ip.tos;
	packet->ttl = ip.ttl;
	packet->ip_octets = octets;
	packet->header_octets = header_octets;

	fragment = from_network_16(ip.fragment);
	if (fragment & (IPV4_OFFSET_MASK | IPV4_MORE_FRAGMENTS)) {
		packet->fragment_id = ip.id;
		packet->fragment_protocol = ip.protocol;
		packet->fragment = fragment & IPV4_OFFSET_MASK ? FRAGMENT_LATER : FRAGMENT_FIRST;
	}
	if (packet->fragment != FRAGMENT_LATER)
		packet->transport_offset = offset + header_octets;
	return PARSED_IP;
}

/*
 * Walk extension headers from `offset` (RFC 8200, RFC 7045's list) and give the offset of what follows them, or 0 when
 * that is not in this packet: key->protocol is then the last header type that could be told.
 */
FLOW_INLINE u64 skip_extensions(struct __sk_buff *skb, u64 offset, u64 end, struct flow_key *key,
				struct packet *packet)
{
	struct ipv6_extension extension;
	u64 i, octets;

#pragma clang loop unroll(disable)
	for (i = 0; i < IPV6_EXTENSIONS_MAX; i++) {
		switch (key->protocol) {
		case PROTOCOL_HOP_BY_HOP:
		case PROTOCOL_ROUTING:
		case PROTOCOL_FRAGMENT:
		case PROTOCOL_AH:
		case PROTOCOL_DESTINATION_OPTIONS:
		case PROTOCOL_MOBILITY:
		case PROTOCOL_HIP:
		case PROTOCOL_SHIM6:
			break;
		default:
			return offset;
		}
		if (offset + IPV6_EXTENSION_MINIMUM > end ||
		    bpf_skb_load_bytes(skb, offset, &extension, IPV6_EXTENSION_MINIMUM))
			return 0;
		octets = (extension.length + 1) * 8;
		if (key->protocol == PROTOCOL_AH)
			octets = (extension.length + 2) * 4;
		if (key->protocol == PROTOCOL_FRAGMENT) {
			u64 fragment = from_network_16(extension.fragment);

			octets = IPV6_EXTENSION_MINIMUM;
			if (fragment & (IPV6_OFFSET_MASK | IPV6_MORE_FRAGMENTS)) {  /* else atomic (RFC 6946): whole */
				packet->fragment_id = extension.id;
				packet->fragment = fragment & IPV6_OFFSET_MASK ? FRAGMENT_LATER : FRAGMENT_FIRST;
			}
		}
		if (offset + octets > end)
			return 0;
		key->protocol = extension.next_header;
		offset = (offset + octets) & OFFSET_MASK;
		if (packet->fragment == FRAGMENT_LATER)
			return 0;
	}
	return 0;
}

FLOW_INLINE int parse_ipv6(struct __sk_buff *skb, u64 offset, u64 end, struct flow_key *key, struct packet *packet)
{
	u64 available = end - offset;
	struct ipv6_header ip;
	u64 octets;

	if (!load_ipv6(skb, offset, &ip))
		return FLOW_IGNORED_MALFORMED;
	octets = from_network_16(ip.payload_length) + IPV6_HEADER;
	if (skb->gso_size) {
		if (is_carried(packet) && ip.payload_length && octets != available)
			return FLOW_IGNORED_MALFORMED;   /* as in IPv4 */
		octets = available;   /* as in IPv4; and BIG TCP may bring a jumbo option that segmentation removes */
		if (!ip.payload_length && ip.next_header == PROTOCOL_HOP_BY_HOP)
			packet->phantom_octets = IPV6_JUMBO_OPTION;
	} else if (!ip.payload_length && ip.next_header == PROTOCOL_HOP_BY_HOP) {
		octets = available;   /* jumbogram (RFC 2675) */
	}
	if (ip.version_class >> 4 != 6)
		return FLOW_IGNORED_MALFORMED;

#pragma unroll
	for (u32 i = 0; i < 4; i++) {
		((flow_word *)key->source_address)[i] = ip.source[i];
		((flow_word *)key->destination_address)[i] = ip.destination[i];
	}
	key->protocol = ip.next_header;
	key->ip_version = 6;
	packet->tos = ip.version_class << 4 | ip.class_label >> 4;
	packet->ttl = ip.hop_limit;
	packet->ip_octets = octets;
	if (octets < available)       /* of a longer one, only what is there can be walked */
		available = octets;
	packet->transport_offset = skip_extensions(skb, offset + IPV6_HEADER, offset + available, key, packet);
	packet->header_octets = packet->transport_offset ? packet->transport_offset - offset : IPV6_HEADER;
	return PARSED_IP;
}

FLOW_INLINE int is_tag(u64 type)
{
	return type == ETHERTYPE_VLAN || type == ETHERTYPE_SERVICE_VLAN || type == ETHERTYPE_QINQ;
}

/*
 * VLAN tags in the frame, from *ip_offset on, which stays within `mask`. `tags` were before them. Gives the EtherType
 * after them; tags beyond VLAN_TAGS_MAX are left, as not IP.
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
		/* `missing` is 0, but the verifier does not know it: so it takes all numbers of tags for one case. */
		offset = (offset + VLAN_TAG + missing) & mask;
	}
	*ip_offset = offset;
	return type;
}

/* VLAN tags, the one in metadata before those in the frame. Gives the EtherType after them. */
FLOW_INLINE u64 parse_ethernet(struct __sk_buff *skb, u64 *ip_offset, struct flow_key *key)
{
	u16 type;

	if (!load_ethertype(skb, ETHERNET_TYPE_OFFSET, &type))
		return ETHERTYPE_MINIMUM;    /* a stump: no EtherType, so none that is IP */
	*ip_offset = ETHERNET_HEADER;
	if (skb->vlan_present)
		key->vlan_id = skb->vlan_tci & VLAN_ID_MASK;
	type = from_network_16(type);
	if (is_tag(type))
		return skip_tags(skb, type, ip_offset, IP_OFFSET_MASK, skb->vlan_present ? 1 : 0, key);
	return type;
}

FLOW_INLINE int parse_frame(struct __sk_buff *skb, u32 layer, struct flow_key *key, struct packet *packet)
{
	u64 type, ip_offset = 0;
	int parsed;

	if (layer == FLOW_LAYER_ETHERNET)
		type = parse_ethernet(skb, &ip_offset, key);
	else
		type = from_network_16((u16)skb->protocol);
	packet->ip_offset = ip_offset;
	if (type == ETHERTYPE_IPV4)
		parsed = parse_ipv4(skb, ip_offset, skb->len, key, packet);
	else if (type == ETHERTYPE_IPV6)
		parsed = parse_ipv6(skb, ip_offset, skb->len, key, packet);
	else if (type == ETHERTYPE_ARP)
		return FLOW_IGNORED_ARP;
	else
		return type < ETHERTYPE_MINIMUM ? FLOW_IGNORED_LLC : FLOW_IGNORED_OTHER;
	if (parsed == PARSED_IP && packet->transport_offset)
		parse_transport(skb, packet->transport_offset & OFFSET_MASK, ip_offset + packet->ip_octets, key, packet);
	return parsed;
}

/*
 * Wire packets and octets of a parsed skb. A super-packet's segments each repeat its headers, so its octets on the
 * wire are its own length and one more set of headers a segment after the first.
 *
 * The headers of a tunnelled super-packet include inner ones that are not read without FLOW_DECAP. At egress the kernel has worked
 * the sum out for the queueing discipline (wire_len, link headers included); that is taken when it is at least ours.
 * At ingress wire_len leaves the MAC header out and knows no segments: not used.
 */
FLOW_INLINE void count_wire(struct __sk_buff *skb, const u32 direction, struct packet *packet)
{
	u64 size = skb->gso_size, segments, header, octets;

	packet->packets = 1;
	packet->octets = packet->ip_octets;
	if (!size)
		return;
	header = packet->header_octets;
	octets = packet->ip_octets;
	segments = skb->gso_segs;
	if (!segments)                /* a guest's or a raw socket's super-packet: nobody has counted yet */
		segments = octets > header ? (octets - header + size - 1) / size : 1;
	if (direction == FLOW_EGRESS && !packet->phantom_octets && !is_carried(packet)) {
		u64 repeated = skb->wire_len - skb->len;
		u64 link = (segments - 1) * packet->ip_offset;

		if (skb->wire_len > skb->len && repeated >= link + (segments - 1) * header) {
			packet->packets = segments;
			packet->octets = (u64)octets + repeated - link;
			return;
		}
	}
	header -= packet->phantom_octets;
	packet->packets = segments;
	packet->octets = (u64)octets - packet->phantom_octets + (u64)(segments - 1) * header;
}

#endif
