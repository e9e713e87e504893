// SPDX-License-Identifier: Apache-2.0
// Which sources this library was built of, and where the members of its structures are.

#include <stddef.h>

#include "native.h"

// A checksum of the sources, from build.py: the caller knows by it that the library is of the sources beside it.
EXPORT uint32_t sources(void)
{
	return FLOWTOP_SOURCES;
}

#define KEY(member) {"key." #member, offsetof(struct key, member)}
#define COUNTERS(member) {"counters." #member, offsetof(struct counters, member)}

static const struct {
	const char *name;
	size_t offset;
} members[] = {
	KEY(source_address), KEY(destination_address), KEY(source_port), KEY(destination_port), KEY(protocol),
	KEY(ip_version), KEY(kind), KEY(direction), KEY(vlan_id), KEY(customer_vlan_id), KEY(ifindex), KEY(tunnel_id),
	KEY(tunnel),
	COUNTERS(packets), COUNTERS(octets), COUNTERS(first_ns), COUNTERS(last_ns), COUNTERS(socket_cookie),
	COUNTERS(source_mac), COUNTERS(destination_mac), COUNTERS(tcp_bits_hint), COUNTERS(tos), COUNTERS(ttl),
	COUNTERS(tcp_bit_seen), COUNTERS(echo), COUNTERS(pad), COUNTERS(syn_ns), COUNTERS(fin_ns), COUNTERS(rst_ns),
	COUNTERS(smoothed_rtt_us), COUNTERS(congestion_window), COUNTERS(retransmitted), COUNTERS(fragments),
	COUNTERS(echo_identifier), COUNTERS(echo_sequence), COUNTERS(echo_after_ns), COUNTERS(owner),
};

// The name of a member, as "key.kind", and its offset; NULL: there are no more.
EXPORT const char *layout(int number, size_t *offset)
{
	if (number < 0 || (size_t)number >= sizeof(members) / sizeof(*members))
		return NULL;
	*offset = members[number].offset;
	return members[number].name;
}
