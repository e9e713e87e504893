// SPDX-License-Identifier: Apache-2.0
// Flow Records of slots: `report` of flowtop/metering/flows.py, all columns in one pass.

#include "native.h"

#define AHEAD 6
#define NS_PER_MS 1000000

// As struct Member of records.py: items of this size of a column, which records have at an offset.
struct member {
	const uint8_t *items;
	int64_t size;
	int64_t offset;
};

// As struct Books of records.py, which has the same members in this order: columns, and offsets in a record.
struct books {
	const uint64_t *packet_total;
	const uint64_t *octet_total;
	uint64_t *packet_reported;
	uint64_t *octet_reported;
	uint64_t *packet_duplicate;
	uint64_t *octet_duplicate;
	const int64_t *first_ns;
	const int64_t *last_ns;
	int64_t *reported_ns;
	uint32_t *record_count;
	const uint8_t *duplicate;
	int64_t packet_delta_at;
	int64_t octet_delta_at;
	int64_t start_ms_at;
	int64_t end_ms_at;
	int64_t end_reason_at;
	int64_t duplicate_at;
};

static void put(uint8_t *record, int64_t at, uint64_t value)
{
	memcpy(record + at, &value, sizeof(value));
}

static void copy(uint8_t *to, const uint8_t *from, int64_t size)
{
	switch (size) { // of known sizes: an instruction or two
	case 1:
		*to = *from;
		break;
	case 2:
		memcpy(to, from, 2);
		break;
	case 4:
		memcpy(to, from, 4);
		break;
	case 8:
		memcpy(to, from, 8);
		break;
	default:
		memcpy(to, from, (size_t)size);
	}
}

static uint64_t ms_of(int64_t ns, int64_t unix_offset_ns)
{
	int64_t unix_ns = (int64_t)((uint64_t)ns + (uint64_t)unix_offset_ns);

	return (uint64_t)(unix_ns / NS_PER_MS - (unix_ns % NS_PER_MS < 0));
}

// Fill records, which are zero, and note in the books what they report. `now_ns`: of each, or if `steps` is 0 one for all.
// `mixed`: room for n: the records of which a part is duplicate, and how many packets and octets: they are to be two.
// Returns how many these are; -1, and changes nothing: a slot is not below `capacity`.
EXPORT int64_t make_records(const struct member *members, int64_t count, const struct books *books, int64_t capacity,
			    const int64_t *slots, int64_t n, uint8_t *records, int64_t size, int64_t reason,
			    const int64_t *now_ns, int64_t steps, int64_t unix_offset_ns, int64_t *mixed,
			    uint64_t *mixed_packets, uint64_t *mixed_octets)
{
	int64_t found = 0;

	for (int64_t i = 0; i < n; i++)
		if (slots[i] < 0 || slots[i] >= capacity)
			return -1;
	for (int64_t i = 0; i < n; i++) {
		uint8_t *record = records + i * size;
		int64_t slot = slots[i];
		uint64_t packets = books->packet_total[slot] - books->packet_reported[slot];
		uint64_t octets = books->octet_total[slot] - books->octet_reported[slot];
		uint64_t repeated = books->packet_duplicate[slot], repeated_octets = books->octet_duplicate[slot];
		int repeats = repeated || repeated_octets;

		if (i + AHEAD < n)
			for (int64_t number = 0; number < count; number++)
				__builtin_prefetch(members[number].items + slots[i + AHEAD] * members[number].size);
		for (int64_t number = 0; number < count; number++) {
			const struct member *member = members + number;

			copy(record + member->offset, member->items + slot * member->size, member->size);
		}
		put(record, books->packet_delta_at, packets);
		put(record, books->octet_delta_at, octets);
		put(record, books->start_ms_at, ms_of(books->first_ns[slot], unix_offset_ns));
		put(record, books->end_ms_at, ms_of(books->last_ns[slot], unix_offset_ns));
		record[books->end_reason_at] = (uint8_t)reason;
		record[books->duplicate_at] = repeats || (books->duplicate[slot] && !packets && !octets);
		if (repeats && (repeated < packets || repeated_octets < octets)) {
			mixed[found] = i;
			mixed_packets[found] = repeated;
			mixed_octets[found++] = repeated_octets;
		}
		books->packet_duplicate[slot] = books->octet_duplicate[slot] = 0;
		books->packet_reported[slot] += packets;
		books->octet_reported[slot] += octets;
		books->reported_ns[slot] = now_ns[steps ? i : 0];
		books->record_count[slot]++;
	}
	return found;
}
