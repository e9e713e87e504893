"""Link types of capture files (tcpdump.org/linktypes.html): which are read and how, and the names of the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from flowtop.capture.packets import llc, point_to_point, pseudo, wireless
from flowtop.capture.packets.frames import Frames
from flowtop.capture.packets.headers import ETHERTYPE_MINIMUM
from flowtop.capture.packets.link import Link, loopback, raw_ip, raw_ipv4, raw_ipv6


def _ppi(frames: Frames) -> Link:
    return pseudo.ppi(frames, _read)


def _pktap(frames: Frames) -> Link:
    return pseudo.pktap(frames, _read)


LINK_TYPES: dict[int, Callable[[Frames], Link]] = {
    0: loopback,
    1: llc.ethernet,
    6: llc.token_ring,
    9: point_to_point.ppp,
    10: llc.fddi,
    11: llc.atm,
    12: raw_ip,  # DLT_RAW of Linux, most BSDs and OpenBSD, untranslated by some writers
    14: raw_ip,
    50: point_to_point.ppp_hdlc,
    51: point_to_point.ppp_over_ethernet,
    100: llc.atm,
    101: raw_ip,
    104: point_to_point.cisco_hdlc,
    105: wireless.ieee80211,
    107: point_to_point.frame_relay,
    108: loopback,
    109: pseudo.enc,
    113: pseudo.cooked,
    117: pseudo.pflog,
    119: wireless.prism,
    127: wireless.radiotap,
    138: pseudo.ip_over_1394,
    163: wireless.avs,
    166: point_to_point.pppd,
    192: _ppi,
    197: pseudo.erf,
    204: point_to_point.with_direction(point_to_point.ppp),
    205: point_to_point.with_direction(point_to_point.cisco_hdlc),
    206: point_to_point.with_direction(point_to_point.frame_relay),
    219: point_to_point.mpls,
    226: pseudo.ipnet,
    228: raw_ipv4,
    229: raw_ipv6,
    239: pseudo.nflog,
    258: _pktap,
    274: pseudo.ethernet_after(8),
    276: pseudo.cooked2,
    281: pseudo.ethernet_with_tag(4),
    282: pseudo.ethernet_after(4),
    283: pseudo.ethernet_with_tag(4),
    284: pseudo.ethernet_with_tag(8),
}
"""Functions by LINKTYPE_ number."""

_NAMES = {
    3: "AX25", 7: "ARCNET_BSD", 8: "SLIP", 99: "SYMANTEC_FIREWALL", 114: "LTALK", 118: "CISCO_IOS",
    122: "IP_OVER_FC", 123: "SUNATM", 129: "ARCNET_LINUX", 139: "MTP2_WITH_PHDR", 140: "MTP2", 141: "MTP3",
    142: "SCCP", 143: "DOCSIS", 144: "LINUX_IRDA", 147: "USER0", 148: "USER1", 149: "USER2", 150: "USER3", 151: "USER4",
    152: "USER5", 153: "USER6", 154: "USER7", 155: "USER8", 156: "USER9", 157: "USER10", 158: "USER11",
    159: "USER12", 160: "USER13", 161: "USER14", 162: "USER15", 165: "BACNET_MS_TP", 169: "GPRS_LLC", 170: "GPF_T",
    171: "GPF_F", 177: "LINUX_LAPD", 178: "JUNIPER_ETHER", 179: "JUNIPER_PPP", 181: "JUNIPER_CHDLC", 182: "MFR",
    183: "JUNIPER_VP", 187: "BLUETOOTH_HCI_H4", 189: "USB_LINUX", 190: "CAN20B", 195: "IEEE802_15_4_WITHFCS",
    196: "SITA", 199: "IPMB_KONTRON", 201: "BLUETOOTH_HCI_H4_WITH_PHDR", 202: "AX25_KISS", 203: "LAPD",
    209: "IPMB_LINUX", 210: "FLEXRAY", 212: "LIN", 215: "IEEE802_15_4_NONASK_PHY", 220: "USB_LINUX_MMAPPED",
    224: "FC_2", 225: "FC_2_WITH_FRAME_DELIMS", 227: "CAN_SOCKETCAN", 230: "IEEE802_15_4_NOFCS", 231: "DBUS",
    235: "DVB_CI", 236: "MUX27010", 237: "STANAG_5066_D_PDU", 240: "NETANALYZER", 241: "NETANALYZER_TRANSPARENT",
    242: "IPOIB", 243: "MPEG_2_TS", 244: "NG40", 245: "NFC_LLCP", 247: "INFINIBAND", 248: "SCTP", 249: "USBPCAP",
    250: "RTAC_SERIAL", 251: "BLUETOOTH_LE_LL", 252: "WIRESHARK_UPPER_PDU", 253: "NETLINK",
    254: "BLUETOOTH_LINUX_MONITOR", 255: "BLUETOOTH_BREDR_BB", 256: "BLUETOOTH_LE_LL_WITH_PHDR", 257: "PROFIBUS_DL",
    259: "EPON", 260: "IPMI_HPM_2", 261: "ZWAVE_R1_R2", 262: "ZWAVE_R3", 263: "WATTSTOPPER_DLM", 264: "ISO_14443",
    265: "RDS", 266: "USB_DARWIN", 267: "OPENFLOW", 268: "SDLC", 270: "LORATAP", 271: "VSOCK", 272: "NORDIC_BLE",
    273: "DOCSIS31_XRA31", 275: "DISPLAYPORT_AUX", 277: "SERCOS_MONITOR", 278: "OPENVIZSLA",
    279: "EBHSCR", 280: "VPP_DISPATCH", 285: "ELEE", 286: "ZWAVE_SERIAL", 287: "USB_2_0", 288: "ATSC_ALP",
    289: "ETW", 291: "ZBOSS_NCP", 292: "USB_2_0_LOW_SPEED", 293: "USB_2_0_FULL_SPEED", 294: "USB_2_0_HIGH_SPEED",
    295: "AUERSWALD_LOG", 296: "ZWAVE_TAP", 297: "SILABS_DEBUG_CHANNEL", 298: "FIRA_UCI",
}
"""Names of link types that are not read, as tcpdump has them."""


def link_type_text(number: int) -> str:
    """`253 (NETLINK)`, or just the number."""
    name = _NAMES.get(number)
    return f"{number} ({name})" if name else str(number)


class UnreadLinks:
    """Counts the frames of link types that are not read."""

    def __init__(self) -> None:
        self._frames: Counter[int] = Counter()

    def count(self, frames: Frames) -> None:
        """Count those among these frames."""
        for number, interface in enumerate(frames.interfaces):
            if interface.link_type not in LINK_TYPES:
                self._frames[interface.link_type] += int(np.count_nonzero(frames.interface == number))

    @property
    def text(self) -> str:
        """`has 3 frames of link type 253 (NETLINK), which is not supported`; "" for none."""
        kinds = [f"{count:,} {'frame' if count == 1 else 'frames'} of link type {link_type_text(number)}"
                 for number, count in sorted(self._frames.items()) if count]
        return f"has {', '.join(kinds)}, which is not supported" if kinds else ""


def read_link(frames: Frames) -> Link:
    """Read the link layer of frames of any link types; frames of an unknown one count as not IP."""
    types = np.array([interface.link_type for interface in frames.interfaces], np.int64)
    if len(frames.interfaces) == 1 or (types == types[0]).all():
        return _read(frames, int(types[0]))
    mixture = types[frames.interface]
    link = _unknown(len(frames.offset))
    for number in np.unique(mixture).tolist():
        rows = np.flatnonzero(mixture == number)
        part = _read(frames.take(rows), number)
        for name in Link.__slots__:
            getattr(link, name)[rows] = getattr(part, name)
    return link


def split_aggregates(frames: Frames) -> Frames:
    """Frames with one element for each packet of the 802.11 frames that hold several (A-MSDU)."""
    wireless_types = [number for number, interface in enumerate(frames.interfaces) if interface.link_type in _WIRELESS]
    if not wireless_types:
        return frames
    rows = np.flatnonzero(np.isin(frames.interface, wireless_types))
    found, ordinals = [np.arange(len(frames.offset))], [np.zeros(len(frames.offset), np.int64)]
    for ordinal in range(_MOST_SUBFRAMES):
        rows = rows[read_link(replace(frames.take(rows), ordinal=np.full(len(rows), ordinal))).more]
        if not len(rows):
            break
        found.append(rows)
        ordinals.append(np.full(len(rows), ordinal + 1))
    if len(found) == 1:
        return frames
    every, which = np.concatenate(found), np.concatenate(ordinals)
    order = np.lexsort((which, every))
    return replace(frames.take(every[order]), ordinal=which[order])


_WIRELESS = frozenset({105, 119, 127, 163, 192})
_MOST_SUBFRAMES = 128
"""More do not fit into the longest A-MSDU, of 11,454 octets."""


def _read(frames: Frames, link_type: int) -> Link:
    read = LINK_TYPES.get(link_type)
    return read(frames) if read else _unknown(len(frames.offset))


def _unknown(n: int) -> Link:
    link = Link.blank(n)
    link.type[:] = ETHERTYPE_MINIMUM
    return link
