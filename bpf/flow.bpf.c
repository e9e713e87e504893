/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * tc programs that account every packet of an Observation Point: into its flow, into the aggregate entry when the map
 * is full, into an ignored kind when it is not IP, into `lost` when nothing else worked. They never change, delay or
 * drop a packet and never end classification.
 *
 * Compiled by bcc, with -DFLOW_MAP_ENTRIES=N, and -DFLOW_FINE_CLOCK before Linux 5.11. With a capture filter,
 * -DFLOW_WANTED(key)=EXPRESSION says of a struct flow_key which flows are counted (flowtop/filters/kernel.py)
 * until FLOW_CONTROL_EVERYTHING lifts it.
 * With -DFLOW_DECAP packets in tunnels are counted as what is inside, and beside that what carries them.
 */
#include "parse.h"
#include "fragments.h"
#include "counters.h"
#ifdef FLOW_DECAP
#include "decap.h"
#endif

#define VERDICT_NEXT (-1)             /* TC_ACT_UNSPEC, TCX_NEXT */
#define AGGREGATE_ENTRIES 4096
#define REST_ENTRIES 8192             /* interfaces x directions x IP versions: 2048 interfaces */
#define REST_PROTOCOL 255             /* reserved by IANA: packets that do carry it share the entry */

/* By number, not by bcc's declarations: some of those cut the 64-bit result, and old ones lack the coarse clock. */
static u64 (*socket_cookie)(void *skb) = (void *)46;
static u64 (*jiffies)(void) = (void *)118;
#ifdef FLOW_FINE_CLOCK
static u64 (*monotonic_ns)(void) = (void *)5;
#else
static u64 (*monotonic_ns)(void) = (void *)160;
#endif

BPF_TABLE("hash", struct flow_key, struct flow_counters, flows_a, FLOW_MAP_ENTRIES);
BPF_TABLE("hash", struct flow_key, struct flow_counters, flows_b, FLOW_MAP_ENTRIES);
BPF_TABLE("hash", struct flow_key, struct flow_counters, aggregates_a, AGGREGATE_ENTRIES);
BPF_TABLE("hash", struct flow_key, struct flow_counters, aggregates_b, AGGREGATE_ENTRIES);
BPF_TABLE("hash", struct flow_key, struct flow_counters, rest_a, REST_ENTRIES);
BPF_TABLE("hash", struct flow_key, struct flow_counters, rest_b, REST_ENTRIES);
BPF_TABLE("array", u32, u32, control, 1);                /* [0]: enum flow_control */
BPF_TABLE("array", u32, u32, inserted, 2);               /* by side: entries since its last drain */
BPF_TABLE("percpu_array", u32, struct flow_totals, totals, 2 * FLOW_TOTALS_SIDE);
BPF_TABLE("percpu_hash", struct flow_totals_key, struct flow_totals, totals_overflow, 4096);
BPF_TABLE("lru_hash", struct fragment_key, struct fragment_ports, fragments, FRAGMENT_ENTRIES);

/* The clock as this CPU last read it. */
struct reading {
	u64 jiffies;
	u64 ns;
};

BPF_TABLE("percpu_array", u32, struct reading, readings, 1);
#ifdef FLOW_DECAP
BPF_TABLE("percpu_array", u32, struct work, works, 1);
#endif

/* Keeps the compiler from merging the branches of both sides: one call with either map cannot be inlined by the kernel. */
#define keep_apart() asm volatile("" ::: "memory")

FLOW_INLINE struct flow_counters *find_flow(u32 side, struct flow_key *key)
{
	struct flow_counters *counters;

	if (side) {
		counters = flows_b.lookup(key);
		keep_apart();
	} else {
		counters = flows_a.lookup(key);
	}
	return counters;
}

FLOW_INLINE int insert_flow(u32 side, struct flow_key *key, struct flow_counters *counters)
{
	if (side)
		return flows_b.insert(key, counters);
	return flows_a.insert(key, counters);
}

FLOW_INLINE struct flow_counters *find_aggregate(u32 side, struct flow_key *key)
{
	if (side)
		return aggregates_b.lookup(key);
	return aggregates_a.lookup(key);
}

FLOW_INLINE int insert_aggregate(u32 side, struct flow_key *key, struct flow_counters *counters)
{
	if (side)
		return aggregates_b.insert(key, counters);
	return aggregates_a.insert(key, counters);
}

FLOW_INLINE struct flow_counters *find_rest(u32 side, struct flow_key *key)
{
	if (side)
		return rest_b.lookup(key);
	return rest_a.lookup(key);
}

FLOW_INLINE int insert_rest(u32 side, struct flow_key *key, struct flow_counters *counters)
{
	if (side)
		return rest_b.insert(key, counters);
	return rest_a.insert(key, counters);
}

/* This CPU's books of the Observation Point. Entry 0 is nobody's: packets seen before user space made room are in it. */
FLOW_INLINE struct flow_totals *find_totals(u32 side, u32 ifindex, const u32 direction)
{
	u32 index = side * FLOW_TOTALS_SIDE + (ifindex % FLOW_TOTALS_SLOTS) * 2 + direction;
	struct flow_totals *books = totals.lookup(&index);

	if (books && books->ifindex != ifindex) {
		struct flow_totals_key key = {.ifindex = ifindex, .direction = direction, .side = side};

		books = totals_overflow.lookup(&key);
		if (!books) {
			index = side * FLOW_TOTALS_SIDE + direction;
			books = totals.lookup(&index);
		}
	}
	return books;
}

/*
 * Monotonic time, as coarse as the tick. The coarse clock moves with jiffies, which the kernel inlines to one load, so
 * the helper is called once a tick and CPU, not once a packet.
 */
FLOW_INLINE u64 now_ns(void)
{
#ifdef FLOW_FINE_CLOCK
	return monotonic_ns();
#else
	u32 zero = 0;
	struct reading *last = readings.lookup(&zero);
	u64 tick = jiffies();

	if (!last)
		return monotonic_ns();
	if (last->jiffies != tick) {
		last->ns = monotonic_ns();
		last->jiffies = tick;
	}
	return last->ns;
#endif
}

/*
 * What a packet without an entry of its own is added to: one entry per interface, direction, IP version and protocol;
 * and one for all protocols together in a map apart, when a scan of protocols has filled the map of those.
 * Gives the entry to add the packet to, or NULL when nothing is left to do.
 */
FLOW_INLINE struct flow_counters *open_aggregate(u32 side, struct flow_key *key, struct flow_counters *counters,
						 struct packet *packet, struct flow_totals *books)
{
	struct flow_key rest = {
		.kind = FLOW_KIND_AGGREGATE,
		.ifindex = key->ifindex,
		.direction = key->direction,
		.ip_version = key->ip_version,
		.protocol = key->protocol,
	};
	struct flow_counters *entry = 0;

	books->aggregated_packets += packet->packets;
	books->aggregated_octets += packet->octets;
	if (rest.protocol != REST_PROTOCOL) {
		entry = find_aggregate(side, &rest);
		if (entry || insert_aggregate(side, &rest, counters) == 0)
			return entry;
		entry = find_aggregate(side, &rest);     /* another CPU was first, or the map is full */
		if (entry)
			return entry;
	}
	rest.protocol = REST_PROTOCOL;
	entry = find_rest(side, &rest);
	if (entry || insert_rest(side, &rest, counters) == 0)
		return entry;
	entry = find_rest(side, &rest);
	if (entry)
		return entry;
	books->aggregated_packets -= packet->packets;
	books->aggregated_octets -= packet->octets;
	books->lost_packets += packet->packets;
	books->lost_octets += packet->octets;
	return 0;
}

/*
 * First packet of its flow on this side, as far as the caller could see.
 * Gives the entry to add the packet to, or NULL when nothing is left to do.
 */
FLOW_INLINE struct flow_counters *open_flow(struct __sk_buff *skb, u32 side, const u32 direction,
					    struct flow_key *key, struct packet *packet, u64 now,
					    struct flow_totals *books)
{
	struct flow_counters counters = {}, *entry;
	u32 *entries;

	first_packet(&counters, packet, now);
#ifdef FLOW_DECAP
	if (packet->carried) {
		if (packet->has_mac)
			note_macs(skb, packet->mac_offset & CARRIED_OFFSET_MASK, &counters);
	} else
#endif
	if (books->layer == FLOW_LAYER_ETHERNET)
		note_macs(skb, 0, &counters);
	if (direction == FLOW_EGRESS)
		counters.socket_cookie = socket_cookie(skb);
	if (direction == FLOW_EGRESS && packet->tcp_bits)
		ask_socket(skb, &counters);
	if (insert_flow(side, key, &counters) == 0) {
		entries = inserted.lookup(&side);
		if (entries)
			__sync_fetch_and_add(entries, 1);
		return 0;
	}
	entry = find_flow(side, key);     /* another CPU was first, or the map is full */
	return entry ? entry : open_aggregate(side, key, &counters, packet, books);
}

/* Ports of later fragments from the first one's, which is remembered here. */
FLOW_INLINE void join_fragment(struct flow_key *key, struct packet *packet, u64 now, struct flow_totals *books)
{
	struct fragment_key whole = {};
	struct fragment_ports ports = {};

	name_fragments(&whole, key, packet);
	if (packet->fragment == FRAGMENT_FIRST) {
		note_ports(&ports, key, now);
		fragments.update(&whole, &ports);
	} else if (!take_ports(key, fragments.lookup(&whole), now)) {
		books->unjoined_fragments += packet->packets;
	}
}

FLOW_INLINE void ignore(struct __sk_buff *skb, u32 kind, struct packet *packet, struct flow_totals *books)
{
	u64 packets = skb->gso_segs ? skb->gso_segs : 1;
	u64 octets = skb->len > packet->ip_offset ? skb->len - packet->ip_offset : 0;

	books->packets += packets;
	books->octets += octets;
	if (kind < FLOW_IGNORED_KINDS) {
		books->ignored_packets[kind] += packets;
		books->ignored_octets[kind] += octets;
	}
}

#ifdef FLOW_DECAP
/* Count what carried the packet: in no sum, so when there is no room for it, it is left out. */
FLOW_INLINE void add_parent(struct __sk_buff *skb, u32 side, struct work *work, u64 now, u32 everything,
			    struct flow_totals *books)
{
	struct flow_counters counters = {}, *entry;
	u32 *entries;

#ifdef FLOW_WANTED
	if (!everything && !(FLOW_WANTED((&work->parent))))
		return;
#endif
	entry = find_flow(side, &work->parent);
	if (!entry) {
		first_packet(&counters, &work->outer, now);
		if (books->layer == FLOW_LAYER_ETHERNET)
			note_macs(skb, 0, &counters);
		if (insert_flow(side, &work->parent, &counters) == 0) {
			entries = inserted.lookup(&side);
			if (entries)
				__sync_fetch_and_add(entries, 1);
			return;
		}
		entry = find_flow(side, &work->parent);
	}
	if (entry)
		add_packet(skb, FLOW_INGRESS, entry, &work->outer, now);   /* its socket, if any, is the carried flow's */
}
#endif

/* Into its flow; or into the books' filtered, when the capture filter, unless it is lifted, does not want it. */
FLOW_INLINE void account(struct __sk_buff *skb, u32 side, const u32 direction, struct flow_key *key,
			 struct packet *packet, u64 now, u32 everything, struct flow_totals *books)
{
	struct flow_counters *counters;

	if (packet->fragment)
		join_fragment(key, packet, now, books);
#ifdef FLOW_WANTED
	/* After fragments are joined: a flow is counted whole or not at all. */
	if (!everything && !(FLOW_WANTED((key)))) {
		books->filtered_packets += packet->packets;
		books->filtered_octets += packet->octets;
		if (key->kind == FLOW_KIND_FRAGMENT)
			books->unjoined_fragments -= packet->packets;
		return;
	}
#endif
	counters = find_flow(side, key);
	if (!counters)
		counters = open_flow(skb, side, direction, key, packet, now, books);
	if (counters)
		add_packet(skb, direction, counters, packet, now);
}

FLOW_INLINE int observe(struct __sk_buff *skb, const u32 direction)
{
	struct flow_totals *books;
	u32 zero = 0, control_word, side, *active;
	struct flow_key *key;
	struct packet *packet;
	int parsed;
	u64 now;
#ifdef FLOW_DECAP
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
	active = control.lookup(&zero);
	if (!active)
		return VERDICT_NEXT;
	control_word = *(volatile u32 *)active;   /* once: all of this packet goes to one side */
	side = control_word & FLOW_CONTROL_SIDE;
	books = find_totals(side, key->ifindex, direction);
	if (!books)
		return VERDICT_NEXT;
	books->frames++;
	books->frame_octets += skb->len;
	if (skb->vlan_present)
		books->vlan_stripped_frames++;

	parsed = parse_frame(skb, books->layer, key, packet);
	if (parsed != PARSED_IP) {
		ignore(skb, parsed, packet, books);
		return VERDICT_NEXT;
	}
#ifdef FLOW_DECAP
	decapsulate(skb, work);
#endif
	count_wire(skb, direction, packet);
	books->packets += packet->packets;
	books->octets += packet->octets;
	now = now_ns();
#ifdef FLOW_DECAP
	if (work->carried) {
		u64 around = packet->packets * (work->outer.ip_octets - packet->ip_octets);

		books->encapsulation_octets += around;
		work->outer.packets = packet->packets;
		work->outer.octets = packet->octets + around;
		add_parent(skb, side, work, now, control_word & FLOW_CONTROL_EVERYTHING, books);
	}
#endif
	account(skb, side, direction, key, packet, now, control_word & FLOW_CONTROL_EVERYTHING, books);
	return VERDICT_NEXT;
}

int flow_ingress(struct __sk_buff *skb)
{
	return observe(skb, FLOW_INGRESS);
}

int flow_egress(struct __sk_buff *skb)
{
	return observe(skb, FLOW_EGRESS);
}
