/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Update of an entry's counters by a packet, and the fields set by its first packet. No maps here: bcc rewrites map
 * accesses in the main file only.
 */
#ifndef FLOWTOP_COUNTERS_H
#define FLOWTOP_COUNTERS_H

#include "parse.h"

#define SRTT_SHIFT 3                  /* bpf_tcp_sock has the smoothed round-trip time in units of 1/8 us */

/* Helpers by number, as in flow.bpf.c. */
static u64 (*fine_ns)(void) = (void *)5;
static struct bpf_tcp_sock *(*tcp_sock)(struct bpf_sock *socket) = (void *)96;

/* Read TCP state from the sending socket. Does nothing without a local TCP socket (forwarded packets, SYN cookies). */
FLOW_INLINE void read_socket(struct __sk_buff *skb, struct flow_counters *counters)
{
	struct bpf_sock *socket = skb->sk;
	struct bpf_tcp_sock *tcp;

	if (!socket)
		return;
	tcp = tcp_sock(socket);
	if (!tcp)
		return;
	counters->smoothed_rtt_us = tcp->srtt_us >> SRTT_SHIFT;
	counters->congestion_window = tcp->snd_cwnd;
	counters->retransmitted = tcp->total_retrans;
}

FLOW_INLINE void note_times(struct flow_counters *counters, u32 fresh, u64 now)
{
	if (fresh & TCP_SYN)
		counters->syn_ns = now;
	if (fresh & TCP_FIN)
		counters->fin_ns = now;
	if (fresh & TCP_RST)
		counters->rst_ns = now;
}

FLOW_INLINE void add_packet(struct __sk_buff *skb, const u32 direction, struct flow_counters *counters,
			    struct packet *packet, u64 now)
{
	u32 fresh = packet->tcp_bits & ~counters->tcp_bits_hint;

	/* Once per clock tick and at new TCP bits: this is often enough, and costs other packets nothing. */
	if (direction == FLOW_EGRESS && packet->tcp_bits && (fresh || counters->last_ns != now))
		read_socket(skb, counters);

	__sync_fetch_and_add(&counters->packets, packet->packets);
	__sync_fetch_and_add(&counters->octets, packet->octets);
	counters->last_ns = now;
	if (fresh) {
#pragma clang loop unroll(disable)
		for (u32 i = 0; i < FLOW_TCP_SEEN; i++)
			if (fresh >> i & 1)
				counters->tcp_bit_seen[i] = 1;
		note_times(counters, fresh, now);
		counters->tcp_bits_hint |= packet->tcp_bits;
	}
}

FLOW_INLINE void first_packet(struct flow_counters *counters, struct packet *packet, u64 now)
{
	counters->packets = packet->packets;
	counters->octets = packet->octets;
	counters->first_ns = now;
	counters->last_ns = now;
	counters->tos = packet->tos;
	counters->ttl = packet->ttl;
	counters->fragments = packet->fragment ? packet->packets : 0;
	counters->tcp_bits_hint = packet->tcp_bits;
	note_times(counters, packet->tcp_bits, now);
#pragma unroll
	for (u32 i = 0; i < FLOW_TCP_SEEN; i++)
		counters->tcp_bit_seen[i] = packet->tcp_bits >> i & 1;
}

/* Note identifier and sequence number of a flow's first packet, and its time: round-trip times may be below a tick. */
FLOW_INLINE void note_echo(struct __sk_buff *skb, struct flow_key *key, struct packet *packet, u64 now,
			   struct flow_counters *counters)
{
	u64 offset = packet->transport_offset & OFFSET_MASK;
	u32 type = key->destination_port >> 8;
	struct {
		u16 identifier;
		u16 sequence;
	} echo = {};
	u64 fine;

	if (key->protocol == PROTOCOL_ICMP) {
		if (type != ICMP_ECHO_REQUEST && type != ICMP_ECHO_REPLY)
			return;
	} else if (key->protocol != PROTOCOL_ICMPV6 || (type != ICMPV6_ECHO_REQUEST && type != ICMPV6_ECHO_REPLY)) {
		return;
	}
	offset += sizeof(struct icmp_header) + 2;    /* the checksum */
	if (!packet->transport_offset || offset + sizeof(echo) > packet->ip_offset + packet->ip_octets ||
	    bpf_skb_load_bytes(skb, offset, &echo, sizeof(echo)))
		return;
	counters->echo = 1;
	counters->echo_identifier = from_network_16(echo.identifier);
	counters->echo_sequence = from_network_16(echo.sequence);
	fine = fine_ns();
	counters->echo_after_ns = fine > now ? fine - now : 0;
}

FLOW_INLINE void note_macs(struct __sk_buff *skb, u64 offset, struct flow_counters *counters)
{
	struct {
		u8 destination[6];
		u8 source[6];
	} mac = {};

	bpf_skb_load_bytes(skb, offset, &mac, sizeof(mac));
	__builtin_memcpy(counters->source_mac, mac.source, sizeof(mac.source));
	__builtin_memcpy(counters->destination_mac, mac.destination, sizeof(mac.destination));
}

#endif
