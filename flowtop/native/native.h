// SPDX-License-Identifier: Apache-2.0
// What the parts of this library share. Every function works on arrays of its caller, who has checked their sizes: none
// allocates memory, keeps a pointer after it returns, or calls into Python. See flowtop/native/__init__.py.
#ifndef FLOWTOP_NATIVE_H
#define FLOWTOP_NATIVE_H

#include <stdint.h>
#include <string.h>

#define EXPORT __attribute__((visibility("default")))

// As FLOW_KEY_DTYPE and FLOW_COUNTERS_DTYPE of flowtop/model/record.py; `layout` tells a test where members are.
struct key {
	uint8_t source_address[16];
	uint8_t destination_address[16];
	uint16_t source_port;
	uint16_t destination_port;
	uint8_t protocol;
	uint8_t ip_version;
	uint8_t kind;
	uint8_t direction;
	uint16_t vlan_id;
	uint16_t customer_vlan_id;
	uint32_t ifindex;
	uint32_t tunnel_id;
	uint32_t tunnel;
};

#define TCP_BITS 12
#define TCP_OPENING_BIT 12

struct counters {
	uint64_t packets;
	uint64_t octets;
	uint64_t first_ns;
	uint64_t last_ns;
	uint64_t socket_cookie;
	uint8_t source_mac[6];
	uint8_t destination_mac[6];
	uint16_t tcp_bits_hint;
	uint8_t tos;
	uint8_t ttl;
	uint8_t tcp_bit_seen[TCP_OPENING_BIT + 1];
	uint8_t echo;
	uint8_t pad[2];
	uint64_t syn_ns;
	uint64_t fin_ns;
	uint64_t rst_ns;
	uint32_t smoothed_rtt_us;
	uint32_t congestion_window;
	uint32_t retransmitted;
	uint32_t fragments;
	uint16_t echo_identifier;
	uint16_t echo_sequence;
	uint32_t echo_after_ns;
	uint64_t owner;
};

_Static_assert(sizeof(struct key) == 56, "FLOW_KEY_DTYPE");
_Static_assert(sizeof(struct counters) == 128, "FLOW_COUNTERS_DTYPE");

// Of flowtop/model/kinds.py and owners.py.
enum kind { KIND_FLOW = 0, KIND_AGGREGATE = 1, KIND_PARENT = 3 };
enum direction { INGRESS = 0, EGRESS = 1 };
#define NO_OWNER UINT64_C(0)

#endif
