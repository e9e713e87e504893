// SPDX-License-Identifier: Apache-2.0
// Packets of a file, put together by flow: flow_entries of flowtop/capture/packets/entries.py.

#include "native.h"

enum { WORDS = sizeof(struct key) / 8 };

#define FIN 0
#define SYN 1
#define RST 2
// Passes over the bits of a hash, an odd number of them, and what each sorts by.
#define HASH_BITS 48
#define DIGIT_BITS 10
#define RADIX (1 << DIGIT_BITS)
_Static_assert((HASH_BITS + DIGIT_BITS - 1) / DIGIT_BITS % 2 == 1, "the last pass ends in `order`");

// As struct Columns of groups.py, which has the same members in this order: one item a packet.
struct columns {
	const int64_t *octets;
	const int64_t *time_ns;
	const uint16_t *tcp_bits;
	const uint8_t *tos;
	const uint8_t *ttl;
	const uint8_t (*source_mac)[6];
	const uint8_t (*destination_mac)[6];
	const uint8_t *fragment;
	const uint32_t *sequence;
	const int64_t *segment_octets;
	const uint8_t *echo;
};

// As SEGMENT_DTYPE of flowtop/model/record.py, without gaps.
struct __attribute__((packed)) segment {
	uint32_t entry;
	uint32_t sequence;
	uint32_t octets;
	uint16_t bits;
	int64_t time_ns;
};

static uint64_t hash_of(const uint64_t *key, const uint64_t *multipliers)
{
	uint64_t hash = 0;

	for (int at = 0; at < WORDS; at++)
		hash += key[at] * multipliers[at];
	return ((hash ^ hash >> 29) * UINT64_C(0x9E3779B97F4A7C15)) >> 16;
}

// Order the packets of keys by 48 bits of a hash, those of a key as they came, radix by radix. `hashes`,
// `other`: room for n each; `starts`: for RADIX numbers. `begins`: room for n: where in the order each key begins. Returns
// how many keys there are; -1: two of them have one hash.
EXPORT int64_t group_keys(const uint64_t *keys, int64_t n, const uint64_t *multipliers, uint64_t *hashes, int64_t *order,
			  int64_t *other, int64_t *starts, int64_t *begins)
{
	int64_t found = 0;

	for (int64_t i = 0; i < n; i++) {
		hashes[i] = hash_of(keys + i * WORDS, multipliers);
		other[i] = i;
	}
	for (int shift = 0; shift < HASH_BITS; shift += DIGIT_BITS) {
		int even = shift / DIGIT_BITS % 2 == 0;
		int64_t *from = even ? other : order, *to = even ? order : other, total = 0;

		memset(starts, 0, sizeof(*starts) * RADIX);
		for (int64_t i = 0; i < n; i++)
			starts[hashes[i] >> shift & (RADIX - 1)]++;
		for (int64_t digit = 0; digit < RADIX; digit++) {
			int64_t count = starts[digit];

			starts[digit] = total;
			total += count;
		}
		for (int64_t i = 0; i < n; i++)
			to[starts[hashes[from[i]] >> shift & (RADIX - 1)]++] = from[i];
	}
	for (int64_t i = 0; i < n; i++) {
		const uint64_t *key = keys + order[i] * WORDS;

		if (i && hashes[order[i]] == hashes[order[i - 1]]) {
			if (memcmp(key, keys + order[i - 1] * WORDS, sizeof(struct key)))
				return -1;
			continue;
		}
		begins[found++] = i;
	}
	return found;
}

static void note_time(uint64_t *kept, int64_t time_ns)
{
	uint64_t time = time_ns < 1 ? 1 : (uint64_t)time_ns; // 0 stands for "none"

	if (!*kept || time < *kept)
		*kept = time;
}

// Sum the packets `rows` of each group, which begins at `begins` in them, into `entries`, which are zero. `segments`: room
// for one a row. Returns how many these are; -1, and nothing is of use: a row is not below `count`.
EXPORT int64_t sum_groups(const struct columns *packets, int64_t count, const int64_t *rows, int64_t n,
			  const int64_t *begins, int64_t groups, struct counters *entries, struct segment *segments)
{
	int64_t found = 0;

	for (int64_t group = 0; group < groups; group++) {
		int64_t begin = begins[group], stop = group + 1 < groups ? begins[group + 1] : n, first;
		struct counters *entry = entries + group;
		int64_t first_ns = INT64_MAX, last_ns = INT64_MIN;
		uint16_t seen = 0;

		if (begin < 0 || begin >= stop || stop > n)
			return -1;
		for (int64_t at = begin; at < stop; at++) {
			int64_t row = rows[at], time_ns;
			uint16_t bits;

			if (row < 0 || row >= count)
				return -1;
			time_ns = packets->time_ns[row];
			bits = packets->tcp_bits[row];
			entry->octets += (uint64_t)packets->octets[row];
			first_ns = time_ns < first_ns ? time_ns : first_ns;
			last_ns = time_ns > last_ns ? time_ns : last_ns;
			seen |= bits;
			if (bits >> FIN & 1)
				note_time(&entry->fin_ns, time_ns);
			if (bits >> SYN & 1)
				note_time(&entry->syn_ns, time_ns);
			if (bits >> RST & 1)
				note_time(&entry->rst_ns, time_ns);
			entry->fragments += packets->fragment[row] != 0;
			if (packets->segment_octets[row]) {
				struct segment segment = {(uint32_t)group, packets->sequence[row],
							  (uint32_t)packets->segment_octets[row], bits, time_ns};

				segments[found++] = segment;
			}
		}
		first = rows[begin];
		entry->packets = (uint64_t)(stop - begin);
		entry->first_ns = (uint64_t)first_ns;
		entry->last_ns = (uint64_t)last_ns;
		entry->tcp_bits_hint = seen;
		for (int bit = 0; bit <= TCP_OPENING_BIT; bit++)
			entry->tcp_bit_seen[bit] = seen >> bit & 1;
		memcpy(entry->source_mac, packets->source_mac[first], 6);
		memcpy(entry->destination_mac, packets->destination_mac[first], 6);
		entry->tos = packets->tos[first];
		entry->ttl = packets->ttl[first];
		if (packets->echo[first]) {
			int64_t after_ns = packets->time_ns[first] - first_ns;

			entry->echo = 1;
			entry->echo_identifier = (uint16_t)(packets->sequence[first] >> 16);
			entry->echo_sequence = (uint16_t)packets->sequence[first];
			entry->echo_after_ns = after_ns > UINT32_MAX ? UINT32_MAX : (uint32_t)after_ns;
		}
	}
	return found;
}
