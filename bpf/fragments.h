/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Later fragments get the ports of the first one. Each program has a map of its own for it and calls it itself: bcc
 * rewrites accesses to maps in a program's own file only.
 */
#ifndef FLOWTOP_FRAGMENTS_H
#define FLOWTOP_FRAGMENTS_H

#include "parse.h"

#define FRAGMENT_ENTRIES 8192
/*
 * How long a first fragment waits for later ones. IPv4 ids come round again, within seconds between busy hosts, and then
 * a stale first would lend its ports to another packet. 30 s is what Linux itself waits for (ipfrag_time); RFC 8200
 * allows 60 s, and what comes that late is counted as unjoined.
 */
#define FRAGMENT_LIFE_NS 30000000000ULL

struct fragment_key {
	u8  source_address[16];
	u8  destination_address[16];
	u32 id;
	u8  protocol;                 /* IPv4; IPv6 fragments of one packet may differ in it (RFC 8200 4.5): 0 */
	u8  ip_version;
	u8  pad[2];
};

struct fragment_ports {
	u16 source_port;
	u16 destination_port;
	u8  protocol;                 /* after the extension headers that only the first fragment has */
	u8  pad[3];
	u64 seen_ns;                  /* the first fragment's time */
};

FLOW_INLINE void name_fragments(struct fragment_key *whole, struct flow_key *key, struct packet *packet)
{
	whole->id = packet->fragment_id;
	whole->protocol = packet->fragment_protocol;
	whole->ip_version = key->ip_version;
	__builtin_memcpy(whole->source_address, key->source_address, 16);
	__builtin_memcpy(whole->destination_address, key->destination_address, 16);
}

/* What the first fragment knows. */
FLOW_INLINE void note_ports(struct fragment_ports *ports, struct flow_key *key, u64 now)
{
	ports->source_port = key->source_port;
	ports->destination_port = key->destination_port;
	ports->protocol = key->protocol;
	ports->seen_ns = now;
}

/* Give a later fragment its ports; 0, and another kind of flow, when its first was not seen or too long ago. */
FLOW_INLINE int take_ports(struct flow_key *key, struct fragment_ports *found, u64 now)
{
	if (found && now - found->seen_ns < FRAGMENT_LIFE_NS) {
		key->source_port = found->source_port;
		key->destination_port = found->destination_port;
		key->protocol = found->protocol;
		return 1;
	}
	key->kind = FLOW_KIND_FRAGMENT;
	return 0;
}

#endif
