/* SPDX-License-Identifier: (GPL-2.0-only OR BSD-2-Clause) */
/* Protocol numbers and packet headers as in their standards. Multi-octet fields are in network order. */
#ifndef FLOWTOP_PROTOCOLS_H
#define FLOWTOP_PROTOCOLS_H

#define ETHERNET_HEADER 14
#define ETHERNET_TYPE_OFFSET 12
#define ETHERTYPE_MINIMUM 0x0600      /* smaller: an IEEE 802.3 length */
#define ETHERTYPE_IPV4 0x0800
#define ETHERTYPE_ARP 0x0806
#define ETHERTYPE_VLAN 0x8100
#define ETHERTYPE_IPV6 0x86dd
#define ETHERTYPE_SERVICE_VLAN 0x88a8
#define ETHERTYPE_QINQ 0x9100         /* QinQ before IEEE 802.1ad */
#define ETHERTYPE_VLAN_9200 0x9200    /* the same, of other makers */
#define ETHERTYPE_MPLS 0x8847
#define ETHERTYPE_MPLS_MULTICAST 0x8848 /* also upstream-assigned labels (RFC 5332) */
#define ETHERTYPE_PPPOE_SESSION 0x8864
#define ETHERTYPE_BACKBONE 0x88e7     /* I-TAG of IEEE 802.1ah */
#define VLAN_TAG 4
#define VLAN_ID_MASK 0x0fff
#define MPLS_LABEL 4
#define MPLS_BOTTOM 1                 /* in its third octet */
#define CONTROL_WORD 4                /* of a pseudowire */
#define PPPOE_HEADER 8                /* with PPP's protocol field */
#define PPPOE_VERSION_TYPE 0x11
#define PPP_IPV4 0x0021
#define PPP_IPV6 0x0057
#define PPP_MPLS 0x0281
#define PPP_MPLS_MULTICAST 0x0283

#define IPV4_HEADER 20
#define IPV4_OFFSET_MASK 0x1fff
#define IPV4_MORE_FRAGMENTS 0x2000
#define IPV6_HEADER 40
#define IPV6_OFFSET_MASK 0xfff8
#define IPV6_MORE_FRAGMENTS 1
#define IPV6_EXTENSION_MINIMUM 8
#define IPV6_JUMBO_OPTION 8           /* octets of a Hop-by-Hop header with only the jumbo option */
#define IPV6_JUMBO_TYPE 0xc204        /* type and length of that option (RFC 2675) */
#define IPV6_JUMBO_MINIMUM 65536      /* of its value: shorter packets have a payload length */

#define PROTOCOL_HOP_BY_HOP 0
#define PROTOCOL_ICMP 1
#define PROTOCOL_TCP 6
#define PROTOCOL_UDP 17
#define PROTOCOL_DCCP 33
#define PROTOCOL_ROUTING 43
#define PROTOCOL_FRAGMENT 44
#define PROTOCOL_ESP 50
#define PROTOCOL_AH 51
#define PROTOCOL_ICMPV6 58
#define PROTOCOL_DESTINATION_OPTIONS 60
#define PROTOCOL_IPCOMP 108
#define PROTOCOL_SCTP 132
#define PROTOCOL_MOBILITY 135
#define PROTOCOL_UDPLITE 136
#define PROTOCOL_HIP 139
#define PROTOCOL_SHIM6 140

#define PORT_IPSEC 4500               /* ESP in UDP (RFC 3948) */

#define TCP_HEADER_MINIMUM 20
#define TCP_CONTROL_BITS 0x0fff
#define TCP_FIN 0x0001
#define TCP_SYN 0x0002
#define TCP_RST 0x0004
#define TCP_ACK 0x0010
#define UDP_HEADER 8
#define SCTP_HEADER 12

#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
#define from_network_16(value) __builtin_bswap16(value)
#define from_network_32(value) __builtin_bswap32(value)
#else
#define from_network_16(value) (value)
#define from_network_32(value) (value)
#endif

struct ipv4_header {
	u8  version_ihl;
	u8  tos;
	u16 total_length;
	u16 id;
	u16 fragment;
	u8  ttl;
	u8  protocol;
	u16 checksum;
	u32 source;
	u32 destination;
};

struct ipv6_header {
	u8  version_class;
	u8  class_label;
	u16 label;
	u16 payload_length;
	u8  next_header;
	u8  hop_limit;
	u32 source[4];
	u32 destination[4];
};

struct ipv6_extension {               /* any kind; the fields after the length are those of the fragment header */
	u8  next_header;
	u8  length;
	u16 fragment;
	u32 id;
};

struct tcp_header {                   /* up to the control bits, in whole words */
	u16 source_port;
	u16 destination_port;
	u32 sequence;
	u32 acknowledgement;
	u8  offset_bits;
	u8  bits;
	u16 window;
};

struct ports {
	u16 source;
	u16 destination;
} __attribute__((aligned(4)));        /* one load instruction */

#define ICMP_ECHO_REPLY 0
#define ICMP_ECHO_REQUEST 8
#define ICMPV6_ECHO_REQUEST 128
#define ICMPV6_ECHO_REPLY 129

struct icmp_header {
	u8 type;
	u8 code;
};

#endif
