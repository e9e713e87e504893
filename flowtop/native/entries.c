// SPDX-License-Identifier: Apache-2.0
// Counters of a batch added to the columns of known flows: Flows.add of flowtop/metering/flows.py in one pass.

#include "native.h"

// Of model/owners.py.
#define PROCESS_BIT (UINT64_C(1) << 63)
#define LISTED_BIT (UINT64_C(1) << 62)

#define AHEAD 12

// As struct Columns of entries.py, which has the same members in this order.
struct columns {
	const struct key *keys;
	uint64_t *packet_total;
	uint64_t *octet_total;
	uint64_t *open_packets;
	uint64_t *open_octets;
	int64_t *first_ns;
	int64_t *last_ns;
	uint16_t *tcp_control_bits;
	uint8_t *opening;
	uint32_t *fragments;
	uint64_t *owner;
	int64_t *syn_ns;
	int64_t *fin_ns;
	int64_t *rst_ns;
	uint32_t *rtt_us;
	uint32_t *congestion_window;
	uint32_t *retransmitted;
};

static void fetch(const struct columns *flows, int64_t slot)
{
	__builtin_prefetch(flows->packet_total + slot, 1);
	__builtin_prefetch(flows->octet_total + slot, 1);
	__builtin_prefetch(flows->open_packets + slot, 1);
	__builtin_prefetch(flows->open_octets + slot, 1);
	__builtin_prefetch(flows->last_ns + slot, 1);
	__builtin_prefetch(flows->first_ns + slot);
	__builtin_prefetch(flows->tcp_control_bits + slot);
}

// As `latest` of model/owners.py: a process that the kernel names, else the first of a list, else anything.
static uint64_t latest(uint64_t old, uint64_t new)
{
	int listed = (new & LISTED_BIT) != 0;
	int replaces = (new >= PROCESS_BIT && !(listed && old >= PROCESS_BIT)) || old == NO_OWNER;

	return replaces ? new & ~LISTED_BIT : old;
}

static uint16_t control_bits(const struct counters *entry)
{
	uint16_t bits = 0;

	for (int bit = 0; bit < TCP_BITS; bit++)
		bits |= (uint16_t)((entry->tcp_bit_seen[bit] != 0) << bit);
	return bits;
}

static void note_time(int64_t *kept, uint64_t time_ns)
{
	int64_t time = (int64_t)time_ns;

	if (time_ns && (*kept == 0 || time < *kept))
		*kept = time;
}

// As note_times and note_sockets of metering/tcp.py.
static void note_tcp(const struct columns *flows, int64_t slot, const struct counters *entry)
{
	if (flows->keys[slot].kind != KIND_FLOW)
		return;
	note_time(flows->syn_ns + slot, entry->syn_ns);
	note_time(flows->fin_ns + slot, entry->fin_ns);
	note_time(flows->rst_ns + slot, entry->rst_ns);
	if (!entry->congestion_window)
		return;
	flows->congestion_window[slot] = entry->congestion_window;
	if (flows->keys[slot].direction == EGRESS)
		flows->retransmitted[slot] = entry->retransmitted;
	if (entry->smoothed_rtt_us)
		flows->rtt_us[slot] = entry->smoothed_rtt_us;
}

// Add each entry to the flow in its slot. `news`: the TCP control bits that it had not shown. Returns how many entries
// there are up to the first whose slot is not below `capacity`: n, if all are.
EXPORT int64_t add_entries(const struct columns *flows, int64_t capacity, const int64_t *slots,
			   const struct counters *entries, int64_t n, uint16_t *news)
{
	for (int64_t i = 0; i < n; i++)
		if (slots[i] < 0 || slots[i] >= capacity)
			return i;
	for (int64_t i = 0; i < n; i++) {
		const struct counters *entry = entries + i;
		int64_t slot = slots[i], first_ns = (int64_t)entry->first_ns, last_ns = (int64_t)entry->last_ns;
		uint16_t bits = control_bits(entry), old_bits = flows->tcp_control_bits[slot];

		if (i + AHEAD < n)
			fetch(flows, slots[i + AHEAD]);
		flows->packet_total[slot] += entry->packets;
		flows->octet_total[slot] += entry->octets;
		flows->open_packets[slot] += entry->packets;
		flows->open_octets[slot] += entry->octets;
		if (last_ns > flows->last_ns[slot])
			flows->last_ns[slot] = last_ns;
		if (first_ns < flows->first_ns[slot])
			flows->first_ns[slot] = first_ns;
		news[i] = bits & (uint16_t)~old_bits;
		if (news[i])
			flows->tcp_control_bits[slot] = old_bits | bits;
		if (entry->tcp_bit_seen[TCP_OPENING_BIT])
			flows->opening[slot] = 1;
		if (entry->fragments)
			flows->fragments[slot] += entry->fragments;
		if (entry->owner)
			flows->owner[slot] = latest(flows->owner[slot], entry->owner);
		if (entry->syn_ns | entry->fin_ns | entry->rst_ns | entry->congestion_window)
			note_tcp(flows, slot, entry);
	}
	return n;
}
