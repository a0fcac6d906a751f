"""Captures as the oracles see them: whole IP packets, in order."""

import ipaddress
import logging
from collections import defaultdict

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.layers.inet import IP, UDP, IPerror  # noqa: E402
from scapy.layers.inet6 import IPerror6, IPv6, IPv6ExtHdrFragment  # noqa: E402
from scapy.layers.ipsec import ESP  # noqa: E402
from scapy.packet import Raw  # noqa: E402
from scapy.utils import RawPcapReader, wrpcap  # noqa: E402

ETHERNET = 1
RAW_IP = 101
VLAN_TAGS = (0x8100, 0x88A8)
FLAG_MF = 1


def l3_of(data, linktype):
    """The bytes from the IP header on, cut to the packet's own length; None for
    a frame that is not IP."""
    if linktype == ETHERNET:
        at = 12
        while int.from_bytes(data[at : at + 2], "big") in VLAN_TAGS:
            at += 4
        if int.from_bytes(data[at : at + 2], "big") not in (0x0800, 0x86DD):
            return None
        data = data[at + 2 :]
    elif linktype != RAW_IP:
        raise ValueError(f"link type {linktype} is neither Ethernet nor raw IP")
    if len(data) >= 20 and data[0] >> 4 == 4:
        return data[: int.from_bytes(data[2:4], "big")]
    if len(data) >= 40 and data[0] >> 4 == 6:
        return data[: 40 + int.from_bytes(data[4:6], "big")]
    return None


def parse(data):
    """Bytes that begin with an IP header, as Scapy's packet."""
    return (IPv6 if data[0] >> 4 == 6 else IP)(data)


def fragment_of(packet):
    """(datagram, offset, more to come, data) of a fragment; None for a whole packet."""
    if packet.version == 6:
        if IPv6ExtHdrFragment not in packet:
            return None
        f = packet[IPv6ExtHdrFragment]
        return (packet.src, packet.dst, f.id), f.offset * 8, f.m == 1, bytes(f.payload)
    if packet.frag == 0 and not packet.flags.MF:
        return None
    key = (packet.src, packet.dst, packet.proto, packet.id)
    return key, packet.frag * 8, bool(packet.flags.MF), bytes(packet.payload)


def whole(pieces):
    """The datagram of these fragments ({offset: (packet, more, data)}); None
    while some are missing. Overlapping ones never make a datagram."""
    data, more = b"", True
    for offset, (_, more, piece) in sorted(pieces.items()):
        if offset != len(data):
            return None
        data += piece
    if more:
        return None
    first = pieces[0][0].copy()
    if first.version == 6:
        fragment = first[IPv6ExtHdrFragment]
        before = fragment.underlayer
        before.nh = fragment.nh
        before.remove_payload()
        del first.plen
    else:
        first.remove_payload()
        first.flags = first.flags.value & ~FLAG_MF
        del first.len, first.chksum
    return parse(bytes(first / Raw(data)))


def numbered(path):
    """(place in the file, packet) for every IP packet of a pcap or pcapng file.
    Fragments come as the datagram that they make, where the last of them stood."""
    waiting = defaultdict(dict)
    with RawPcapReader(str(path)) as reader:
        for number, (data, meta) in enumerate(reader):
            linktype = getattr(meta, "linktype", None)
            l3 = l3_of(data, reader.linktype if linktype is None else linktype)
            if not l3:
                continue
            packet = parse(l3)
            fragment = fragment_of(packet)
            if fragment:
                key, offset, more, piece = fragment
                waiting[key][offset] = (packet, more, piece)
                packet = whole(waiting[key])
                if packet is None:
                    continue
                del waiting[key]
            yield number, packet


def read(path):
    """Every IP packet of a pcap or pcapng file, fragments put together."""
    return (packet for _, packet in numbered(path))


def write(path, packets):
    """A pcap of raw IP packets."""
    wrpcap(str(path), list(packets), linktype=RAW_IP)


def esp_of(packet):
    """(outer destination, SPI, sequence number, in UDP) of an ESP packet; None
    for anything else, the keepalive, the non-ESP marker and the ESP that an
    ICMP error quotes included."""
    if ESP not in packet or IPerror in packet or IPerror6 in packet:
        return None
    esp = packet[ESP]
    return ipaddress.ip_address(packet.dst), esp.spi, esp.seq, UDP in packet
