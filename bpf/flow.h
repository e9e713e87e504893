/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * The ABI between the kernel programs and flowtop/model/record.py: Flow Key, counters, totals.
 *
 * No bcc macros and no kernel headers here: tests compile this file with any C compiler and compare every
 * offset and size with the numpy dtypes. Padding is explicit. All integers are host order except the addresses
 * and MACs, which are the bytes of the wire.
 */
#ifndef FLOWTOP_FLOW_H
#define FLOWTOP_FLOW_H

#ifndef FLOWTOP_HAVE_TYPES
typedef unsigned char flow_u8;
typedef unsigned short flow_u16;
typedef unsigned int flow_u32;
typedef unsigned long long flow_u64;
#endif

enum flow_direction {          /* IE 61 flowDirection */
	FLOW_INGRESS = 0,
	FLOW_EGRESS = 1,
};

enum flow_kind {
	FLOW_KIND_FLOW = 0,        /* one Flow: every key field is meant */
	FLOW_KIND_AGGREGATE = 1,   /* the rest, when the map was full: only ifindex, direction, ip_version, protocol are meant;
	                            * protocol 255: any, when there was no room for one entry a protocol either */
	FLOW_KIND_FRAGMENT = 2,    /* later fragments whose first was not seen: no ports */
	FLOW_KIND_PARENT = 3,      /* carries other flows, whose packets these are: in no sum */
};

enum flow_tunnel {             /* what carried a packet */
	FLOW_TUNNEL_NONE = 0,
	FLOW_TUNNEL_IP = 1,        /* IP-in-IP, 6in4 and the like */
	FLOW_TUNNEL_GRE = 2,
	FLOW_TUNNEL_ERSPAN = 3,
	FLOW_TUNNEL_VXLAN = 4,
	FLOW_TUNNEL_GENEVE = 5,
	FLOW_TUNNEL_MPLS = 6,      /* over GRE or UDP */
};

enum flow_ignored {            /* why a frame is in no Flow */
	FLOW_IGNORED_ARP = 0,
	FLOW_IGNORED_LLC = 1,      /* IEEE 802.3 length field: spanning tree and the like */
	FLOW_IGNORED_OTHER = 2,    /* any other EtherType that is not IP */
	FLOW_IGNORED_MALFORMED = 3,/* says it is IP, but its header is not */
	FLOW_IGNORED_KINDS = 4,
};

/* The first 40 bytes (less the last one) name the conversation, whatever Observation Point saw it: dedupe uses that. */
struct flow_key {
	flow_u8  source_address[16];      /* IPv4: the first 4 bytes, then zeros */
	flow_u8  destination_address[16];
	flow_u16 source_port;
	flow_u16 destination_port;        /* ICMP: type * 256 + code */
	flow_u8  protocol;
	flow_u8  ip_version;              /* 4, 6 */
	flow_u8  kind;                    /* enum flow_kind */
	flow_u8  direction;               /* enum flow_direction */
	flow_u16 vlan_id;                 /* outer tag's VLAN ID, 0: none */
	flow_u16 customer_vlan_id;        /* inner tag's VLAN ID (QinQ), 0: none */
	flow_u32 ifindex;
	flow_u32 tunnel_id;               /* of the innermost tunnel: VNI, GRE key, ERSPAN session, MPLS label; 0: none */
	flow_u32 tunnel;                  /* enum flow_tunnel */
};

/* The word of `control` that each packet reads once. */
enum flow_control {
	FLOW_CONTROL_SIDE = 1,     /* the active side: 0: a, 1: b */
	FLOW_CONTROL_EVERYTHING = 2, /* the capture filter is lifted: every flow is counted */
};

#define FLOW_TCP_BITS 12              /* RFC 9293 flags and the reserved bits beside them, as in IE 6 */
#define FLOW_TCP_OPENING 12           /* one more, of no header: SYN without ACK, so the sender opens the connection */
#define FLOW_TCP_SEEN 13

/* What is not a sum is of the first packet, unless it says otherwise. */
struct flow_counters {
	flow_u64 packets;                 /* wire packets */
	flow_u64 octets;                  /* IP octets */
	flow_u64 first_ns;                /* CLOCK_MONOTONIC (coarse) */
	flow_u64 last_ns;
	flow_u64 socket_cookie;           /* egress of a local socket, else 0 */
	flow_u8  source_mac[6];
	flow_u8  destination_mac[6];
	flow_u16 tcp_bits_hint;           /* which tcp_bit_seen are set already; may miss some, never invents */
	flow_u8  tos;
	flow_u8  ttl;
	flow_u8  tcp_bit_seen[FLOW_TCP_SEEN]; /* 1: bit i of the TCP control bits was seen. Byte stores: no lost OR between CPUs */
	flow_u8  pad[3];
	flow_u64 syn_ns;                  /* the first packet with SYN, FIN, RST; 0: none */
	flow_u64 fin_ns;
	flow_u64 rst_ns;
	flow_u32 smoothed_rtt_us;         /* the next three: of the local TCP socket at its latest packet out; else 0 */
	flow_u32 congestion_window;       /* segments */
	flow_u32 retransmitted;           /* segments, in the socket's life */
	flow_u32 pad_end;
};

enum flow_layer {              /* what the device's frames begin with */
	FLOW_LAYER_ETHERNET = 0,
	FLOW_LAYER_IP = 1,
};

/* The second set of books, per CPU, Observation Point and map side. Never reset: readers take differences. */
struct flow_totals {
	flow_u32 ifindex;                 /* whose slot this is; 0: nobody's */
	flow_u32 layer;                   /* enum flow_layer */
	flow_u64 frames;                  /* skbs: what a software device's own counter counts */
	flow_u64 frame_octets;            /* their lengths with link header, as the hook saw them */
	flow_u64 vlan_stripped_frames;    /* of those, frames whose outer tag was in metadata, not in frame_octets */
	flow_u64 packets;                 /* observed wire packets */
	flow_u64 octets;                  /* observed octets above the link header (and its VLAN tags), of a carried packet its own */
	flow_u64 encapsulation_octets;    /* beside them: what tunnels put around carried packets, above the link header */
	flow_u64 ignored_packets[FLOW_IGNORED_KINDS];
	flow_u64 ignored_octets[FLOW_IGNORED_KINDS];
	flow_u64 lost_packets;            /* in no entry at all: not even the aggregate could be written */
	flow_u64 lost_octets;
	flow_u64 aggregated_packets;      /* in an aggregate entry */
	flow_u64 aggregated_octets;
	flow_u64 unjoined_fragments;      /* in an entry of FLOW_KIND_FRAGMENT */
	flow_u64 filtered_packets;        /* in no entry because the capture filter did not want them */
	flow_u64 filtered_octets;
};

/* The array of totals: index = side * FLOW_TOTALS_SIDE + (ifindex % FLOW_TOTALS_SLOTS) * 2 + direction. */
#define FLOW_TOTALS_SLOTS 512
#define FLOW_TOTALS_SIDE (FLOW_TOTALS_SLOTS * 2)

/* Key of totals_overflow: Observation Points whose slot in the array is another interface's. */
struct flow_totals_key {
	flow_u32 ifindex;
	flow_u32 direction;               /* enum flow_direction */
	flow_u32 side;                    /* 0: a, 1: b */
	flow_u32 pad;
};

#ifndef __cplusplus
_Static_assert(sizeof(struct flow_key) == 56, "flow_key is 56 bytes without holes");
_Static_assert(sizeof(struct flow_counters) == 112, "flow_counters is 112 bytes without holes");
_Static_assert(sizeof(struct flow_totals) == 176, "flow_totals is 176 bytes without holes");
_Static_assert(sizeof(struct flow_totals_key) == 16, "flow_totals_key is 16 bytes without holes");
#endif

#endif
