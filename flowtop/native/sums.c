// SPDX-License-Identifier: Apache-2.0
// The sums of a batch for the totals: FlowTable._book of flowtop/metering/table.py in one pass.

#include "native.h"

// As the names of sums.py, packets and octets of each.
enum sum { ACCOUNTED, AGGREGATED, TICK_INGRESS, TICK_EGRESS, SUMS };

// `packets`, `octets`: what counts in the tick, without duplicates; NULL: all.
EXPORT void sum_entries(const struct key *keys, const struct counters *entries, int64_t n, const uint64_t *packets,
			const uint64_t *octets, uint64_t sums[2 * SUMS])
{
	uint64_t found[SUMS][2] = {{0}};

	for (int64_t i = 0; i < n; i++) {
		const struct counters *entry = entries + i;
		enum sum tick = keys[i].direction == EGRESS ? TICK_EGRESS : TICK_INGRESS;

		if (keys[i].kind == KIND_AGGREGATE) {
			found[AGGREGATED][0] += entry->packets;
			found[AGGREGATED][1] += entry->octets;
		}
		if (keys[i].kind == KIND_PARENT) // its packets are counted in its inner flows
			continue;
		found[ACCOUNTED][0] += entry->packets;
		found[ACCOUNTED][1] += entry->octets;
		found[tick][0] += packets ? packets[i] : entry->packets;
		found[tick][1] += octets ? octets[i] : entry->octets;
	}
	memcpy(sums, found, sizeof(found));
}
