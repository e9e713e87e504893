/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/*
 * ABI between the kernel programs and flowtop/model/record.py: Flow Key, counters, totals.
 *
 * No bcc macros and no kernel headers: tests compile this file with any C compiler and compare all offsets and sizes
 * with the numpy dtypes. Padding is explicit. Integers are in host order; addresses and MACs are octets in wire order.
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
	FLOW_KIND_FLOW = 0,        /* one Flow: every key field is valid */
	FLOW_KIND_AGGREGATE = 1,   /* packets when the map was full: only ifindex, direction, ip_version, protocol are valid;
	                            * protocol 255: all protocols, when there was no room for one entry per protocol */
	FLOW_KIND_FRAGMENT = 2,    /* later fragments without their first one: no ports */
	FLOW_KIND_PARENT = 3,      /* in no total: outer packets of tunnels, and what IPsec has decrypted, which came in them */
};

enum flow_tunnel {             /* the tunnel of a packet */
	FLOW_TUNNEL_NONE = 0,
	FLOW_TUNNEL_IP = 1,        /* IP-in-IP, 6in4 and the like */
	FLOW_TUNNEL_GRE = 2,
	FLOW_TUNNEL_ERSPAN = 3,
	FLOW_TUNNEL_VXLAN = 4,
	FLOW_TUNNEL_GENEVE = 5,
	FLOW_TUNNEL_MPLS = 6,      /* over Ethernet, GRE or UDP */
	FLOW_TUNNEL_PPPOE = 7,
	FLOW_TUNNEL_IPSEC = 8,     /* decrypted: the packets that carried it are flows of their own */
};

enum flow_ignored {            /* reason why a frame is in no Flow */
	FLOW_IGNORED_ARP = 0,
	FLOW_IGNORED_LLC = 1,      /* IEEE 802.3 length field: spanning tree and others */
	FLOW_IGNORED_OTHER = 2,    /* another EtherType that is not IP */
	FLOW_IGNORED_MALFORMED = 3,/* EtherType is IP, but the header is invalid */
	FLOW_IGNORED_KINDS = 4,
};

/* The first 40 bytes (without the last one) identify the conversation independently of the Observation Point, for
 * dedupe. */
struct flow_key {
	flow_u8  source_address[16];      /* IPv4: the first 4 bytes, then zeros */
	flow_u8  destination_address[16];
	flow_u16 source_port;
	flow_u16 destination_port;        /* ICMP: type * 256 + code */
	flow_u8  protocol;
	flow_u8  ip_version;              /* 4, 6 */
	flow_u8  kind;                    /* enum flow_kind */
	flow_u8  direction;               /* enum flow_direction */
	flow_u16 vlan_id;                 /* VLAN ID of the outer tag, 0: none */
	flow_u16 customer_vlan_id;        /* VLAN ID of the inner tag (QinQ), 0: none */
	flow_u32 ifindex;
	flow_u32 tunnel_id;               /* of the innermost tunnel: VNI, GRE key, session, MPLS label; 0: none */
	flow_u32 tunnel;                  /* enum flow_tunnel */
};

/* Bits of the word in `control`, which is read once per packet. */
enum flow_control {
	FLOW_CONTROL_SIDE = 1,     /* active side: 0: a, 1: b */
	FLOW_CONTROL_EVERYTHING = 2, /* the capture filter is lifted: count every flow */
};

/*
 * Owner of a flow's local socket. A process: FLOW_OWNER_PROCESS, its start time (CLOCK_BOOTTIME in units of 4096 ns, the
 * lowest 39 bits: 26 days) above its pid (at most 2^22, PID_MAX_LIMIT), so that pids can be used again.
 */
#define FLOW_OWNER_NONE 0ULL              /* not known */
#define FLOW_OWNER_KERNEL 1ULL            /* sent by the kernel itself */
#define FLOW_OWNER_FORWARDED 2ULL         /* came in at another interface */
#define FLOW_OWNER_PROCESS (1ULL << 63)
#define FLOW_OWNER_ANY_ADDRESS (1ULL << 62) /* found by port alone: it is the owner only if the address is local */
#define FLOW_OWNER_SENDER (1ULL << 61)    /* of a packet that came in: the owner of the socket that sent it, in another
					     network namespace of this host; else, without PROCESS, its cookie */
#define FLOW_OWNER_PID_BITS 22
#define FLOW_OWNER_START_SHIFT 12

#define FLOW_TCP_BITS 12              /* flags of RFC 9293 and the reserved bits, as in IE 6 */
#define FLOW_TCP_OPENING 12           /* an extra bit, not in the header: SYN without ACK, sent by the client */
#define FLOW_TCP_SEEN 13

/* Fields that are not sums are those of the first packet, unless stated otherwise. */
struct flow_counters {
	flow_u64 packets;                 /* wire packets */
	flow_u64 octets;                  /* IP octets */
	flow_u64 first_ns;                /* CLOCK_MONOTONIC (coarse) */
	flow_u64 last_ns;
	flow_u64 socket_cookie;           /* egress of a local socket, else 0 */
	flow_u8  source_mac[6];
	flow_u8  destination_mac[6];
	flow_u16 tcp_bits_hint;           /* tcp_bit_seen as a bit mask; may lack some bits */
	flow_u8  tos;
	flow_u8  ttl;
	flow_u8  tcp_bit_seen[FLOW_TCP_SEEN]; /* 1: TCP control bit i was seen. Byte stores: no lost OR between CPUs */
	flow_u8  echo;                    /* 1: the first packet is an ICMP echo request or reply */
	flow_u8  pad[2];
	flow_u64 syn_ns;                  /* time of the first packet with SYN, FIN, RST; 0: none */
	flow_u64 fin_ns;
	flow_u64 rst_ns;
	flow_u32 smoothed_rtt_us;         /* this and the next two: local TCP socket at its latest packet sent, or, with owners,
	                                   * at one that it receives; else 0 */
	flow_u32 congestion_window;       /* segments */
	flow_u32 retransmitted;           /* segments, since the socket exists; of packets sent */
	flow_u32 fragments;               /* of the packets, how many are fragments: first and later ones */
	flow_u16 echo_identifier;         /* this and the next two: of the first packet, if `echo` */
	flow_u16 echo_sequence;
	flow_u32 echo_after_ns;           /* its time by the fine clock, after first_ns */
	flow_u64 owner;                   /* FLOW_OWNER_*: when the entry was made, or when a TCP bit was seen first */
};

enum flow_layer {              /* outermost header of a device's frames */
	FLOW_LAYER_ETHERNET = 0,
	FLOW_LAYER_IP = 1,
};

/* Totals per CPU, Observation Point and map side, independent of the flows. Never reset: readers take differences. */
struct flow_totals {
	flow_u32 ifindex;                 /* interface of this slot; 0: interfaces without a slot */
	flow_u16 layer;                   /* enum flow_layer */
	flow_u16 decrypts;                /* IPsec has come by: packets that it has decrypted may pass this hook once more */
	flow_u64 tick;                    /* when tick_ns was read from the clock, in jiffies */
	flow_u64 tick_ns;
	flow_u64 frames;                  /* skbs: the unit of a software device's own counters */
	flow_u64 frame_octets;            /* their lengths with link header, as seen by the hook */
	flow_u64 vlan_stripped_frames;    /* of these, frames whose outer tag was in metadata and is not in frame_octets */
	flow_u64 packets;                 /* observed wire packets */
	flow_u64 octets;                  /* observed octets above the link header (VLAN tags, labels); of inner packets, their own */
	flow_u64 encapsulation_octets;    /* in addition: encapsulation of inner packets, above the link header */
	flow_u64 ignored_packets[FLOW_IGNORED_KINDS];
	flow_u64 ignored_octets[FLOW_IGNORED_KINDS];
	flow_u64 lost_packets;            /* in no entry: the aggregate could not be written either */
	flow_u64 lost_octets;
	flow_u64 aggregated_packets;      /* in an aggregate entry */
	flow_u64 aggregated_octets;
	flow_u64 unjoined_fragments;      /* in an entry of FLOW_KIND_FRAGMENT */
	flow_u64 filtered_packets;        /* in no entry because the capture filter did not match */
	flow_u64 filtered_octets;
	flow_u64 lying_lengths;           /* packets whose header's length is larger than what is there: counted by that */
	flow_u64 decrypted_packets;       /* decrypted by IPsec: in no other sum, nor in frames */
	flow_u64 decrypted_octets;
};

/* Index in the array of totals: side * FLOW_TOTALS_SIDE + (ifindex % FLOW_TOTALS_SLOTS) * 2 + direction. */
#define FLOW_TOTALS_SLOTS 512
#define FLOW_TOTALS_SIDE (FLOW_TOTALS_SLOTS * 2)

/* Key of totals_overflow: Observation Points whose array slot belongs to another interface. */
struct flow_totals_key {
	flow_u32 ifindex;
	flow_u32 direction;               /* enum flow_direction */
	flow_u32 side;                    /* 0: a, 1: b */
	flow_u32 pad;
};

#ifndef __cplusplus
_Static_assert(sizeof(struct flow_key) == 56, "flow_key is 56 bytes without holes");
_Static_assert(sizeof(struct flow_counters) == 128, "flow_counters is 128 bytes without holes");
_Static_assert(sizeof(struct flow_totals) == 216, "flow_totals is 216 bytes without holes");
_Static_assert(sizeof(struct flow_totals_key) == 16, "flow_totals_key is 16 bytes without holes");
#endif

#endif
