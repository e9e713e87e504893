// SPDX-License-Identifier: Apache-2.0
// Which flows are due: `due` of flowtop/metering/expiry.py in one pass.

#include "native.h"

// As struct Columns of expiry.py, which has the same members in this order.
struct columns {
	const uint8_t *occupied;
	const uint8_t *end_reason;
	const uint16_t *tcp_control_bits;
	const int64_t *last_ns;
	const int64_t *reported_ns;
};

// As struct Limits of expiry.py: a flow is due if its time is not after these.
struct limits {
	int64_t end_ns;
	int64_t idle_ns;
	int64_t active_ns;
	int64_t closing_bits;
};

// `ended`, `idle`, `active`: room for `top` slots each; `found`: how many they are.
EXPORT void due_flows(const struct columns *flows, const struct limits *limits, int64_t top, int64_t *ended, int64_t *idle,
		      int64_t *active, int64_t found[3])
{
	found[0] = found[1] = found[2] = 0;
	for (int64_t slot = 0; slot < top; slot++) {
		int64_t last_ns = flows->last_ns[slot];

		if (!flows->occupied[slot] || flows->end_reason[slot])
			continue;
		if (last_ns <= limits->end_ns && (flows->tcp_control_bits[slot] & limits->closing_bits))
			ended[found[0]++] = slot;
		else if (last_ns <= limits->idle_ns)
			idle[found[1]++] = slot;
		else if (flows->reported_ns[slot] <= limits->active_ns)
			active[found[2]++] = slot;
	}
}
