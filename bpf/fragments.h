/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * Later fragments get the ports of the first one. Each program has its own map and accesses it itself, as bcc rewrites
 * map accesses in the main file only.
 */
#ifndef FLOWTOP_FRAGMENTS_H
#define FLOWTOP_FRAGMENTS_H

#include "parse.h"

#define FRAGMENT_ENTRIES 8192
/*
 * How long a first fragment is used for later ones. IPv4 ids are reused, within seconds between busy hosts, and then a
 * stale first fragment would give its ports to another packet. Linux waits 30 s (ipfrag_time); RFC 8200 allows 60 s.
 * Fragments that arrive later count as unjoined.
 */
#define FRAGMENT_LIFE_NS 30000000000ULL

struct fragment_key {
	u8  source_address[16];
	u8  destination_address[16];
	u32 id;
	u8  protocol;                 /* IPv4's; 0 for IPv6, where it may differ between fragments (RFC 8200 4.5) */
	u8  ip_version;
	u8  pad[2];
};

struct fragment_ports {
	u16 source_port;
	u16 destination_port;
	u8  protocol;                 /* after the extension headers that only the first fragment has */
	u8  pad[3];
	u64 seen_ns;                  /* time of the first fragment */
};

FLOW_INLINE void name_fragments(struct fragment_key *whole, struct flow_key *key, struct packet *packet)
{
	whole->id = packet->fragment_id;
	whole->protocol = packet->fragment_protocol;
	whole->ip_version = key->ip_version;
	__builtin_memcpy(whole->source_address, key->source_address, 16);
	__builtin_memcpy(whole->destination_address, key->destination_address, 16);
}

/* Store the ports of a first fragment. */
FLOW_INLINE void note_ports(struct fragment_ports *ports, struct flow_key *key, u64 now)
{
	ports->source_port = key->source_port;
	ports->destination_port = key->destination_port;
	ports->protocol = key->protocol;
	ports->seen_ns = now;
}

/* Set the ports of a later fragment; 0, and FLOW_KIND_FRAGMENT, if its first was not seen or is too old. */
FLOW_INLINE int take_ports(struct flow_key *key, struct fragment_ports *first, u64 now)
{
	if (first && now - first->seen_ns < FRAGMENT_LIFE_NS) {
		key->source_port = first->source_port;
		key->destination_port = first->destination_port;
		key->protocol = first->protocol;
		return 1;
	}
	key->kind = FLOW_KIND_FRAGMENT;
	return 0;
}

#endif
