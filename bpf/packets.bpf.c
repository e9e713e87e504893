/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * tc programs that copy packets of selected flows into a ring buffer. They are attached beside those of flow.bpf.c only
 * while packets are being written, so they cost nothing otherwise, and do not affect the totals. Like those, they never
 * modify, delay or drop a packet and never end classification.
 *
 * Compiled by bcc with -DFLOW_SNAP=N (maximum octets per frame), -DFLOW_RING_PAGES=N (of 4096 octets, a power of two)
 * and, for a filter, -DFLOW_FILTER(key)=EXPRESSION as in flow.bpf.c. -DFLOW_SHARE=N limits the packets per flow, with
 * an LRU map; user space counts again. With -DFLOW_DECAP, a packet in a tunnel belongs to its inner flow, as when
 * counting; the whole frame is copied.
 */
#include "parse.h"
#include "fragments.h"
#ifdef FLOW_DECAP
#include "decap.h"
#endif
#include "copy.h"
#include "packets.h"

#define VERDICT_NEXT (-1)             /* TC_ACT_UNSPEC, TCX_NEXT */
#define NO_WAKEUP 1                   /* BPF_RB_NO_WAKEUP: the reader polls many times per second */
#define SHARE_ENTRIES 65536
#define LOSS_ENTRIES 4096

/* By number: bcc's declaration truncates the 64-bit result. The fine clock, to distinguish packets. */
static u64 (*monotonic_ns)(void) = (void *)5;

BPF_RINGBUF_OUTPUT(packets, FLOW_RING_PAGES);
BPF_TABLE("percpu_hash", u32, struct packet_losses, losses, LOSS_ENTRIES);
BPF_TABLE("lru_hash", struct fragment_key, struct fragment_ports, fragments, FRAGMENT_ENTRIES);
#ifdef FLOW_SHARE
BPF_TABLE("lru_hash", struct flow_key, u64, shares, SHARE_ENTRIES);
#endif
#ifdef FLOW_DECAP
BPF_TABLE("percpu_array", u32, struct work, works, 1);
#endif

/* Later fragments get the ports of the first one; these programs have a map of their own. */
FLOW_INLINE void join_fragment(struct flow_key *key, struct packet *packet, u64 now)
{
	struct fragment_key whole = {};
	struct fragment_ports ports = {};

	name_fragments(&whole, key, packet);
	if (packet->fragment == FRAGMENT_FIRST) {
		note_ports(&ports, key, now);
		fragments.update(&whole, &ports);
	} else {
		take_ports(key, fragments.lookup(&whole), now);
	}
}

FLOW_INLINE struct packet_losses *find_losses(u32 ifindex)
{
	struct packet_losses *entry = losses.lookup(&ifindex);

	if (!entry) {
		struct packet_losses none = {};

		losses.insert(&ifindex, &none);
		entry = losses.lookup(&ifindex);
	}
	return entry;
}

/* Write a record of the frame from `link` on, with `room` octets for it, a constant for the verifier. Returns 0 if the
 * ring is full. */
FLOW_INLINE int emit(struct __sk_buff *skb, const u32 layer, struct flow_key *key, u64 now, u32 link, u32 wire,
		     u32 captured, const u32 room)
{
	struct packet_record *record = packets.ringbuf_reserve(sizeof(*record) + room);
	u8 *frame;

	if (!record)
		return 0;
	frame = (u8 *)(record + 1);
	__builtin_memcpy(&record->key, key, sizeof(*key));
	record->time_ns = now;
	record->wire = wire;
	record->captured = captured;
	if (layer == FLOW_LAYER_ETHERNET && skb->vlan_present && captured > 16) {
		/* The tag is in metadata: restore it after the MAC addresses. */
		u16 type = skb->vlan_proto, control = skb->vlan_tci;

		bpf_skb_load_bytes(skb, 0, frame, 12);
		__builtin_memcpy(frame + 12, &type, 2);
		frame[14] = control >> 8;
		frame[15] = control;
		copy_frame(skb, 12, frame + 16, captured - 16, room - 16);
	} else {
		copy_frame(skb, link, frame, captured, room);
	}
	packets.ringbuf_submit(record, NO_WAKEUP);
	return 1;
}

/* Use the smallest record that fits, so that the ring buffer holds more packets. */
FLOW_INLINE int emit_snapped(struct __sk_buff *skb, const u32 layer, struct flow_key *key, u32 link, u64 now)
{
	u32 wire = skb->len - link, captured;

	if (layer == FLOW_LAYER_ETHERNET && skb->vlan_present)
		wire += VLAN_TAG;
	captured = wire < FLOW_SNAP ? wire : FLOW_SNAP;
#if FLOW_SNAP > 128
	if (captured <= 128)
		return emit(skb, layer, key, now, link, wire, captured, 128);
#endif
#if FLOW_SNAP > 512
	if (captured <= 512)
		return emit(skb, layer, key, now, link, wire, captured, 512);
#endif
#if FLOW_SNAP > 1664
	if (captured <= 1664)
		return emit(skb, layer, key, now, link, wire, captured, 1664);
#endif
#if FLOW_SNAP > 16384
	if (captured <= 16384)
		return emit(skb, layer, key, now, link, wire, captured, 16384);
#endif
#if FLOW_SNAP > 69632
	if (captured <= 69632)
		return emit(skb, layer, key, now, link, wire, captured, 69632);
#endif
	return emit(skb, layer, key, now, link, wire, captured, FLOW_SNAP < 20 ? 20 : FLOW_SNAP);
}

FLOW_INLINE int observe(struct __sk_buff *skb, const u32 direction, const u32 layer)
{
	struct packet_losses *lost;
	struct flow_key *key;
	struct packet *packet;
	u64 now;
#ifdef FLOW_DECAP
	u32 zero = 0;
	struct work *work = works.lookup(&zero);

	if (!work)
		return VERDICT_NEXT;
	__builtin_memset(&work->key, 0, sizeof(work->key));
	__builtin_memset(&work->packet, 0, sizeof(work->packet));
	work->carried = 0;
	key = &work->key;
	packet = &work->packet;
#else
	struct flow_key own_key = {};
	struct packet own_packet = {};

	key = &own_key;
	packet = &own_packet;
#endif
	key->ifindex = skb->ifindex;
	key->direction = direction;
	if (parse_frame(skb, layer, key, packet, 0) != PARSED_IP)
		return VERDICT_NEXT;
#ifdef FLOW_DECAP
	decapsulate(skb, work);
#endif
	now = monotonic_ns();
	if (packet->fragment)
		join_fragment(key, packet, now);
#ifdef FLOW_FILTER
	if (!(FLOW_FILTER((key))))
		return VERDICT_NEXT;
#endif
#ifdef FLOW_SHARE
	u64 one = 1, *had = shares.lookup(key);

	if (had && *had >= FLOW_SHARE) {
		lost = find_losses(key->ifindex);
		if (lost)
			lost->capped++;
		return VERDICT_NEXT;
	}
#endif
	if (!emit_snapped(skb, layer, key, packet->link_octets, now)) {
		lost = find_losses(key->ifindex);
		if (lost)
			lost->dropped++;
		return VERDICT_NEXT;
	}
#ifdef FLOW_SHARE
	if (had)
		__sync_fetch_and_add(had, 1);
	else
		shares.update(key, &one);
#endif
	return VERDICT_NEXT;
}

int packets_ingress_ethernet(struct __sk_buff *skb)
{
	return observe(skb, FLOW_INGRESS, FLOW_LAYER_ETHERNET);
}

int packets_egress_ethernet(struct __sk_buff *skb)
{
	return observe(skb, FLOW_EGRESS, FLOW_LAYER_ETHERNET);
}

int packets_ingress_ip(struct __sk_buff *skb)
{
	return observe(skb, FLOW_INGRESS, FLOW_LAYER_IP);
}

int packets_egress_ip(struct __sk_buff *skb)
{
	return observe(skb, FLOW_EGRESS, FLOW_LAYER_IP);
}
