"""The Information Elements that flowtop uses, with names and numbers of the IANA IPFIX registry (RFC 7012).

Flow Records, JSON keys, columns, Templates and documentation use these entries; no other module has the numbers.
"""

from __future__ import annotations

from dataclasses import dataclass

from flowtop.model.kinds import Tunnel

IXIA, NTOP = 3054, 35632
"""Private enterprise numbers."""


@dataclass(frozen=True, slots=True)
class Element:
    """One Information Element.

    Attributes:
        name: IANA name, also the key in JSON output.
        number: element id, within `enterprise`.
        type: abstract data type of RFC 7012 section 3.1.
        units: of the value, "" if it has none.
        doc: the value that flowtop exports.
        enterprise: private enterprise number, 0 for IANA.
    """

    name: str
    number: int
    type: str
    units: str = ""
    doc: str = ""
    enterprise: int = 0


_ALL = (
    Element("octetDeltaCount", 1, "unsigned64", "octets",
            "IP octets since the previous report: header and payload, no frame bytes."),
    Element("packetDeltaCount", 2, "unsigned64", "packets", "Wire packets since the previous report."),
    Element("deltaFlowCount", 3, "unsigned64", "flows",
            "Flows in the group (RFC 7015); a flow seen at several interfaces counts once."),
    Element("protocolIdentifier", 4, "unsigned8", doc="IP protocol number after all IPv6 extension headers."),
    Element("ipClassOfService", 5, "unsigned8", doc="IPv4 TOS or IPv6 traffic class of the first packet."),
    Element("tcpControlBits", 6, "unsigned16", doc="OR of the TCP control bits of all packets."),
    Element("sourceTransportPort", 7, "unsigned16", doc="TCP, UDP, UDP-Lite, DCCP or SCTP source port; else 0."),
    Element("sourceIPv4Address", 8, "ipv4Address", doc="Source address of an IPv4 packet."),
    Element("sourceIPv4PrefixLength", 9, "unsigned8", "bits", "Length of sourceIPv4Prefix."),
    Element("ingressInterface", 10, "unsigned32", doc="ifindex of the Observation Point, for ingress."),
    Element("destinationTransportPort", 11, "unsigned16", doc="Destination port; else 0."),
    Element("destinationIPv4Address", 12, "ipv4Address", doc="Destination address of an IPv4 packet."),
    Element("destinationIPv4PrefixLength", 13, "unsigned8", "bits", "Length of destinationIPv4Prefix."),
    Element("egressInterface", 14, "unsigned32", doc="ifindex of the Observation Point, for egress."),
    Element("ipNextHopIPv4Address", 15, "ipv4Address", doc="With -l: next hop's address."),
    Element("bgpSourceAsNumber", 16, "unsigned32", doc="With -l: autonomous system of the source."),
    Element("bgpDestinationAsNumber", 17, "unsigned32", doc="With -l: autonomous system of the destination."),
    Element("bgpNextHopIPv4Address", 18, "ipv4Address", doc="With -l: next hop of BGP."),
    Element("sourceIPv6Address", 27, "ipv6Address", doc="Source address of an IPv6 packet."),
    Element("destinationIPv6Address", 28, "ipv6Address", doc="Destination address of an IPv6 packet."),
    Element("sourceIPv6PrefixLength", 29, "unsigned8", "bits", "Length of sourceIPv6Prefix."),
    Element("destinationIPv6PrefixLength", 30, "unsigned8", "bits", "Length of destinationIPv6Prefix."),
    Element("icmpTypeCodeIPv4", 32, "unsigned16", doc="ICMP type * 256 + code."),
    Element("samplingInterval", 34, "unsigned32",
            doc="With -l: one in this many packets was sampled; counters are multiplied by it (not if relayed)."),
    Element("exportedOctetTotalCount", 40, "unsigned64", "octets",
            "Octets of IPFIX Messages sent to the collector in this Transport Session."),
    Element("exportedMessageTotalCount", 41, "unsigned64", "messages",
            "IPFIX Messages sent in this Transport Session."),
    Element("exportedFlowRecordTotalCount", 42, "unsigned64", "flows",
            "Flow Records sent in this Transport Session."),
    Element("sourceIPv4Prefix", 44, "ipv4Address", doc="Network of the source address."),
    Element("destinationIPv4Prefix", 45, "ipv4Address", doc="Network of the destination address."),
    Element("sourceMacAddress", 56, "macAddress", doc="Source MAC address of the first packet."),
    Element("vlanId", 58, "unsigned16", doc="VLAN ID of the outer tag, 0 when untagged."),
    Element("postVlanId", 59, "unsigned16", doc="The same as vlanId, for collectors that read this element at egress."),
    Element("ipVersion", 60, "unsigned8", doc="4 or 6."),
    Element("flowDirection", 61, "unsigned8",
            doc="0 ingress, 1 egress, at the Observation Point; absent when the exporter does not report it."),
    Element("ipNextHopIPv6Address", 62, "ipv6Address", doc="With -l: next hop's address."),
    Element("bgpNextHopIPv6Address", 63, "ipv6Address", doc="With -l: next hop of BGP."),
    Element("mplsTopLabelStackSection", 70, "octetArray",
            doc="In relayed records: label at the top of the MPLS stack, class, and bottom of the stack."),
    Element("destinationMacAddress", 80, "macAddress", doc="Destination MAC address of the first packet."),
    Element("interfaceName", 82, "string", doc="Name of the Observation Point's interface."),
    Element("interfaceDescription", 83, "string", doc="Names the tunnel of an observationPointId."),
    Element("octetTotalCount", 85, "unsigned64", "octets", "IP octets over the flow's life."),
    Element("packetTotalCount", 86, "unsigned64", "packets", "Wire packets over the flow's life."),
    Element("applicationDescription", 94, "string",
            doc="With `owners=on`: further texts about the local socket's process, as a JSON object."),
    Element("applicationId", 95, "octetArray",
            doc="With -l: application: classification engine and selector (RFC 6759)."),
    Element("applicationName", 96, "string",
            doc="With -l: name of the application. In own records with `owners=on`: the local socket's process."),
    Element("exporterIPv4Address", 130, "ipv4Address", doc="With -l: the exporter that reported the flow."),
    Element("exporterIPv6Address", 131, "ipv6Address", doc="The same, for an exporter with an IPv6 address."),
    Element("flowEndReason", 136, "unsigned8",
            doc="1 idle timeout, 2 active timeout, 3 end of flow, 4 forced end, 5 lack of resources."),
    Element("observationPointId", 138, "unsigned64",
            doc="The inside of the tunnel that carried the flow: the tunnel's kind * 2**32 + its id."),
    Element("icmpTypeCodeIPv6", 139, "unsigned16", doc="ICMPv6 type * 256 + code."),
    Element("exportingProcessId", 144, "unsigned32", doc="The Exporting Process: one number for each export."),
    Element("templateId", 145, "unsigned16", doc="The Template whose Flow Keys flowKeyIndicator describes."),
    Element("flowId", 148, "unsigned64", doc="Unique in one run of flowtop."),
    Element("observationDomainId", 149, "unsigned32",
            doc="With -l: the exporter's Observation Domain. In Options Data: the one the statistics are about."),
    Element("flowStartMilliseconds", 152, "dateTimeMilliseconds", "ms", "Time of the first packet, since 1970 UTC."),
    Element("flowEndMilliseconds", 153, "dateTimeMilliseconds", "ms", "Time of the last packet, since 1970 UTC."),
    Element("ignoredPacketTotalCount", 164, "unsigned64", "packets", "Observed packets that are in no Flow Record."),
    Element("ignoredOctetTotalCount", 165, "unsigned64", "octets", "Observed octets that are in no Flow Record."),
    Element("notSentFlowTotalCount", 166, "unsigned64", "flows", "Flow Records that this export could not send."),
    Element("notSentPacketTotalCount", 167, "unsigned64", "packets", "Packets in Flow Records that were not sent."),
    Element("notSentOctetTotalCount", 168, "unsigned64", "octets", "Octets in Flow Records that were not sent."),
    Element("destinationIPv6Prefix", 169, "ipv6Address", doc="Network of the destination address."),
    Element("sourceIPv6Prefix", 170, "ipv6Address", doc="Network of the source address."),
    Element("flowKeyIndicator", 173, "unsigned64",
            doc="Bit i set: the Template's field i (from 0) is a Flow Key."),
    Element("icmpTypeIPv4", 176, "unsigned8", doc="ICMP type."),
    Element("icmpTypeIPv6", 178, "unsigned8", doc="ICMPv6 type."),
    Element("ipTTL", 192, "unsigned8", "hops", "TTL or hop limit of the first packet."),
    Element("ipDiffServCodePoint", 195, "unsigned8", doc="DSCP: the upper six bits of ipClassOfService."),
    Element("postNATSourceIPv4Address", 225, "ipv4Address", doc="With -l: source address after translation."),
    Element("postNATDestinationIPv4Address", 226, "ipv4Address", doc="With -l: destination address after translation."),
    Element("postNAPTSourceTransportPort", 227, "unsigned16", doc="With -l: source port after address translation."),
    Element("postNAPTDestinationTransportPort", 228, "unsigned16",
            doc="With -l: destination port after address translation."),
    Element("natEvent", 230, "unsigned8", doc="With -l: event of address translation (RFC 8158)."),
    Element("firewallEvent", 233, "unsigned8", doc="With -l: 1 created, 2 deleted, 3 denied, 4 alert, 5 updated."),
    Element("ingressVRFID", 234, "unsigned32", doc="With -l: VRF where the flow came in."),
    Element("egressVRFID", 235, "unsigned32", doc="With -l: VRF where the flow leaves."),
    Element("VRFname", 236, "string", doc="With -l: name of the VRF where the flow came in."),
    Element("biflowDirection", 239, "unsigned8",
            doc="1: the source of the biflow sent the SYN or ICMP request; 0: it was seen first."),
    Element("dot1qCustomerVlanId", 245, "unsigned16", doc="VLAN ID of the inner tag (QinQ), 0 when there is none."),
    Element("postNATSourceIPv6Address", 281, "ipv6Address", doc="With -l: source address after translation."),
    Element("postNATDestinationIPv6Address", 282, "ipv6Address", doc="With -l: destination address after translation."),
    Element("greKey", 296, "unsigned32", doc="Key of the GRE tunnel that carried the flow."),
    Element("selectorId", 302, "unsigned64", doc="With -l: the sampler or selector that chose the packets."),
    Element("observationTimeMilliseconds", 323, "dateTimeMilliseconds", "ms",
            "Times of the first and of the last loss of packets or records that are reported as lost."),
    Element("selectorName", 335, "string",
            doc="In relayed records: what counters were multiplied by, `1 in 1000`; of selectors: `sampler 5`."),
    Element("layer2SegmentId", 351, "unsigned64",
            doc="With --decap or -l: VXLAN (1) in the highest octet, the VNI in the lowest three."),
    Element("userName", 371, "string", doc="With -l: user of the flow. With `owners=on`: the process' user."),
    Element("originalExporterIPv4Address", 403, "ipv4Address",
            doc="In relayed records: the exporter that reported the flow first (RFC 7119)."),
    Element("originalExporterIPv6Address", 404, "ipv6Address", doc="The same, for an exporter with an IPv6 address."),
    Element("originalObservationDomainId", 405, "unsigned32",
            doc="In relayed records: that exporter's Observation Domain."),
    Element("ixiaConnectionAverageRoundTripTimeUs", 283, "unsigned32", "us",
            "TCP round-trip time, of flows where it is known.", IXIA),
    Element("ntopRetransmittedInPkts", 109, "unsigned32", "packets",
            "TCP segments retransmitted since the flow's previous record, of flows where there were any.", NTOP),
    Element("ntopRetransmittedOutPkts", 110, "unsigned32", "packets", "The same, of the other direction of a biflow.",
            NTOP),
    Element("ntopOoorderInPkts", 111, "unsigned32", "packets",
            "TCP segments out of order since the flow's previous record, of flows where there were any.", NTOP),
    Element("ntopOoorderOutPkts", 112, "unsigned32", "packets", "The same, of the other direction of a biflow.", NTOP),
    Element("ntopSrcProcPid", 168, "unsigned32", "",
            "With `owners=on`: process id of the local socket, of what it sends.", NTOP),
    Element("ntopDstProcPid", 375, "unsigned32", "", "The same, of what it receives.", NTOP),
)

def reverse_name(name: str) -> str:
    """Name of the reverse element (RFC 5103 section 6.2) of the element of that name."""
    return f"reverse{name[0].upper()}{name[1:]}"


ELEMENTS: dict[str, Element] = {element.name: element for element in _ALL}
"""All elements by name: IANA's in ascending order of number, then those of enterprises."""

ELEMENTS_BY_NUMBER: dict[tuple[int, int], Element] = {
    (element.enterprise, element.number): element for element in _ALL
}
"""All elements by enterprise number and element id."""

TUNNEL_MEMBERS = ("tunnel", "tunnelId", "layer2SegmentId")
"""Keys that `tunnel_values` may return."""
_VXLAN_SEGMENT = 0x01 << 56
"""layer2SegmentId has the kind of overlay in its highest octet."""


def tunnel_values(tunnel: int, tunnel_id: int) -> dict[str, str | int]:
    """JSON members for the tunnel of a flow; empty for a flow outside tunnels."""
    if tunnel == Tunnel.NONE:
        return {}
    values: dict[str, str | int] = {"tunnel": Tunnel(tunnel).label, "tunnelId": tunnel_id}
    return values | {"layer2SegmentId": _VXLAN_SEGMENT | tunnel_id} if tunnel == Tunnel.VXLAN else values
