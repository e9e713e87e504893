/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * tc programs that count every packet of an Observation Point: in its flow, in an aggregate entry if the map is full,
 * as an ignored kind if it is not IP, or as lost if all else fails. They never modify, delay or drop a packet and never
 * end classification.
 *
 * Compiled by bcc with -DFLOW_MAP_ENTRIES=N, and -DFLOW_FINE_CLOCK before Linux 5.11. A capture filter is
 * -DFLOW_FILTER(key)=EXPRESSION over a struct flow_key: nonzero for flows to count (flowtop/filters/kernel.py).
 * -DFLOW_XFRM if the kernel has IPsec. FLOW_CONTROL_EVERYTHING lifts the filter. With -DFLOW_DECAP, packets in tunnels
 * are counted by their inner flow, and also by their outer one. With -DFLOW_OWNERS, entries have the process of their
 * socket, which programs on the hooks of cgroups keep in the socket's local storage: see owner.h. With
 * -DFLOW_NAMES=PAGES, packets that tell a host's name are copied to a ring buffer of so many pages: see names.h.
 */
#include "parse.h"
#include "fragments.h"
#include "counters.h"
#ifdef FLOW_XFRM
#include "decrypted.h"
#endif
#ifdef FLOW_DECAP
#include "decap.h"
#endif
#include "owner.h"
#include "names.h"

#define VERDICT_NEXT (-1)             /* TC_ACT_UNSPEC, TCX_NEXT */
#define AGGREGATE_ENTRIES 4096
#define REST_ENTRIES 8192             /* interfaces x directions x IP versions: enough for 2048 interfaces */
#define REST_PROTOCOL 255             /* reserved by IANA; packets with this protocol share the entry */

/* Helpers by number instead of bcc's declarations: some of those truncate the 64-bit result, and old ones lack the
 * coarse clock. */
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
BPF_TABLE("array", u32, u32, inserted, 2);               /* by side: entries added since its last drain */
BPF_TABLE("percpu_array", u32, struct flow_totals, totals, 2 * FLOW_TOTALS_SIDE);
BPF_TABLE("percpu_hash", struct flow_totals_key, struct flow_totals, totals_overflow, 4096);
BPF_TABLE("lru_hash", struct fragment_key, struct fragment_ports, fragments, FRAGMENT_ENTRIES);
#ifdef FLOW_WAKE
BPF_RINGBUF_OUTPUT(half_full, 1);                        /* wakes the reader: the side that it says is half full */
#endif

/* Whether packets of a flow are counted in it. */
#ifdef FLOW_FILTER
#define COUNTS(key, everything) ((everything) || (FLOW_FILTER((key))))
#else
#define COUNTS(key, everything) 1
#endif

#ifdef FLOW_XFRM
BPF_TABLE("lru_hash", struct decrypting_key, u32, decrypting, DECRYPTING_ENTRIES);
#endif

#ifndef FLOW_DECAP
/* State of one packet. Not on the stack: what the verifier knows of values there differs from one way through the headers
 * to the next, and it walks through all that follows for each; five times as long. The key is here only where it is read
 * more than it is looked up: by a long filter, or in tunnels. */
struct work {
	struct flow_key key;
	struct packet packet;
};
#endif
BPF_TABLE("percpu_array", u32, struct work, works, 1);
#ifdef FLOW_OWNERS
BPF_F_TABLE("sk_storage", int, struct socket_owner, socket_owners, 0, STORAGE_FLAGS);
BPF_F_TABLE("hash", u64, struct process, processes, PROCESS_ENTRIES, 1 /* BPF_F_NO_PREALLOC */);
BPF_TABLE("array", u32, u64, claims, 2);                 /* [0]: entries written to processes, [1]: not written */
BPF_RINGBUF_OUTPUT(processes_written, 1);                /* wakes the reader; when it is full, he is awake */
#endif

#ifdef FLOW_NAMES
#define NO_WAKEUP 1                   /* BPF_RB_NO_WAKEUP: the reader looks several times a second */
BPF_RINGBUF_OUTPUT(names, FLOW_NAMES);
BPF_TABLE("percpu_array", u32, struct handed, handed_over, 1);
BPF_TABLE("lru_hash", struct flow_key, u32, unfinished, NAMES_UNFINISHED);
BPF_TABLE("array", u32, u64, names_lost, 1);             /* packets for which the ring buffer had no room */
BPF_PROG_ARRAY(names_programs, 1);                       /* [0]: names_seen, or nothing */
#endif

/* Keeps the compiler from merging the branches of both sides: the kernel cannot inline one lookup on either map. */
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

/* Count an entry that was added, and wake the reader when half of the side's entries are. Several CPUs that add at once
 * may each see the others' too, so not only one number wakes. */
#define WAKING_ENTRIES 1024
FLOW_INLINE void count_entry(u32 side)
{
	volatile u32 *entries = inserted.lookup(&side);

	if (!entries)
		return;
	__sync_fetch_and_add(entries, 1);
#ifdef FLOW_WAKE
	if (*entries - FLOW_MAP_ENTRIES / 2 - 1 < WAKING_ENTRIES)
		half_full.ringbuf_output(&side, sizeof(side), 0);
#endif
}

/* Add a flow. Returns 0 if it was added; not if it was there, or if the map is full. */
FLOW_INLINE int insert_flow(u32 side, struct flow_key *key, struct flow_counters *counters)
{
	int refused;

	if (side)
		refused = flows_b.insert(key, counters);
	else
		refused = flows_a.insert(key, counters);
	if (!refused)
		count_entry(side);
	return refused;
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

/* Totals of the Observation Point on this CPU. Entry 0 is for packets of interfaces that user space has not set up. */
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
 * Monotonic time with the resolution of a tick. The coarse clock changes with jiffies, and the kernel inlines reading
 * jiffies to one load, so the helper is called once per tick, CPU and Observation Point, not per packet.
 */
FLOW_INLINE u64 now_ns(struct flow_totals *books)
{
#ifdef FLOW_FINE_CLOCK
	return monotonic_ns();
#else
	u64 tick = jiffies();

	if (__builtin_expect(books->tick != tick, 0)) {
		books->tick_ns = monotonic_ns();
		books->tick = tick;
	}
	return books->tick_ns;
#endif
}

#ifdef FLOW_OWNERS
FLOW_INLINE u64 stored_owner(struct bpf_sock *socket)
{
	struct socket_owner *owner = socket_owners.sk_storage_get(socket, 0, 0);

	if (!owner) {                 /* of a connection that is being made: its listener's */
		socket = listener_of(socket);
		if (socket)
			owner = socket_owners.sk_storage_get(socket, 0, 0);
	}
	return owner ? owner->id : FLOW_OWNER_NONE;
}

/* Owner of a socket that was looked up, which is released. */
FLOW_INLINE u64 release_owner(struct bpf_sock *socket, struct flow_key *key)
{
	u64 id = stored_owner(socket);

	if (id & FLOW_OWNER_PROCESS && has_no_address(socket, key))
		id |= FLOW_OWNER_ANY_ADDRESS;
	release_socket(socket);
	return id;
}

/* What the local socket that receives a flow knows of its connection, but for what it has sent again itself: that is of
 * the flow in the other direction. */
FLOW_INLINE void read_receiver(struct bpf_sock *socket, struct flow_counters *counters)
{
	struct bpf_tcp_sock *tcp;

	if (socket->state == TCP_STATE_LISTEN)
		return;
	tcp = tcp_sock(socket);
	if (!tcp)
		return;
	counters->smoothed_rtt_us = tcp->srtt_us >> SRTT_SHIFT;
	counters->congestion_window = tcp->snd_cwnd;
}

FLOW_INLINE u64 receiver_owner(struct __sk_buff *skb, struct flow_key *key, struct flow_counters *counters)
{
	struct bpf_sock_tuple tuple = {};
	struct bpf_sock *socket;
	u64 id = FLOW_OWNER_NONE;
	u32 size;

	if (key->kind != FLOW_KIND_FLOW)
		return id;
	size = name_socket(&tuple, key);
	if (key->protocol == PROTOCOL_TCP) {
		socket = lookup_tcp(skb, &tuple, size, CURRENT_NAMESPACE, 0);
		if (socket) {
			read_receiver(socket, counters);
			id = release_owner(socket, key);
		}
		keep_apart();         /* the verifier does not take one instruction for both types of pointer */
	} else if (key->protocol == PROTOCOL_UDP) {
		socket = lookup_udp(skb, &tuple, size, CURRENT_NAMESPACE, 0);
		if (socket)
			id = release_owner(socket, key);
	}
	return id;
}

/*
 * Owner of the socket that has sent a packet which comes in: packets keep it from one network namespace to the next, as
 * on the host's end of a container's veth, until they are routed.
 */
FLOW_INLINE u64 sender_owner(struct __sk_buff *skb)
{
	struct bpf_sock *socket = skb->sk;
	u64 id;

	if (!socket)
		return FLOW_OWNER_NONE;
	id = stored_owner(socket);
	if (id == FLOW_OWNER_NONE)
		id = socket_cookie(skb) & (FLOW_OWNER_SENDER - 1);
	return id == FLOW_OWNER_KERNEL ? id : id | FLOW_OWNER_SENDER;
}

/*
 * Owner of the local socket that sends this packet, or will receive it. One that receives for any address is less sure
 * than one that has sent it. At ingress, what that socket knows goes to the flow's counters, as it has been looked up:
 * once a drain, and at new TCP bits.
 */
FLOW_INLINE u64 find_owner(struct __sk_buff *skb, const u32 direction, struct flow_key *key,
			   struct flow_counters *counters)
{
	struct bpf_sock *socket;
	u64 id, sender;

	if (direction == FLOW_INGRESS) {
		id = receiver_owner(skb, key, counters);
		if (id != FLOW_OWNER_NONE && !(id & FLOW_OWNER_ANY_ADDRESS))
			return id;
		keep_apart();         /* as above */
		sender = sender_owner(skb);
		return sender == FLOW_OWNER_NONE ? id : sender;
	}
	socket = skb->sk;
	if (socket)
		return stored_owner(socket);
	return skb->ingress_ifindex ? FLOW_OWNER_FORWARDED : FLOW_OWNER_KERNEL;
}

/*
 * A TCP bit that was not seen before: the connection may have been accepted since the entry was made. When the socket
 * that receives it has gone meanwhile, as after its process, who sends from a container does not take its place.
 */
FLOW_INLINE void renew_owner(struct __sk_buff *skb, const u32 direction, struct flow_key *key, struct packet *packet,
			     struct flow_counters *counters)
{
	u64 id;

	if (!(packet->tcp_bits & ~counters->tcp_bits_hint))
		return;
	id = find_owner(skb, direction, key, counters);
	if (id & FLOW_OWNER_SENDER && (counters->owner & (FLOW_OWNER_PROCESS | FLOW_OWNER_ANY_ADDRESS |
							  FLOW_OWNER_SENDER)) == FLOW_OWNER_PROCESS)
		return;
	if (id & FLOW_OWNER_PROCESS)
		counters->owner = id;
}
#endif

/*
 * Find or add the aggregate entry for a packet without an entry of its own: one per interface, direction, IP version
 * and protocol; or, if that map is full (a scan of protocols), one for all protocols in a separate map. Returns the
 * entry to add the packet to, or NULL if the packet was counted already or is lost.
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
		entry = find_aggregate(side, &rest);     /* another CPU added it, or the map is full */
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
 * Add an entry for a flow that was not found on this side. Returns the entry to add the packet to, or NULL if the
 * packet was counted already or is lost.
 */
FLOW_INLINE struct flow_counters *open_flow(struct __sk_buff *skb, u32 side, const u32 direction,
					    struct flow_key *key, struct packet *packet, u64 now,
					    struct flow_totals *books)
{
	struct flow_counters counters = {}, *entry;

	first_packet(&counters, packet, now);
#ifdef FLOW_DECAP
	if (packet->carried) {
		if (packet->has_mac)
			note_macs(skb, packet->mac_offset & CARRIED_OFFSET_MASK, &counters);
	} else
#endif
	if (books->layer == FLOW_LAYER_ETHERNET)
		note_macs(skb, 0, &counters);
	note_echo(skb, key, packet, now, &counters);
	if (direction == FLOW_EGRESS)
		counters.socket_cookie = socket_cookie(skb);
	if (direction == FLOW_EGRESS && packet->tcp_bits)
		read_socket(skb, &counters);
#ifdef FLOW_OWNERS
	counters.owner = find_owner(skb, direction, key, &counters);
#endif
	if (insert_flow(side, key, &counters) == 0)
		return 0;
	entry = find_flow(side, key);     /* another CPU added it, or the map is full */
	if (!entry)
		entry = open_aggregate(side, key, &counters, packet, books);
	if (entry && packet->fragment)
		__sync_fetch_and_add(&entry->fragments, packet->packets);
	return entry;
}

/* Count a fragment in its flow's entry; a new entry has it from its first packet. Other packets do not come here. */
FLOW_INLINE void count_fragment(u32 side, struct flow_key *key, struct packet *packet)
{
	struct flow_counters *counters = find_flow(side, key);

	if (counters)
		__sync_fetch_and_add(&counters->fragments, packet->packets);
}

/* Later fragments get the ports of the first one, which is stored here. */
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
/* Count the outer packet of a tunnel. It is in no total, so it is not counted if the map is full. */
FLOW_INLINE void add_parent(struct __sk_buff *skb, u32 side, struct work *work, u64 now, u32 everything,
			    struct flow_totals *books)
{
	struct flow_counters counters = {}, *entry;

#ifdef FLOW_FILTER
	if (!everything && !(FLOW_FILTER((&work->parent))))
		return;
#endif
	entry = find_flow(side, &work->parent);
	if (!entry) {
		first_packet(&counters, &work->outer, now);
		if (books->layer == FLOW_LAYER_ETHERNET)
			note_macs(skb, 0, &counters);
		if (insert_flow(side, &work->parent, &counters) == 0)
			return;
		entry = find_flow(side, &work->parent);
	}
	if (entry)
		add_packet(skb, FLOW_INGRESS, entry, &work->outer, now);   /* a socket belongs to the inner flow */
}
#endif

#ifdef FLOW_XFRM
/* Count a decrypted packet: in its flow, as FLOW_KIND_PARENT, and in no total but its own. */
FLOW_INLINE void add_decrypted(struct __sk_buff *skb, u32 side, struct flow_key *key, struct packet *packet, u32 spi,
			       u64 now, u32 everything, struct flow_totals *books)
{
	struct flow_counters counters = {}, *entry;
	u32 kind = key->kind;

	key->kind = FLOW_KIND_PARENT;
	key->tunnel = FLOW_TUNNEL_IPSEC;
	key->tunnel_id = spi;
	books->decrypted_packets += packet->packets;
	books->decrypted_octets += packet->octets;
	if (!COUNTS(key, everything))
		return;
	entry = find_flow(side, key);
	if (!entry) {
		first_packet(&counters, packet, now);
#ifdef FLOW_OWNERS
		key->kind = kind;
		counters.owner = find_owner(skb, FLOW_INGRESS, key, &counters);
		key->kind = FLOW_KIND_PARENT;
#endif
		if (insert_flow(side, key, &counters) == 0)
			return;
		entry = find_flow(side, key);
	}
	if (entry)
		add_packet(skb, FLOW_INGRESS, entry, packet, now);
}

/* Whether a packet that IPsec has decrypted came by before, encrypted. */
FLOW_INLINE int came_by(u32 ifindex, u32 spi)
{
	struct decrypting_key key = {.ifindex = ifindex, .spi = spi};

	return decrypting.lookup(&key) != 0;
}

/*
 * Whether the packet came by before, encrypted by IPsec. Asked of every packet once this CPU knows that there is IPsec
 * here, else only of those that are in no entry yet, or filtered: it costs others nothing.
 */
FLOW_INLINE int turns_out_decrypted(struct __sk_buff *skb, struct flow_key *key, struct packet *packet, u32 *spi,
				    struct flow_totals *books)
{
	struct decrypting_key passing = {.ifindex = key->ifindex};
	u32 one = 1;

	if (is_decrypted(skb, spi)) {
		books->decrypts = 1;
		return came_by(key->ifindex, *spi);
	}
	/* IPsec may carry IPsec: what was decrypted itself says nothing about the interface. */
	if (is_ipsec(key)) {
		passing.spi = ipsec_spi(skb, key, packet);
		if (passing.spi) {
			books->decrypts = 1;
			if (!decrypting.lookup(&passing))
				decrypting.update(&passing, &one);
		}
	}
	return 0;
}

/* Take a packet out of the totals again. */
FLOW_INLINE void take_back(struct __sk_buff *skb, struct packet *packet, struct flow_totals *books)
{
	books->frames--;
	books->frame_octets -= skb->len - packet->link_octets;
	if (skb->vlan_present)
		books->vlan_stripped_frames--;
	books->packets -= packet->packets;
	books->octets -= packet->octets;
}
#endif

/*
 * Count a packet in its flow, or as filtered if the capture filter is active and does not match. Returns how
 * many packets its entry had before, 0 for a new one; NOT_COUNTED: it is in none.
 */
#define NOT_COUNTED (~(u64)0)
FLOW_INLINE u64 account(struct __sk_buff *skb, u32 side, const u32 direction, struct flow_key *key,
			struct packet *packet, u64 now, u32 everything, struct flow_totals *books)
{
	struct flow_counters *counters;
	int wanted;

	if (packet->fragment)
		join_fragment(key, packet, now, books);
	/* After joining fragments, so that all packets of a flow are treated the same. Asked once: the verifier of an old
	 * kernel would walk through a long filter again for each way that leads to it. */
	wanted = COUNTS(key, everything);
	if (packet->fragment && wanted)
		count_fragment(side, key, packet);
	counters = wanted ? find_flow(side, key) : 0;
#ifdef FLOW_XFRM
	u32 spi;

	if (direction == FLOW_INGRESS && __builtin_expect(!counters || books->decrypts, 0) &&
	    turns_out_decrypted(skb, key, packet, &spi, books)) {
		take_back(skb, packet, books);
		add_decrypted(skb, side, key, packet, spi, now, everything, books);
		return NOT_COUNTED;
	}
#endif
	if (!wanted) {
		books->filtered_packets += packet->packets;
		books->filtered_octets += packet->octets;
		if (key->kind == FLOW_KIND_FRAGMENT)
			books->unjoined_fragments -= packet->packets;
		return NOT_COUNTED;
	}
	if (!counters)
		counters = open_flow(skb, side, direction, key, packet, now, books);
#ifdef FLOW_OWNERS
	else
		renew_owner(skb, direction, key, packet, counters);
#endif
	if (counters)
		add_packet(skb, direction, counters, packet, now);
	return counters ? counters->packets - packet->packets : 0;
}

#ifdef FLOW_NAMES
/* Call the program that copies packets that tell a name. It does not return; nor does it need to: this packet is counted.
 *
 * What it looks at is read back from the map: of that the verifier knows nothing. Of the packet it knows much, and would
 * walk through the whole program once for each kind of header, as it makes a difference here. */
FLOW_INLINE void hand_over(struct __sk_buff *skb, struct flow_key *key, struct packet *packet, u64 now, u64 before)
{
	struct handed *handed;
	u32 zero = 0;

	handed = handed_over.lookup(&zero);
	if (!handed)
		return;
	__builtin_memcpy(&handed->key, key, sizeof(*key));
	handed->now = now;
	handed->offset = packet->ip_offset + packet->header_octets;
	handed->end = packet->ip_offset + packet->ip_octets;
	handed->before = before;
	handed->transport_offset = packet->transport_offset;
	handed->fragment = packet->fragment;
	asm volatile("" ::: "memory");
	if (handed->transport_offset && !handed->fragment && handed->offset + NAMES_HEAD <= handed->end &&
	    may_tell_name(&handed->key, handed->before))
		names_programs.call(skb, 0);
}
#endif

FLOW_INLINE int observe(struct __sk_buff *skb, const u32 direction)
{
	struct flow_totals *books;
	u32 zero = 0, control_word, side, *active;
	struct flow_key *key;
	struct packet *packet;
	int parsed;
	u64 now, before;
	struct work *work = works.lookup(&zero);

	if (!work)
		return VERDICT_NEXT;
	packet = &work->packet;
	__builtin_memset(packet, 0, sizeof(*packet));
#if defined(FLOW_DECAP) || defined(FLOW_FILTER)
	key = &work->key;
	__builtin_memset(key, 0, sizeof(*key));
#else
	struct flow_key own_key = {};

	key = &own_key;
#endif
#ifdef FLOW_DECAP
	work->carried = 0;
#endif
	key->ifindex = skb->ifindex;
	key->direction = direction;
	active = control.lookup(&zero);
	if (!active)
		return VERDICT_NEXT;
	control_word = *(volatile u32 *)active;   /* read once, so that all of this packet goes to one side */
	side = control_word & FLOW_CONTROL_SIDE;
	books = find_totals(side, key->ifindex, direction);
	if (!books)
		return VERDICT_NEXT;
	books->frames++;
	books->frame_octets += skb->len;
	if (skb->vlan_present)
		books->vlan_stripped_frames++;

	parsed = parse_frame(skb, books->layer, key, packet, books);
	if (parsed != PARSED_IP) {
		if (is_own_copy(skb, direction)) {
			books->frames--;
			books->frame_octets -= skb->len;
			if (skb->vlan_present)
				books->vlan_stripped_frames--;
			return VERDICT_NEXT;
		}
		ignore(skb, parsed, packet, books);
		return VERDICT_NEXT;
	}
#ifdef FLOW_DECAP
#ifdef FLOW_XFRM
	u32 spi;

	if (direction == FLOW_EGRESS || !books->decrypts || !is_decrypted(skb, &spi) || !came_by(key->ifindex, spi))
#endif
	decapsulate(skb, work);
#endif
	count_wire(skb, direction, packet);
	books->packets += packet->packets;
	books->octets += packet->octets;
	now = now_ns(books);
#ifdef FLOW_DECAP
	if (work->carried) {
		u64 around = packet->packets * (work->outer.ip_octets - packet->ip_octets);

		books->encapsulation_octets += around;
		work->outer.packets = packet->packets;
		work->outer.octets = packet->octets + around;
		add_parent(skb, side, work, now, control_word & FLOW_CONTROL_EVERYTHING, books);
	}
#endif
	before = account(skb, side, direction, key, packet, now, control_word & FLOW_CONTROL_EVERYTHING, books);
	(void)before;
#ifdef FLOW_NAMES
	if (before < NAMES_FIRST_PACKETS || has_dns_port(key))
		hand_over(skb, key, packet, now, before);
#endif
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

#ifdef FLOW_NAMES
/* Whether to copy a packet whose payload begins with `head`. */
FLOW_INLINE int tells_name(struct flow_key *key, const u8 *head, u64 octets)
{
	u32 following = NAMES_FOLLOWING, *left;

	if (key->source_port == PORT_DNS || key->destination_port == PORT_DNS)
		return 1;
	if (key->protocol == PROTOCOL_UDP)
		return is_quic_initial(head);
	if (is_client_hello(head)) {
		if (((u64)head[3] << 8 | head[4]) + TLS_RECORD_HEADER > octets)
			unfinished.update(key, &following);
		return 1;
	}
	if (is_http_request(head))
		return 1;
	left = unfinished.lookup(key);
	if (!left)
		return 0;
	if (*left > 1)
		*left -= 1;
	else
		unfinished.delete(key);
	return 1;
}

/* Write a record with `room` octets of the payload, a constant for the verifier. Returns 0 if the ring is full. */
FLOW_INLINE int emit_name(struct __sk_buff *skb, struct handed *from, u64 octets, u64 captured, const u32 room)
{
	struct name_record *record = names.ringbuf_reserve(sizeof(*record) + room);

	if (!record)
		return 0;
	__builtin_memcpy(&record->key, &from->key, sizeof(record->key));
	record->time_ns = from->now;
	record->octets = octets;
	record->captured = captured;
	record->segment = skb->gso_size;
	record->pad = 0;
	copy_frame(skb, from->offset, (u8 *)(record + 1), captured, room);
	names.ringbuf_submit(record, NO_WAKEUP);
	return 1;
}

/* Copies what hand_over was called with, if it tells a name. */
int names_seen(struct __sk_buff *skb)
{
	u32 zero = 0;
	struct handed *from = handed_over.lookup(&zero);
	u8 head[NAMES_HEAD] = {};
	u64 octets, captured, *lost;
	int emitted;

	if (!from)
		return VERDICT_NEXT;
	octets = from->end - from->offset;
	if (bpf_skb_load_bytes(skb, from->offset, head, sizeof(head)) || !tells_name(&from->key, head, octets))
		return VERDICT_NEXT;
	captured = octets < NAMES_MOST_OCTETS ? octets : NAMES_MOST_OCTETS;
	if (captured <= 256)
		emitted = emit_name(skb, from, octets, captured, 256);
	else if (captured <= 1536)
		emitted = emit_name(skb, from, octets, captured, 1536);
	else
		emitted = emit_name(skb, from, octets, captured, NAMES_MOST_OCTETS);
	if (!emitted) {
		lost = names_lost.lookup(&zero);
		if (lost)
			__sync_fetch_and_add(lost, 1);
	}
	return VERDICT_NEXT;
}
#endif

#ifdef FLOW_OWNERS
/* Note the current process, if it has another name or user than in the last note. */
FLOW_INLINE void note_process(u64 id, struct process *process)
{
	struct process *known = processes.lookup(&id);
	u32 which = 0;
	u64 *count, one = 1;

	if (known && known->uid == process->uid && same_comm(known->comm, process->comm))
		return;
	process->cgroup_id = current_cgroup_id();
	if (processes.update(&id, process))
		which = 1;
	count = claims.lookup(&which);
	if (count)
		__sync_fetch_and_add(count, 1);
	processes_written.ringbuf_output(&one, sizeof(one), 0);
}

/* The socket is the current process's from now on. `socket`: a bpf_sock, also one that is a program's context. */
FLOW_INLINE int claim(void *socket)
{
	struct process process = {};
	struct socket_owner *owner;
	u64 id = read_process(&process);

	clear_rest(process.comm);
	owner = socket_owners.sk_storage_get(socket, 0, STORAGE_CREATE);
	if (!owner || (owner->id == id && same_comm(owner->comm, process.comm)))
		return HOOK_ALLOW;
	if (id != FLOW_OWNER_KERNEL)
		note_process(id, &process);
	__builtin_memcpy(owner->comm, process.comm, sizeof(owner->comm));
	owner->id = id;
	return HOOK_ALLOW;
}

FLOW_INLINE int claim_of_address(struct bpf_sock_addr *address)
{
	struct bpf_sock *socket = address->sk;

	return socket ? claim(socket) : HOOK_ALLOW;
}

int owner_create(struct bpf_sock *socket)
{
	return claim(socket);
}

int owner_connect4(struct bpf_sock_addr *address)
{
	return claim_of_address(address);
}

int owner_connect6(struct bpf_sock_addr *address)
{
	return claim_of_address(address);
}

int owner_sendmsg4(struct bpf_sock_addr *address)
{
	return claim_of_address(address);
}

int owner_sendmsg6(struct bpf_sock_addr *address)
{
	return claim_of_address(address);
}

/* getpeername(2), and accept(2) with an address */
int owner_peer4(struct bpf_sock_addr *address)
{
	return claim_of_address(address);
}

int owner_peer6(struct bpf_sock_addr *address)
{
	return claim_of_address(address);
}
#endif
