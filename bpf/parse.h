/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Frame -> Flow Key, wire packets and IP octets.
 *
 * Reads only, through struct __sk_buff: packets are never modified or pulled. No maps here (bcc rewrites map accesses
 * in the main file only), so fragments are detected here and joined in flow.bpf.c.
 */
#ifndef FLOWTOP_PARSE_H
#define FLOWTOP_PARSE_H

#include "flow.h"
#include "link.h"
#include "protocols.h"

#define IPV6_EXTENSIONS_MAX 10

/*
 * Mask for offsets in a frame. Ten extension headers of 2048 octets end below it, so masking changes no offset; it
 * makes all paths to this point the same state for the verifier, which then checks the following code once.
 */
#define OFFSET_MASK 0x7fff

#define PARSED_IP (-1)                /* else an enum flow_ignored */
#define PARSED_OWN_COPY (-2)          /* see is_own_copy */

typedef u32 __attribute__((may_alias)) flow_word;

enum fragment_place {
	FRAGMENT_NONE = 0,
	FRAGMENT_FIRST = 1,
	FRAGMENT_LATER = 2,
};

/* A parsed skb. Octets and packets are those on the wire: a super-packet counts as its segments. */
struct packet {
	u64 packets;
	u64 octets;                   /* IP octets */
	u64 ip_offset;                /* offset of the IP header in the frame */
	u64 ip_octets;                /* of the skb, before segmentation */
	u64 transport_offset;         /* 0: no start of a transport header in this packet */
	u64 header_octets;            /* IP, extension and transport headers, which each segment repeats */
	u64 phantom_octets;           /* part of both that is not on the wire: IPv6 BIG TCP's jumbo option */
	u32 fragment_id;
	u16 tcp_bits;
	u8  fragment;                 /* enum fragment_place */
	u8  fragment_protocol;        /* identifies the fragmented packet together with addresses and id */
	u8  tos;
	u8  ttl;
	u8  link_octets;              /* before the network header, on a device without link header */
#ifdef FLOW_DECAP
	u64 mac_offset;               /* Ethernet header of an inner packet, if has_mac */
	u8  carried;                  /* in a tunnel */
	u8  has_mac;
	u8  pad[6];
#endif
};

/* Whether the packet was in a tunnel, so all its headers have been read. */
FLOW_INLINE int is_carried(struct packet *packet)
{
#ifdef FLOW_DECAP
	return packet->carried;
#else
	return 0;
#endif
}

DEFINE_LOAD(ipv4, struct ipv4_header)
DEFINE_LOAD(ipv6, struct ipv6_header)
DEFINE_LOAD(tcp, struct tcp_header)
DEFINE_LOAD(ports, struct ports)

/* Read ports, ICMP type and code, TCP control bits. `end`: end of the IP packet; padding may follow it. */
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
		break;                /* truncated: its ports may still be there */
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

/*
 * A header's length is larger than what is there on the wire. Only what is there is counted, unless the headers do not
 * even fit in it. A packet in a tunnel is then not taken out of it.
 */
FLOW_INLINE int distrust_length(struct packet *packet, u64 header_octets, u64 available, struct flow_totals *books)
{
	if (is_carried(packet) || available < header_octets)
		return FLOW_IGNORED_MALFORMED;
	if (books)
		books->lying_lengths++;
	return PARSED_IP;
}

/* `end`: maximum end of the packet. `books`: counts lengths that are not believed; NULL: they are not counted. */
FLOW_INLINE int parse_ipv4(struct __sk_buff *skb, u64 offset, u64 end, struct flow_key *key, struct packet *packet,
			   struct flow_totals *books)
{
	u64 available = end - offset;
	u64 header_octets, octets, fragment;
	struct ipv4_header ip;

	if (!load_ipv4(skb, offset, &ip))
		return FLOW_IGNORED_MALFORMED;
	header_octets = (ip.version_ihl & 15) * 4;
	octets = from_network_16(ip.total_length);
	if (skb->gso_size && is_carried(packet) && octets && octets != available)
		return FLOW_IGNORED_MALFORMED;   /* datagrams to be segmented: each is a separate packet of the tunnel */
	if (skb->gso_size || !octets) /* BIG TCP sets 0, as the length exceeds 16 bits. Super-packets have no padding */
		octets = available;
	if (ip.version_ihl >> 4 != 4 || header_octets < IPV4_HEADER || octets < header_octets)
		return FLOW_IGNORED_MALFORMED;
	if (octets > available) {
		if (distrust_length(packet, header_octets, available, books) != PARSED_IP)
			return FLOW_IGNORED_MALFORMED;
		octets = available;
	}

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
 * Walk extension headers from `offset` (RFC 8200, list of RFC 7045). Returns the offset after them, or 0 if that is not
 * in this packet: key->protocol is then the last header type that could be read.
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
			if (fragment & (IPV6_OFFSET_MASK | IPV6_MORE_FRAGMENTS)) {  /* else atomic (RFC 6946): complete */
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

/*
 * Octets of a packet that says no length, but has a Hop-by-Hop header at `offset`: those of its jumbo option (RFC 2675),
 * which all writers put first; else `available`.
 */
FLOW_INLINE u64 jumbo_octets(struct __sk_buff *skb, u64 offset, u64 end, u64 available)
{
	struct {
		u16 header;
		u16 option;
		u32 length;
	} jumbo;
	u64 octets;

	if (!load_before(skb, offset, end, &jumbo, sizeof(jumbo)) || from_network_16(jumbo.option) != IPV6_JUMBO_TYPE)
		return available;
	octets = from_network_32(jumbo.length);
	return octets < IPV6_JUMBO_MINIMUM ? available : octets + IPV6_HEADER;
}

FLOW_INLINE int parse_ipv6(struct __sk_buff *skb, u64 offset, u64 end, struct flow_key *key, struct packet *packet,
			   struct flow_totals *books)
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
		octets = available;   /* as in IPv4; BIG TCP may have a jumbo option, which segmentation removes */
		if (!ip.payload_length && ip.next_header == PROTOCOL_HOP_BY_HOP)
			packet->phantom_octets = IPV6_JUMBO_OPTION;
	} else if (!ip.payload_length && ip.next_header == PROTOCOL_HOP_BY_HOP) {
		octets = jumbo_octets(skb, offset + IPV6_HEADER, end, available);
	}
	if (ip.version_class >> 4 != 6)
		return FLOW_IGNORED_MALFORMED;
	if (octets > available) {
		if (distrust_length(packet, IPV6_HEADER, available, books) != PARSED_IP)
			return FLOW_IGNORED_MALFORMED;
		octets = available;
	}

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
	packet->transport_offset = skip_extensions(skb, offset + IPV6_HEADER, offset + octets, key, packet);
	packet->header_octets = packet->transport_offset ? packet->transport_offset - offset : IPV6_HEADER;
	return PARSED_IP;
}

#define PACKET_LOOPBACK 5             /* uapi/linux/if_packet.h */

/*
 * Whether this is what the kernel hands back of a broadcast or multicast to sockets of this host. It passes the ingress
 * hook of the interface that the packet leaves by, which has not received it. It begins with its IP header, also where an
 * Ethernet header is due. (A VRF has a header on what stays in it, and has received that.)
 */
FLOW_INLINE int is_own_copy(struct __sk_buff *skb, const u32 direction)
{
	return direction == FLOW_INGRESS && skb->pkt_type == PACKET_LOOPBACK;
}

/* `books`: see parse_ipv4. */
FLOW_INLINE int parse_frame(struct __sk_buff *skb, u32 layer, struct flow_key *key, struct packet *packet,
			    struct flow_totals *books)
{
	u64 type, ip_offset = 0;
	int parsed;

	if (__builtin_expect(layer == FLOW_LAYER_ETHERNET, 1)) {
		type = parse_ethernet(skb, &ip_offset, key);
	} else {
		if (is_own_copy(skb, key->direction))
			return PARSED_OWN_COPY;
		type = from_network_16((u16)skb->protocol);
		ip_offset = network_offset(skb);
		packet->link_octets = ip_offset;
		if (books)
			books->frame_octets -= ip_offset;   /* they are not the device's */
	}
	if (type != ETHERTYPE_IPV4 && type != ETHERTYPE_IPV6)
		type = skip_headers(skb, type, &ip_offset, 0, HEADERS_OFFSET_MASK, key);
	packet->ip_offset = ip_offset;
	if (type == ETHERTYPE_IPV4)
		parsed = parse_ipv4(skb, ip_offset, skb->len, key, packet, books);
	else if (type == ETHERTYPE_IPV6)
		parsed = parse_ipv6(skb, ip_offset, skb->len, key, packet, books);
	else if (type == ETHERTYPE_ARP)
		return FLOW_IGNORED_ARP;
	else
		return type < ETHERTYPE_MINIMUM ? FLOW_IGNORED_LLC : FLOW_IGNORED_OTHER;
	if (parsed == PARSED_IP && packet->transport_offset)
		parse_transport(skb, packet->transport_offset & OFFSET_MASK, ip_offset + packet->ip_octets, key, packet);
	return parsed;
}

/*
 * Wire packets and octets of a parsed skb. Each segment of a super-packet repeats its headers, so its octets on the
 * wire are its length and one more set of headers per segment after the first.
 * The headers of a tunnelled super-packet include inner ones, which are not read without FLOW_DECAP. At egress the
 * kernel has computed the total for the queueing discipline (wire_len, including link headers), which is used if it is
 * at least our result. At ingress wire_len excludes the MAC header and ignores segmentation: not used.
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
	if (!segments)                /* from a guest or a raw socket: not counted by the kernel yet */
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
