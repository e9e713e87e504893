/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Decapsulation of tunnels, the same as flowtop/capture/packets/tunnels.py. Only with -DFLOW_DECAP.
 * -DFLOW_ADDED_TUNNEL(port)=EXPRESSION is an enum flow_tunnel for UDP ports that the user has added, else 0.
 * Key and packet are in a map's memory, not on the stack: the verifier does not track values there, so all paths
 * through one tunnel are the same state for it at the start of the next.
 */
#ifndef FLOWTOP_DECAP_H
#define FLOWTOP_DECAP_H

#include "parse.h"

#define TUNNELS_MAX 4                 /* maximum nesting */
/* Maximum offset of an inner packet in a frame: ten extension headers of 2048 octets after it end below OFFSET_MASK. */
#define CARRIED_OFFSET_MAX 0x2fff
#define CARRIED_OFFSET_MASK 0x3fff

#define PROTOCOL_IPIP 4
#define PROTOCOL_IPV6 41
#define PROTOCOL_GRE 47
#define ETHERTYPE_BRIDGED 0x6558      /* Transparent Ethernet Bridging */
#define ETHERTYPE_ERSPAN 0x88be       /* types I and II */
#define ETHERTYPE_ERSPAN3 0x22eb
#define GRE_CHECKSUM 0x8000
#define GRE_KEY 0x2000
#define GRE_SEQUENCE 0x1000
#define GRE_NOT_READ 0x4007           /* source routes (RFC 1701), versions above 0 (PPTP) */
#define ERSPAN_HEADER 8
#define ERSPAN3_HEADER 12
#define ERSPAN3_PLATFORM_HEADER 8
#define ERSPAN_SESSION_MASK 0x03ff
#define PORT_VXLAN 4789
#define PORT_VXLAN_LINUX 8472         /* Linux's default, older than IANA's number */
#define PORT_GENEVE 6081
#define PORT_MPLS 6635                /* RFC 7510 */
#ifndef FLOW_ADDED_TUNNEL
#define FLOW_ADDED_TUNNEL(port) FLOW_TUNNEL_NONE
#endif
#define VXLAN_FLAG_VNI 0x08
#define VNI_HEADER 8

/* The content of a tunnel. */
struct carried {
	u64 offset;                   /* in the frame */
	u32 type;                     /* EtherType; ETHERTYPE_BRIDGED: an Ethernet frame; 0: nothing that is read */
	u32 tunnel;                   /* enum flow_tunnel */
	u32 tunnel_id;
};

/* State of one packet during decapsulation. In a map: see flow.bpf.c. */
struct work {
	struct flow_key key;
	struct packet packet;
	struct flow_key inner_key;
	struct packet inner;
	struct flow_key parent;       /* key of the outermost packet, as FLOW_KIND_PARENT */
	struct packet outer;
	u64 carried;                  /* whether there is an outermost packet */
	struct carried inside;        /* the packet that is looked into */
};

/*
 * Skip labels to the bottom of the stack (RFC 3032); what follows is as in skip_headers. Ethernet behind a control word,
 * or none, by the EtherType that then is one.
 */
FLOW_INLINE void inside_mpls(struct __sk_buff *skb, u64 end, struct carried *inside)
{
	u64 type;
	u32 label, i;
	u16 word;
	u8 first;

	inside->type = 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < MPLS_LABELS_MAX; i++) {
		if (inside->offset + sizeof(label) >= end ||
		    bpf_skb_load_bytes(skb, inside->offset & CARRIED_OFFSET_MASK, &label, sizeof(label)))
			return;
		label = from_network_32(label);
		inside->offset = (inside->offset + sizeof(label)) & CARRIED_OFFSET_MASK;
		inside->tunnel = FLOW_TUNNEL_MPLS;
		inside->tunnel_id = label >> 12;
		if (label & 0x100)
			break;
	}
	if (i == MPLS_LABELS_MAX || bpf_skb_load_bytes(skb, inside->offset, &first, sizeof(first)))
		return;
	type = behind_labels(first);
	if (type == ETHERTYPE_IPV4 || type == ETHERTYPE_IPV6) {
		inside->type = type;
	} else if (type == HEADER_ETHERNET) {
		inside->type = ETHERTYPE_BRIDGED;
	} else if (type == HEADER_CONTROL_WORD &&
		   load_before(skb, inside->offset + CONTROL_WORD + ETHERNET_TYPE_OFFSET, end, &word, sizeof(word))) {
		inside->type = ETHERTYPE_BRIDGED;
		if (leads_to_ip(from_network_16(word)))
			inside->offset += CONTROL_WORD;
	}
}

/* Type I has no header and no sequence number; II has 8 octets, III 12 or 20 (draft-foschiano-erspan). */
FLOW_INLINE void inside_erspan(struct __sk_buff *skb, u64 end, u64 octets, struct carried *inside)
{
	u16 words[6];
	u64 at = inside->offset & CARRIED_OFFSET_MASK;

	inside->tunnel = FLOW_TUNNEL_ERSPAN;
	inside->type = ETHERTYPE_BRIDGED;
	if (!octets)
		return;
	inside->type = 0;
	if (at + octets > end || bpf_skb_load_bytes(skb, at, words, ERSPAN_HEADER))
		return;
	inside->tunnel_id = from_network_16(words[1]) & ERSPAN_SESSION_MASK;
	if (octets == ERSPAN3_HEADER) {
		if (bpf_skb_load_bytes(skb, at, words, ERSPAN3_HEADER))
			return;
		if (from_network_16(words[5]) & 1)
			octets += ERSPAN3_PLATFORM_HEADER;
	}
	inside->type = ETHERTYPE_BRIDGED;
	inside->offset = at + octets;
}

/* GRE (RFC 2784) with keys and sequence numbers (RFC 2890). */
FLOW_INLINE void inside_gre(struct __sk_buff *skb, u64 end, struct carried *inside)
{
	u64 at = inside->offset & CARRIED_OFFSET_MASK, flags, type;
	u16 header[2];
	u32 key;

	if (at + sizeof(header) > end || bpf_skb_load_bytes(skb, at, header, sizeof(header)))
		return;
	flags = from_network_16(header[0]);
	type = from_network_16(header[1]);
	if (flags & GRE_NOT_READ)
		return;
	at += sizeof(header) + (flags & GRE_CHECKSUM ? 4 : 0);
	inside->tunnel = FLOW_TUNNEL_GRE;
	if (flags & GRE_KEY) {
		if (at + sizeof(key) > end || bpf_skb_load_bytes(skb, at & CARRIED_OFFSET_MASK, &key, sizeof(key)))
			return;
		inside->tunnel_id = from_network_32(key);
		at += sizeof(key);
	}
	inside->offset = at + (flags & GRE_SEQUENCE ? 4 : 0);
	if (type == ETHERTYPE_MPLS || type == ETHERTYPE_MPLS_MULTICAST)
		inside_mpls(skb, end, inside);
	else if (type == ETHERTYPE_ERSPAN)
		inside_erspan(skb, end, flags & GRE_SEQUENCE ? ERSPAN_HEADER : 0, inside);
	else if (type == ETHERTYPE_ERSPAN3)
		inside_erspan(skb, end, ERSPAN3_HEADER, inside);
	else if (type == ETHERTYPE_IPV4 || type == ETHERTYPE_IPV6 || type == ETHERTYPE_BRIDGED)
		inside->type = type;
}

/* The tunnel of a UDP destination port. */
FLOW_INLINE u32 udp_tunnel(u16 port)
{
	u32 added = FLOW_ADDED_TUNNEL(port);

	if (added)
		return added;
	switch (port) {
	case PORT_VXLAN:
	case PORT_VXLAN_LINUX:
		return FLOW_TUNNEL_VXLAN;
	case PORT_GENEVE:
		return FLOW_TUNNEL_GENEVE;
	case PORT_MPLS:
		return FLOW_TUNNEL_MPLS;
	}
	return FLOW_TUNNEL_NONE;
}

/* VXLAN (RFC 7348), Geneve (RFC 8926) and MPLS (RFC 7510). */
FLOW_INLINE void inside_udp(struct __sk_buff *skb, u64 end, u32 tunnel, struct carried *inside)
{
	u64 at = (inside->offset & CARRIED_OFFSET_MASK) + UDP_HEADER;
	struct {
		u8  flags;
		u8  more;
		u16 type;
		u32 vni;
	} header;

	if (at + sizeof(header) > end || bpf_skb_load_bytes(skb, at, &header, sizeof(header)))
		return;
	inside->offset = at;
	if (tunnel == FLOW_TUNNEL_MPLS) {
		inside_mpls(skb, end, inside);
	} else if (tunnel == FLOW_TUNNEL_GENEVE) {
		u64 type = from_network_16(header.type);

		if (header.flags >> 6)
			return;
		inside->tunnel = FLOW_TUNNEL_GENEVE;
		inside->tunnel_id = from_network_32(header.vni) >> 8;
		inside->offset = at + sizeof(header) + (header.flags & 0x3f) * 4;
		if (type == ETHERTYPE_MPLS || type == ETHERTYPE_MPLS_MULTICAST)
			inside_mpls(skb, end, inside);
		else if (type == ETHERTYPE_IPV4 || type == ETHERTYPE_IPV6 || type == ETHERTYPE_BRIDGED)
			inside->type = type;
	} else if (header.flags & VXLAN_FLAG_VNI) {
		inside->tunnel = FLOW_TUNNEL_VXLAN;
		inside->tunnel_id = from_network_32(header.vni) >> 8;
		inside->offset = at + sizeof(header);
		inside->type = ETHERTYPE_BRIDGED;
	}
}

/* Detect the tunnel in `packet` with key `key`; inside->type stays 0 if there is none. */
FLOW_INLINE void look_inside(struct __sk_buff *skb, struct flow_key *key, struct packet *packet, struct carried *inside)
{
	u64 end = packet->ip_offset + packet->ip_octets;
	u32 tunnel;

	inside->offset = packet->transport_offset;
	if (inside->offset > CARRIED_OFFSET_MAX)
		return;
	switch (key->protocol) {
	case PROTOCOL_IPIP:
		inside->tunnel = FLOW_TUNNEL_IP;
		inside->type = ETHERTYPE_IPV4;
		break;
	case PROTOCOL_IPV6:
		inside->tunnel = FLOW_TUNNEL_IP;
		inside->type = ETHERTYPE_IPV6;
		break;
	case PROTOCOL_GRE:
		inside_gre(skb, end, inside);
		break;
	case PROTOCOL_UDP:
		tunnel = udp_tunnel(key->destination_port);
		if (tunnel)
			inside_udp(skb, end, tunnel, inside);
		break;
	}
	if (inside->offset >= end || inside->offset > CARRIED_OFFSET_MAX)
		inside->type = 0;
}

/* Parse the inner packet into work->inner and work->inner_key, if it is a complete IP packet. */
FLOW_INLINE int parse_inside(struct __sk_buff *skb, struct carried *inside, u64 end, struct work *work)
{
	u64 type = inside->type, offset = inside->offset & CARRIED_OFFSET_MASK;
	struct flow_key *key = &work->inner_key;
	struct packet *packet = &work->inner;
	u16 inner_type;
	int parsed;

	if (type == ETHERTYPE_BRIDGED) {
		if (offset + ETHERNET_HEADER > end ||
		    bpf_skb_load_bytes(skb, offset + ETHERNET_TYPE_OFFSET, &inner_type, sizeof(inner_type)))
			return FLOW_IGNORED_OTHER;
		packet->mac_offset = offset;
		packet->has_mac = 1;
		type = from_network_16(inner_type);
		offset += ETHERNET_HEADER;
		if (is_tag(type))
			type = skip_tags(skb, type, &offset, CARRIED_OFFSET_MASK, 0, key);
		if (type != ETHERTYPE_IPV4 && type != ETHERTYPE_IPV6)
			type = skip_headers(skb, type, &offset, end, CARRIED_OFFSET_MASK, key);
	}
	if (offset > CARRIED_OFFSET_MAX || offset >= end)
		return FLOW_IGNORED_MALFORMED;
	packet->ip_offset = offset;
	if (type == ETHERTYPE_IPV4)
		parsed = parse_ipv4(skb, offset, end, key, packet, 0);
	else if (type == ETHERTYPE_IPV6)
		parsed = parse_ipv6(skb, offset, end, key, packet, 0);
	else
		return FLOW_IGNORED_OTHER;
	if (parsed == PARSED_IP && packet->transport_offset)
		parse_transport(skb, packet->transport_offset & OFFSET_MASK, packet->ip_offset + packet->ip_octets, key,
				packet);
	return parsed;
}

/*
 * Replace a parsed packet by its inner one: work->key and work->packet become the innermost, work->parent and
 * work->outer the outermost packet. Fragments, and packets without a complete inner IP packet, stay unchanged.
 */
FLOW_INLINE void decapsulate(struct __sk_buff *skb, struct work *work)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < TUNNELS_MAX; i++) {
		struct carried *inside = &work->inside;

		__builtin_memset(inside, 0, sizeof(*inside));
		if (!work->packet.transport_offset || work->packet.fragment)
			return;
		look_inside(skb, &work->key, &work->packet, inside);
		if (!inside->type)
			return;
		__builtin_memset(&work->inner_key, 0, sizeof(work->inner_key));
		__builtin_memset(&work->inner, 0, sizeof(work->inner));
		work->inner.carried = 1;
		if (parse_inside(skb, inside, work->packet.ip_offset + work->packet.ip_octets, work) != PARSED_IP)
			return;
		if (!work->carried) {
			work->carried = 1;
			work->parent = work->key;
			work->parent.kind = FLOW_KIND_PARENT;
			work->parent.tunnel = inside->tunnel;
			work->parent.tunnel_id = inside->tunnel_id;
			work->outer = work->packet;
		}
		work->inner_key.ifindex = work->key.ifindex;
		work->inner_key.direction = work->key.direction;
		if (!work->inner_key.tunnel) {   /* else a label or a session inside */
			work->inner_key.tunnel = inside->tunnel;
			work->inner_key.tunnel_id = inside->tunnel_id;
		}
		work->key = work->inner_key;
		work->packet = work->inner;
	}
}

#endif
