"""Captures as the oracles see them: whole IP packets, in order."""

import ipaddress
import logging

logging.getLogger("scapy").setLevel(logging.ERROR)

from scapy.layers.inet import IP, UDP, defragment  # noqa: E402
from scapy.layers.inet6 import IPv6, IPv6ExtHdrFragment, defragment6  # noqa: E402
from scapy.layers.ipsec import ESP  # noqa: E402
from scapy.utils import RawPcapReader, wrpcap  # noqa: E402

ETHERNET = 1
RAW_IP = 101
VLAN_TAGS = (0x8100, 0x88A8)


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


def is_fragment(packet):
    if packet.version == 6:
        return IPv6ExtHdrFragment in packet
    return packet.frag != 0 or packet.flags.MF


def whole(fragments):
    """The datagram of these fragments, None while some are missing."""
    joined = (defragment6 if fragments[0].version == 6 else defragment)(fragments)
    packets = [joined] if fragments[0].version == 6 else list(joined)
    if len(packets) != 1 or not packets[0] or is_fragment(packets[0]):
        return None
    return parse(bytes(packets[0]))


def read(path):
    """Every IP packet of a pcap or pcapng file. Fragments come as the datagram
    that they make, where the last of them stood."""
    waiting = {}
    with RawPcapReader(str(path)) as reader:
        for data, meta in reader:
            linktype = getattr(meta, "linktype", None)
            l3 = l3_of(data, reader.linktype if linktype is None else linktype)
            if l3 is None:
                continue
            packet = parse(l3)
            if not is_fragment(packet):
                yield packet
                continue
            ident = packet[IPv6ExtHdrFragment].id if packet.version == 6 else packet.id
            key = (packet.src, packet.dst, ident)
            waiting.setdefault(key, []).append(packet)
            if joined := whole(waiting[key]):
                del waiting[key]
                yield joined


def write(path, packets):
    """A pcap of raw IP packets."""
    wrpcap(str(path), list(packets), linktype=RAW_IP)


def esp_of(packet):
    """(outer destination, SPI, sequence number, in UDP) of an ESP packet; None
    for anything else, the keepalive and the non-ESP marker included."""
    if ESP not in packet:
        return None
    esp = packet[ESP]
    return ipaddress.ip_address(packet.dst), esp.spi, esp.seq, UDP in packet
