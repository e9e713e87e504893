/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * What is inside tunnels (flowtop/capture/packets/tunnels.py and decap.py, field by field). Only with -DFLOW_DECAP.
 *
 * Key and packet live in a map's memory here, not on the stack: the verifier then knows nothing of what is in them, so
 * that all paths through one tunnel look the same to it where the next one begins.
 */
#ifndef FLOWTOP_DECAP_H
#define FLOWTOP_DECAP_H

#include "parse.h"

#define TUNNELS_MAX 4                 /* one in another */
#define MPLS_LABELS_MAX 8
/* How far into a frame carried packets may begin: ten extension headers of 2048 octets after it end below OFFSET_MASK. */
#define CARRIED_OFFSET_MAX 0x2fff
#define CARRIED_OFFSET_MASK 0x3fff

#define PROTOCOL_IPIP 4
#define PROTOCOL_IPV6 41
#define PROTOCOL_GRE 47
#define ETHERTYPE_BRIDGED 0x6558      /* Transparent Ethernet Bridging */
#define ETHERTYPE_MPLS 0x8847
#define ETHERTYPE_MPLS_UPSTREAM 0x8848
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
#define PORT_VXLAN_LINUX 8472         /* Linux's before IANA gave one */
#define PORT_GENEVE 6081
#define PORT_MPLS 6635                /* RFC 7510 */
#define VXLAN_FLAG_VNI 0x08
#define VNI_HEADER 8

/* One packet on its way out of its tunnels. */
struct work {
	struct flow_key key;
	struct packet packet;
	struct flow_key inner_key;
	struct packet inner;
	struct flow_key parent;       /* the outermost packet's, as FLOW_KIND_PARENT */
	struct packet outer;
	u64 carried;                  /* whether there is such a one */
};

/* What a packet carries. */
struct carried {
	u64 offset;                   /* in the frame */
	u32 type;                     /* EtherType; ETHERTYPE_BRIDGED: an Ethernet frame; 0: nothing that is looked into */
	u32 tunnel;                   /* enum flow_tunnel */
	u32 tunnel_id;
};

/* Labels to the bottom of the stack (RFC 3032). What follows is IP by its version, else Ethernet, perhaps after a control word. */
FLOW_INLINE void inside_mpls(struct __sk_buff *skb, u64 end, struct carried *found)
{
	u32 label, i;
	u8 first;

	found->type = 0;
#pragma clang loop unroll(disable)
	for (i = 0; i < MPLS_LABELS_MAX; i++) {
		if (found->offset + sizeof(label) >= end ||
		    bpf_skb_load_bytes(skb, found->offset & CARRIED_OFFSET_MASK, &label, sizeof(label)))
			return;
		label = from_network_32(label);
		found->offset = (found->offset + sizeof(label)) & CARRIED_OFFSET_MASK;
		found->tunnel = FLOW_TUNNEL_MPLS;
		found->tunnel_id = label >> 12;
		if (label & 0x100)
			break;
	}
	if (i == MPLS_LABELS_MAX || bpf_skb_load_bytes(skb, found->offset, &first, sizeof(first)))
		return;
	if (first >> 4 == 4)
		found->type = ETHERTYPE_IPV4;
	else if (first >> 4 == 6)
		found->type = ETHERTYPE_IPV6;
	else
		found->type = ETHERTYPE_BRIDGED;
	if (first >> 4 == 0)
		found->offset += 4;
}

/* Type I has no header and no sequence number; II has 8 octets, III 12 and perhaps 8 more (draft-foschiano-erspan). */
FLOW_INLINE void inside_erspan(struct __sk_buff *skb, u64 end, u64 octets, struct carried *found)
{
	u16 words[6];
	u64 at = found->offset & CARRIED_OFFSET_MASK;

	found->tunnel = FLOW_TUNNEL_ERSPAN;
	found->type = ETHERTYPE_BRIDGED;
	if (!octets)
		return;
	found->type = 0;
	if (at + octets > end || bpf_skb_load_bytes(skb, at, words, ERSPAN_HEADER))
		return;
	found->tunnel_id = from_network_16(words[1]) & ERSPAN_SESSION_MASK;
	if (octets == ERSPAN3_HEADER) {
		if (bpf_skb_load_bytes(skb, at, words, ERSPAN3_HEADER))
			return;
		if (from_network_16(words[5]) & 1)
			octets += ERSPAN3_PLATFORM_HEADER;
	}
	found->type = ETHERTYPE_BRIDGED;
	found->offset = at + octets;
}

/* RFC 2784, keys and sequence numbers of RFC 2890. */
FLOW_INLINE void inside_gre(struct __sk_buff *skb, u64 end, struct carried *found)
{
	u64 at = found->offset & CARRIED_OFFSET_MASK, flags, type;
	u16 header[2];
	u32 key;

	if (at + sizeof(header) > end || bpf_skb_load_bytes(skb, at, header, sizeof(header)))
		return;
	flags = from_network_16(header[0]);
	type = from_network_16(header[1]);
	if (flags & GRE_NOT_READ)
		return;
	at += sizeof(header) + (flags & GRE_CHECKSUM ? 4 : 0);
	found->tunnel = FLOW_TUNNEL_GRE;
	if (flags & GRE_KEY) {
		if (at + sizeof(key) > end || bpf_skb_load_bytes(skb, at & CARRIED_OFFSET_MASK, &key, sizeof(key)))
			return;
		found->tunnel_id = from_network_32(key);
		at += sizeof(key);
	}
	found->offset = at + (flags & GRE_SEQUENCE ? 4 : 0);
	if (type == ETHERTYPE_MPLS || type == ETHERTYPE_MPLS_UPSTREAM)
		inside_mpls(skb, end, found);
	else if (type == ETHERTYPE_ERSPAN)
		inside_erspan(skb, end, flags & GRE_SEQUENCE ? ERSPAN_HEADER : 0, found);
	else if (type == ETHERTYPE_ERSPAN3)
		inside_erspan(skb, end, ERSPAN3_HEADER, found);
	else if (type == ETHERTYPE_IPV4 || type == ETHERTYPE_IPV6 || type == ETHERTYPE_BRIDGED)
		found->type = type;
}

/* VXLAN (RFC 7348), Geneve (RFC 8926) and MPLS (RFC 7510), by their ports. */
FLOW_INLINE void inside_udp(struct __sk_buff *skb, u64 end, u16 port, struct carried *found)
{
	u64 at = (found->offset & CARRIED_OFFSET_MASK) + UDP_HEADER;
	struct {
		u8  flags;
		u8  more;
		u16 type;
		u32 vni;
	} header;

	if (at + sizeof(header) > end || bpf_skb_load_bytes(skb, at, &header, sizeof(header)))
		return;
	found->offset = at;
	if (port == PORT_MPLS) {
		inside_mpls(skb, end, found);
	} else if (port == PORT_GENEVE) {
		u64 type = from_network_16(header.type);

		if (header.flags >> 6)
			return;
		found->tunnel = FLOW_TUNNEL_GENEVE;
		found->tunnel_id = from_network_32(header.vni) >> 8;
		found->offset = at + sizeof(header) + (header.flags & 0x3f) * 4;
		if (type == ETHERTYPE_MPLS || type == ETHERTYPE_MPLS_UPSTREAM)
			inside_mpls(skb, end, found);
		else if (type == ETHERTYPE_IPV4 || type == ETHERTYPE_IPV6 || type == ETHERTYPE_BRIDGED)
			found->type = type;
	} else if (header.flags & VXLAN_FLAG_VNI) {
		found->tunnel = FLOW_TUNNEL_VXLAN;
		found->tunnel_id = from_network_32(header.vni) >> 8;
		found->offset = at + sizeof(header);
		found->type = ETHERTYPE_BRIDGED;
	}
}

/* What `packet`, whose key is `key`, carries; found->type stays 0 when that is nothing. */
FLOW_INLINE void look_inside(struct __sk_buff *skb, struct flow_key *key, struct packet *packet, struct carried *found)
{
	u64 end = packet->ip_offset + packet->ip_octets;

	found->offset = packet->transport_offset;
	if (found->offset > CARRIED_OFFSET_MAX)
		return;
	switch (key->protocol) {
	case PROTOCOL_IPIP:
		found->tunnel = FLOW_TUNNEL_IP;
		found->type = ETHERTYPE_IPV4;
		break;
	case PROTOCOL_IPV6:
		found->tunnel = FLOW_TUNNEL_IP;
		found->type = ETHERTYPE_IPV6;
		break;
	case PROTOCOL_GRE:
		inside_gre(skb, end, found);
		break;
	case PROTOCOL_UDP:
		if (key->destination_port == PORT_VXLAN || key->destination_port == PORT_VXLAN_LINUX ||
		    key->destination_port == PORT_GENEVE || key->destination_port == PORT_MPLS)
			inside_udp(skb, end, key->destination_port, found);
		break;
	}
	if (found->offset >= end || found->offset > CARRIED_OFFSET_MAX)
		found->type = 0;
}

/* The carried packet into work->inner and its key, if it is whole IP. */
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
	}
	if (offset > CARRIED_OFFSET_MAX || offset >= end)
		return FLOW_IGNORED_MALFORMED;
	packet->ip_offset = offset;
	if (type == ETHERTYPE_IPV4)
		parsed = parse_ipv4(skb, offset, end, key, packet);
	else if (type == ETHERTYPE_IPV6)
		parsed = parse_ipv6(skb, offset, end, key, packet);
	else
		return FLOW_IGNORED_OTHER;
	if (parsed == PARSED_IP && packet->ip_octets > end - offset)
		return FLOW_IGNORED_MALFORMED;
	if (parsed == PARSED_IP && packet->transport_offset)
		parse_transport(skb, packet->transport_offset & OFFSET_MASK, packet->ip_offset + packet->ip_octets, key,
				packet);
	return parsed;
}

/*
 * A parsed packet as what it carries: work->key and work->packet become the innermost ones, work->parent and
 * work->outer the outermost. A fragment, and what carries no whole IP packet, stays as it is.
 */
FLOW_INLINE void decapsulate(struct __sk_buff *skb, struct work *work)
{
#pragma clang loop unroll(disable)
	for (u32 i = 0; i < TUNNELS_MAX; i++) {
		struct carried inside = {};

		if (!work->packet.transport_offset || work->packet.fragment)
			return;
		look_inside(skb, &work->key, &work->packet, &inside);
		if (!inside.type)
			return;
		__builtin_memset(&work->inner_key, 0, sizeof(work->inner_key));
		__builtin_memset(&work->inner, 0, sizeof(work->inner));
		work->inner.carried = 1;
		if (parse_inside(skb, &inside, work->packet.ip_offset + work->packet.ip_octets, work) != PARSED_IP)
			return;
		if (!work->carried) {
			work->carried = 1;
			work->parent = work->key;
			work->parent.kind = FLOW_KIND_PARENT;
			work->parent.tunnel = inside.tunnel;
			work->parent.tunnel_id = inside.tunnel_id;
			work->outer = work->packet;
		}
		work->inner_key.ifindex = work->key.ifindex;
		work->inner_key.direction = work->key.direction;
		work->inner_key.tunnel = inside.tunnel;
		work->inner_key.tunnel_id = inside.tunnel_id;
		work->key = work->inner_key;
		work->packet = work->inner;
	}
}

#endif
