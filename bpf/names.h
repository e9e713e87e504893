/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Which packets tell a name: DNS messages, and the first packets of a connection that name its server: TLS ClientHello,
 * HTTP request, QUIC Initial. ABI between bpf/flow.bpf.c and flowtop/capture/ebpf/names.py.
 *
 * The programs of flow.bpf.c hand such packets to a program of its own (a tail call), with what they have parsed. Packets
 * of a known flow cost them two comparisons. No maps here: bcc rewrites map accesses in the main file only.
 */
#ifndef FLOWTOP_NAMES_H
#define FLOWTOP_NAMES_H

#include "flow.h"

/* Precedes each packet's payload, after the transport header, in the ring buffer. */
struct name_record {
	struct flow_key key;
	flow_u64 time_ns;                 /* as first_ns of flows: the same clock, the same resolution */
	flow_u32 octets;                  /* of the payload on the wire */
	flow_u32 captured;                /* octets that follow here */
	flow_u32 segment;                 /* of a super-packet: octets of each of its datagrams or segments; else 0 */
	flow_u32 pad;
};

#ifndef __cplusplus
_Static_assert(sizeof(struct name_record) == sizeof(struct flow_key) + 24, "name_record has no holes");
#endif

#ifdef FLOW_NAMES
#include "copy.h"

#define NAMES_FIRST_PACKETS 8         /* of a flow's entry, so again after each drain */
#define NAMES_MOST_OCTETS 4096        /* a ClientHello with post-quantum keys has about 1,800, in one super-packet */
#define NAMES_UNFINISHED 1024
#define NAMES_FOLLOWING 3             /* segments after a ClientHello that did not fit in one */
#define NAMES_HEAD 8
#define PORT_DNS 53
#define PORT_HTTPS 443
#define TLS_HANDSHAKE 22
#define TLS_CLIENT_HELLO 1
#define TLS_RECORD_HEADER 5
#define QUIC_VERSION_1 0x00000001
#define QUIC_VERSION_2 0x6b3343cf

/* What a flow's program hands over, per CPU. */
struct handed {
	struct flow_key key;
	u64 now;
	u64 offset;                   /* of the payload in the frame */
	u64 end;
	u64 before;                   /* packets of its flow's entry before it; NOT_COUNTED: it is in none */
	u32 transport_offset;         /* 0: there is no transport header */
	u32 fragment;
};

FLOW_INLINE int is_dns_datagram(struct flow_key *key)
{
	return key->protocol == PROTOCOL_UDP && (key->source_port == PORT_DNS || key->destination_port == PORT_DNS);
}

FLOW_INLINE int has_dns_port(struct flow_key *key)
{
	return key->source_port == PORT_DNS || key->destination_port == PORT_DNS;
}

/* Whether packets of this flow may tell a name at all: the first ones of its entry, and every DNS datagram, which names
 * other flows, so also one that is not counted. */
FLOW_INLINE int may_tell_name(struct flow_key *key, u64 before)
{
	if (key->kind != FLOW_KIND_FLOW)
		return 0;
	if (is_dns_datagram(key))
		return 1;
	if (before >= NAMES_FIRST_PACKETS)
		return 0;
	return key->protocol == PROTOCOL_TCP ||
	       (key->protocol == PROTOCOL_UDP && key->destination_port == PORT_HTTPS);
}

/* `head`: the first octets of the payload. */
FLOW_INLINE int is_client_hello(const u8 *head)
{
	return head[0] == TLS_HANDSHAKE && head[1] == 3 && head[TLS_RECORD_HEADER] == TLS_CLIENT_HELLO;
}

#define FOUR_OCTETS(a, b, c, d) ((u32)(a) << 24 | (u32)(b) << 16 | (u32)(c) << 8 | (u32)(d))

FLOW_INLINE int is_http_request(const u8 *head)
{
	switch (FOUR_OCTETS(head[0], head[1], head[2], head[3])) {
	case FOUR_OCTETS('G', 'E', 'T', ' '):
	case FOUR_OCTETS('P', 'O', 'S', 'T'):
	case FOUR_OCTETS('H', 'E', 'A', 'D'):
	case FOUR_OCTETS('P', 'U', 'T', ' '):
	case FOUR_OCTETS('D', 'E', 'L', 'E'):
	case FOUR_OCTETS('O', 'P', 'T', 'I'):
	case FOUR_OCTETS('P', 'A', 'T', 'C'):
		return 1;
	}
	return 0;
}

/* A client's Initial packet (RFC 9000, RFC 9369); a server's is sent from the port, not to it. */
FLOW_INLINE int is_quic_initial(const u8 *head)
{
	u32 version = FOUR_OCTETS(head[1], head[2], head[3], head[4]);

	return ((head[0] & 0xf0) == 0xc0 && version == QUIC_VERSION_1) ||
	       ((head[0] & 0xf0) == 0xd0 && version == QUIC_VERSION_2);
}
#endif

#endif
