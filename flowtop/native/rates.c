// SPDX-License-Identifier: Apache-2.0
// The end of a tick for all flows: Rates.close_tick of flowtop/metering/rates.py in one pass.

#include "native.h"

// As struct Columns of rates.py, which has the same members in this order.
struct columns {
	uint64_t *open_packets;
	uint64_t *open_octets;
	uint64_t *packet_delta;
	uint64_t *octet_delta;
	uint64_t *packets_10s;
	uint64_t *octets_10s;
	uint64_t *packets_60s;
	uint64_t *octets_60s;
	uint64_t *bucket_packets;
	uint64_t *bucket_octets;
	uint8_t *bucket_listed;
	double *octet_rate_peak;
};

// Move the open tick's traffic of the slots below `top` into their sums. `before`: the slots of the last tick, each below
// `top`. `tick`, `unlisted`: room for `top` slots each: those with traffic, and those of them that the open bucket did
// not list so far; `found`: how many they are. `tick_s`: for peaks; 0: this tick sets none.
EXPORT void close_tick(const struct columns *flows, const int64_t *before, int64_t befores, int64_t top, double tick_s,
		       int64_t *tick, int64_t *unlisted, int64_t found[2])
{
	int64_t ticks = 0, unlisteds = 0;

	for (int64_t i = 0; i < befores; i++) {
		if (before[i] < 0 || before[i] >= top)
			continue;
		flows->packet_delta[before[i]] = 0;
		flows->octet_delta[before[i]] = 0;
	}
	for (int64_t slot = 0; slot < top; slot++) {
		uint64_t packets = flows->open_packets[slot], octets = flows->open_octets[slot];

		if (!(packets | octets))
			continue;
		flows->open_packets[slot] = flows->open_octets[slot] = 0;
		flows->packet_delta[slot] += packets;
		flows->octet_delta[slot] += octets;
		flows->packets_10s[slot] += packets;
		flows->octets_10s[slot] += octets;
		flows->packets_60s[slot] += packets;
		flows->octets_60s[slot] += octets;
		flows->bucket_packets[slot] += packets;
		flows->bucket_octets[slot] += octets;
		if (tick_s > 0) {
			double rate = (double)flows->octet_delta[slot] / tick_s;

			if (rate > flows->octet_rate_peak[slot])
				flows->octet_rate_peak[slot] = rate;
		}
		if (!flows->bucket_listed[slot]) {
			flows->bucket_listed[slot] = 1;
			unlisted[unlisteds++] = slot;
		}
		tick[ticks++] = slot;
	}
	found[0] = ticks;
	found[1] = unlisteds;
}
