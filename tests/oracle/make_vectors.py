#!/usr/bin/env python3
"""Writes tests/vectors/more: captures with ESP sealed here, apart from the
project, and the answers that gm-xfrm must give.

    python3 tests/oracle/make_vectors.py [DIRECTORY]

Each case is a folder like those beside it: sad.toml, esp.pcap, plain.pcap,
expect.jsonl. The random generator is seeded, so a second run writes the same
bytes. The cryptography is pyca's, the rest is struct; what a packet must be
answered with is said where it is made, not computed from it.
"""

import ipaddress
import json
import random
import struct
import sys
from pathlib import Path

from cryptography.hazmat.decrepit.ciphers.algorithms import TripleDES
from cryptography.hazmat.primitives import hashes, hmac
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from sad import EVERY_NAME, LEGACY_NAMES, NAMES, annex_i

RAW, ETHERNET = 101, 1
ESP, UDP, TCP, ICMP = 50, 17, 6, 1
SUITES = list(NAMES)
P_CSCF4, P_CSCF6 = "203.0.113.5", "2001:db8:cafe::1"


def checksum(data):
    if len(data) % 2:
        data += b"\0"
    total = sum(struct.unpack(f">{len(data) // 2}H", data))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def packed(address):
    return ipaddress.ip_address(address).packed


def ip(src, dst, proto, payload, ident=0x1234, place=0, options=b"", tos=0, before=b""):
    """An IP packet. `place` is IPv4's flags and offset; `before` are IPv6
    extension headers, the first of which `proto` names."""
    if ipaddress.ip_address(src).version == 6:
        head = struct.pack(">IHBB", 6 << 28 | tos << 20, len(before + payload), proto, 64)
        return head + packed(src) + packed(dst) + before + payload
    words = 5 + len(options) // 4
    head = struct.pack(
        ">BBHHHBBH", 4 << 4 | words, tos, 4 * words + len(payload), ident, place, 64, proto, 0
    )
    head += packed(src) + packed(dst) + options
    return head[:10] + struct.pack(">H", checksum(head)) + head[12:] + payload


def udp(sport, dport, payload):
    return struct.pack(">HHHH", sport, dport, 8 + len(payload), 0) + payload


def tcp(sport, dport, payload):
    return struct.pack(">HHIIBBHHH", sport, dport, 1, 1, 5 << 4, 0x18, 8192, 0, 0) + payload


class Sa:
    """One SA with a sender of its own."""

    def __init__(self, rng, suite, src, dst, ports=(5062, 5064), outer=None, encap=None,
                 explicit=False, esn=False, window=None, proto=None, spi=None):
        self.suite, self.src, self.dst, self.ports = suite, src, dst, ports
        self.outer, self.encap, self.esn, self.rng = outer, encap, esn, rng
        self.spi = spi or rng.randrange(256, 1 << 32)
        ik, ck = rng.randbytes(16), rng.randbytes(16)
        self.integrity, self.encryption, self.salt = annex_i(suite, ik, ck)
        alg, ealg = EVERY_NAME[suite]
        rows = [("spi", self.spi), ("mode", "udp-enc-tun" if outer else "trans")]
        rows += [("src", src), ("dst", dst)]
        rows += [(k, p) for k, p in zip(("src_port", "dst_port"), ports) if p]
        rows += [("alg", alg), ("ealg", ealg)]
        if explicit:
            if suite.startswith("sha1"):
                self.integrity = rng.randbytes(20)
            if suite.endswith("3des"):
                self.encryption = rng.randbytes(24)
            keys = (self.integrity, self.encryption, self.salt)
            names = ("integrity_key", "encryption_key", "salt")
            rows += [(n, k.hex()) for n, k in zip(names, keys) if k]
        else:
            rows += [("ik", ik.hex()), ("ck", ck.hex())]
        if outer:
            rows += [("outer_src", outer[0]), ("outer_dst", outer[1])]
            rows += [("encap_sport", encap[0]), ("encap_dport", encap[1])]
        rows += [("esn", True)] if esn else []
        rows += [("replay_window", window)] if window else []
        rows += [("proto", proto)] if proto else []
        self.rows = rows

    def toml(self):
        text = {True: "true"}
        value = lambda v: text[v] if v is True else json.dumps(v)
        return "[[sa]]\n" + "".join(f"{k} = {value(v)}\n" for k, v in self.rows)

    def plain(self, size=40, transport=UDP, **more):
        """A packet that the selectors match."""
        sport, dport = (p or self.rng.randrange(1, 65536) for p in self.ports)
        if transport in (UDP, TCP):
            make = udp if transport == UDP else tcp
            payload = make(sport, dport, self.rng.randbytes(size))
        else:
            payload = self.rng.randbytes(size)
        return ip(self.src, self.dst, transport, payload, **more)

    def esp(self, seq, payload, next_header, pad=None, padding=None, flip=None, hi=None):
        """ESP after RFC 4303: `hi` overrides the high half of the number, `flip`
        is the offset of a byte that is damaged."""
        mac, _, cipher = self.suite.partition("-")
        block = {"cbc": 16, "3des": 8}.get(cipher, 4)
        if pad is None:
            pad = -(len(payload) + 2) % block
        padding = bytes(range(1, pad + 1)) if padding is None else padding
        text = payload + padding + bytes([pad & 0xFF, next_header])
        head = struct.pack(">II", self.spi, seq & 0xFFFFFFFF)
        high = struct.pack(">I", (seq >> 32) if hi is None else hi) if self.esn else b""
        if self.suite in ("gcm", "gmac"):
            iv = head
            aad = head[:4] + high + head[4:]
            if self.suite == "gcm":
                body = iv + AESGCM(self.encryption).encrypt(self.salt + iv, text, aad)
            else:
                tag = AESGCM(self.integrity).encrypt(self.salt + iv, b"", aad + iv + text)
                body = iv + text + tag
        else:
            body = text
            if cipher != "null":
                iv = self.rng.randbytes(block)
                algorithm = {"cbc": algorithms.AES, "3des": TripleDES}[cipher](self.encryption)
                cbc = Cipher(algorithm, modes.CBC(iv)).encryptor()
                body = iv + cbc.update(text) + cbc.finalize()
            tag = hmac.HMAC(self.integrity, {"sha1": hashes.SHA1, "md5": hashes.MD5}[mac]())
            tag.update(head + body + high)
            body += tag.finalize()[:12]
        packet = bytearray(head + body)
        if flip is not None:
            packet[flip] ^= 1
        return bytes(packet)

    def seal(self, seq, plain, **more):
        """The whole packet for the wire."""
        v6 = plain[0] >> 4 == 6
        if self.outer:
            return self.wrap(self.esp(seq, plain, 41 if v6 else 4, **more))
        at = 40 if v6 else (plain[0] & 15) * 4
        named = 6 if v6 else 9
        esp = self.esp(seq, plain[at:], plain[named], **more)
        head = bytearray(plain[:at])
        head[named] = ESP
        if v6:
            head[4:6] = struct.pack(">H", len(esp))
            return bytes(head) + esp
        head[2:4] = struct.pack(">H", at + len(esp))
        head[10:12] = bytes(2)
        head[10:12] = struct.pack(">H", checksum(bytes(head)))
        return bytes(head) + esp

    def wrap(self, esp, **more):
        return ip(*self.outer, UDP, udp(*self.encap, esp), **more)


def fragments(packet, *cuts, ident=7):
    """A packet's fragments: payload offsets (multiples of 8) where it is cut."""
    v6 = packet[0] >> 4 == 6
    at = 40 if v6 else (packet[0] & 15) * 4
    payload = packet[at:]
    made = []
    for start, end in zip((0, *cuts), (*cuts, len(payload))):
        made.append(fragment(packet, payload[start:end], start, end < len(payload), ident))
    return made


def fragment(packet, piece, start, more, ident=7):
    """One fragment with this piece of the payload at this offset."""
    if packet[0] >> 4 == 6:
        head = struct.pack(">BBHI", packet[6], 0, start | more, ident)
        whole = bytearray(packet[:40] + head + piece)
        whole[6] = 44
        whole[4:6] = struct.pack(">H", 8 + len(piece))
        return bytes(whole)
    at = (packet[0] & 15) * 4
    head = bytearray(packet[:at])
    head[2:8] = struct.pack(">HHH", at + len(piece), ident, more << 13 | start // 8)
    head[10:12] = bytes(2)
    head[10:12] = struct.pack(">H", checksum(bytes(head)))
    return bytes(head) + piece


class Case:
    """One folder."""

    def __init__(self, name, linktype=RAW):
        self.name, self.linktype = name, linktype
        self.rng = random.Random(name)
        self.sas, self.records, self.plains, self.lines = [], [], [], []

    def sa(self, *args, **more):
        self.sas.append(Sa(self.rng, *args, **more))
        return self.sas[-1]

    def packet(self, data, verdict, sa=None, seq=None, plain=None, wire_len=None, spi=None):
        """An input packet and its answer; `plain` for verdict ok."""
        assert (verdict == "ok") == (plain is not None)
        at = len(self.records)
        time = (1_800_000_000 + at // 7, 1000 * at + 17)
        self.records.append((time, wire_len or len(data), data))
        if plain is not None:
            self.plains.append((time, len(plain), plain))
        spi = sa.spi if sa and spi is None else spi
        seq = None if seq is None else seq & 0xFFFFFFFF
        self.lines.append({"index": at, "spi": spi, "seq": seq, "verdict": verdict})

    def ok(self, sa, seq, plain=None, **more):
        plain = plain or sa.plain()
        self.packet(sa.seal(seq, plain, **more), "ok", sa, seq, plain)

    def bad(self, verdict, sa, seq, plain=None, **more):
        self.packet(sa.seal(seq, plain or sa.plain(), **more), verdict, sa, seq)

    def fragments(self, pieces, sa=None, seq=None, plain=None, verdict="ok"):
        """Pieces in the order in which they come; the last makes it whole."""
        for piece in pieces[:-1]:
            self.packet(piece, "fragment")
        self.packet(pieces[-1], verdict, sa, seq, plain)

    def write(self, root):
        folder = root / self.name
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "sad.toml").write_text("\n".join(sa.toml() for sa in self.sas))
        self.pcap(folder / "esp.pcap", self.records)
        self.pcap(folder / "plain.pcap", self.plains)
        lines = (json.dumps(line, separators=(",", ":")) + "\n" for line in self.lines)
        (folder / "expect.jsonl").write_text("".join(lines))

    def pcap(self, path, records):
        data = struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 262144, self.linktype)
        for (sec, usec), length, packet in records:
            data += struct.pack("<IIII", sec, usec, len(packet), length) + packet
        path.write_bytes(data)


def esn():
    """Extended sequence numbers over the end of the first 2^32."""
    case = Case("esn")
    top = 1 << 32
    for suite, src in zip(SUITES, range(10, 14)):
        sa = case.sa(suite, f"198.51.100.{src}", P_CSCF4, esn=True)
        case.ok(sa, 1)
        case.bad("bad-icv", sa, 2, hi=1)
        case.ok(sa, 2)
        case.ok(sa, top - 20)
        if suite in ("gcm", "gmac"):
            case.bad("replay", sa, top - 20)
        for seq in (top + 5, top - 1, top, top - 58, top + 6):
            case.ok(sa, seq)
        case.bad("replay", sa, top - 1)
        case.bad("replay", sa, top + 5)
        # Left of the window is what comes 2^32 later: the ICV says no.
        case.bad("bad-icv", sa, top - 58)
        case.ok(sa, top + 6 + 64)
    return case


def windows():
    """The edges of windows of 32, 64 and 4096, and one that is no multiple of 64."""
    case = Case("windows")
    for at, size in enumerate((32, None, 100, 4096)):
        sa = case.sa("gcm", f"198.51.100.{20 + at}", P_CSCF4, window=size)
        size = size or 64
        case.bad("replay", sa, 0)
        case.ok(sa, 5000)
        case.ok(sa, 5000 - size + 1)
        case.bad("stale", sa, 5000 - size)
        case.bad("replay", sa, 5000 - size + 1)
        case.bad("bad-icv", sa, 9000, flip=-1)
        case.ok(sa, 5001)
        case.bad("stale", sa, 5000 - size + 1)
        case.ok(sa, 5000 + size)
        case.bad("stale", sa, 5000)
        case.bad("replay", sa, 5001)
        case.ok(sa, 0xFFFFFFFF)
        case.bad("replay", sa, 0xFFFFFFFF)
        case.bad("stale", sa, 7)
    return case


def window_model():
    """Random numbers against a set: all seen, and whatever is left of the top."""
    case = Case("window-model")
    sa = case.sa("sha1-null", "198.51.100.30", P_CSCF4, window=96)
    top, seen = 0, set()
    for _ in range(1500):
        seq = max(0, top + int(case.rng.gauss(0, 60)))
        if seq == 0 or (seq in seen and seq > top - 96):
            case.bad("replay", sa, seq)
        elif seq <= top - 96:
            case.bad("stale", sa, seq)
        elif case.rng.random() < 0.1:
            case.bad("bad-icv", sa, seq, flip=-2)
        else:
            case.ok(sa, seq, sa.plain(case.rng.randrange(60)))
            top, seen = max(top, seq), seen | {seq}
    return case


def modes_and_keys():
    """Explicit keys, any protocol and port, IPv6 tunnels, mixed families."""
    case = Case("modes")
    ue6, nat6 = "2001:db8:bd4d::42ca", "2001:db8:aaaa::99"
    for at, suite in enumerate(SUITES):
        sa = case.sa(suite, f"198.51.100.{40 + at}", P_CSCF4, explicit=True)
        case.ok(sa, 9)
        case.bad("selector-mismatch", sa, 10, sa.plain(transport=ICMP))
        tunnel = case.sa(suite, ue6, P_CSCF6, ports=(7000 + at, 7100 + at),
                         outer=(nat6, P_CSCF6), encap=(40000 + at, 4500))
        case.ok(tunnel, 1)
        case.ok(tunnel, 2, tunnel.plain(333, TCP))
        raw = ip(nat6, P_CSCF6, ESP, tunnel.esp(3, tunnel.plain(), 41))
        case.packet(raw, "mode-mismatch", tunnel, 3)
        # What stands behind the inner packet is trimmed.
        plain = tunnel.plain(30)
        trailing = tunnel.wrap(tunnel.esp(4, plain + bytes(8), 41))
        case.packet(trailing, "ok", tunnel, 4, plain)
        # A NAT owns the outer source: address and port may be others.
        moved = ip("2001:db8:aaaa::77", P_CSCF6, UDP, udp(1, 4500, tunnel.esp(5, plain, 41)))
        case.packet(moved, "ok", tunnel, 5, plain)
        # Next header and inner version must agree.
        case.packet(tunnel.wrap(tunnel.esp(6, plain, 4)), "malformed", tunnel, 6)
        mixed = case.sa(suite, ue6, P_CSCF6, ports=(7200 + at, None),
                        outer=("192.0.2.77", P_CSCF4), encap=(4500, 40100 + at))
        case.ok(mixed, 77)
    any_proto = case.sa("gcm", "198.51.100.50", P_CSCF4, ports=(None, None), proto="any")
    case.ok(any_proto, 1, any_proto.plain(transport=ICMP))
    case.ok(any_proto, 2, any_proto.plain(transport=132))
    case.ok(any_proto, 3)
    case.bad("dummy", any_proto, 4, any_proto.plain(transport=59))
    half = case.sa("gmac", "198.51.100.51", P_CSCF4, ports=(None, 5070))
    case.ok(half, 1)
    case.ok(half, 2, half.plain(transport=TCP))
    wrong = ip(half.src, half.dst, UDP, udp(5, 5071, b"x"))
    case.bad("selector-mismatch", half, 3, wrong)
    case.bad("replay", half, 3, wrong)
    return case


def shapes():
    """Lengths that contradict, padding of all kinds, options and extensions."""
    case = Case("shapes")
    for at, suite in enumerate(SUITES):
        sa = case.sa(suite, f"198.51.100.{60 + at}", P_CSCF4)
        v6 = case.sa(suite, f"2001:db8:1::{60 + at:x}", P_CSCF6)
        # IPv4 options (record route, end) and IPv6 hop-by-hop stay in front.
        case.ok(sa, 1, sa.plain(options=bytes([7, 7, 4, 0, 0, 0, 0, 0]), tos=0x88))
        plain = v6.plain(21)
        hop = bytes([UDP, 0, 1, 4, 0, 0, 0, 0])
        whole = ip(v6.src, v6.dst, 0, plain[40:], before=hop)
        esp = v6.esp(1, plain[40:], UDP)
        sealed = ip(v6.src, v6.dst, 0, esp, before=bytes([ESP]) + hop[1:])
        case.packet(sealed, "ok", v6, 1, whole)
        # Padding: longer than needed, of other bytes, longer than the packet.
        plain = sa.plain(10)
        extra = -(len(plain) - 20 + 2) % 16 + 224
        case.ok(sa, 2, plain, pad=extra)
        case.ok(sa, 3, plain, pad=extra, padding=bytes(extra))
        short = -(len(plain) - 20 + 2) % 16
        over = sa.esp(4, plain[20:] + bytes(short), UDP, pad=255, padding=b"")
        case.packet(ip(sa.src, sa.dst, ESP, over), "malformed", sa, 4)
        # A UDP header that is cut, and a UDP length that goes beyond.
        case.bad("malformed", sa, 5, ip(sa.src, sa.dst, UDP, b"\x13\xc6\x13\xc8\0"))
        # The IP length contradicts the capture: cut after 60 bytes, or lying.
        sealed = sa.seal(6, plain)
        case.packet(sealed[:50], "malformed", sa, 6, wire_len=len(sealed))
        case.packet(sealed[:27], "malformed", wire_len=len(sealed))
        lying = bytearray(sealed)
        lying[2:4] = b"\x40\0"
        case.packet(bytes(lying), "malformed", sa, 6)
        case.packet(sealed, "ok", sa, 6, plain)
        # One byte short of the smallest packet, and the smallest.
        small = {"sha1-null": 24, "sha1-cbc": 52, "gmac": 36, "gcm": 36}[suite]
        tiny = struct.pack(">II", sa.spi, 7) + bytes(small - 8 - 1)
        case.packet(ip(sa.src, sa.dst, ESP, tiny), "malformed", sa, 7)
        case.packet(ip(sa.src, sa.dst, ESP, tiny + b"\0"), "bad-icv", sa, 7)
        case.packet(ip(sa.src, "203.0.113.6", ESP, tiny + b"\0"), "unknown-spi", sa, 7)
        case.packet(ip(sa.src, sa.dst, ESP, tiny[:19]), "malformed", sa, 7)
        case.packet(ip(sa.src, sa.dst, ESP, tiny[:7]), "malformed")
    nat = lambda payload: ip("192.0.2.9", P_CSCF4, UDP, udp(33333, 4500, payload))
    case.packet(nat(b"\xff"), "not-esp")
    case.packet(nat(bytes(4) + b"ike"), "not-esp")
    case.packet(nat(b""), "malformed")
    case.packet(nat(b"\xfe"), "malformed")
    case.packet(nat(bytes(3)), "malformed")
    case.packet(nat(struct.pack(">II", 0xDEADBEEF, 1)), "malformed", spi=0xDEADBEEF, seq=1)
    case.packet(nat(struct.pack(">II", 1, 2) + bytes(30)), "unknown-spi", spi=1, seq=2)
    lying = bytearray(nat(struct.pack(">II", 0xDEADBEEF, 1) + bytes(40)))
    lying[24:26] = b"\xff\xff"
    case.packet(bytes(lying), "malformed", spi=0xDEADBEEF, seq=1)
    case.packet(ip("192.0.2.9", P_CSCF4, ICMP, b"\x08\0\0\0" + bytes(20)), "not-esp")
    case.packet(ip("192.0.2.9", P_CSCF4, UDP, udp(5060, 5060, b"SIP")), "not-esp")
    case.packet(ip("192.0.2.9", P_CSCF4, TCP, bytes(20))[:30], "not-esp", wire_len=40)
    case.packet(b"\x45\0\0", "malformed", wire_len=60)
    return case


def ethernet():
    """Ethernet: padding is cut, VLAN tags stay, what is not IP is not ESP."""
    case = Case("ethernet", ETHERNET)
    macs = bytes.fromhex("02005e0000010200 5e000002")
    tags = {
        "plain": b"",
        "vlan": bytes.fromhex("81000064"),
        "qinq": bytes.fromhex("88a800c881000064"),
    }

    def frame(packet, tag=b"", tail=b""):
        kind = b"\x86\xdd" if packet[0] >> 4 == 6 else b"\x08\x00"
        return macs + tag + kind + packet + tail

    for at, suite in enumerate(SUITES):
        sa = case.sa(suite, f"198.51.100.{80 + at}", P_CSCF4)
        v6 = case.sa(suite, f"2001:db8:2::{80 + at:x}", P_CSCF6)
        mixed = case.sa(suite, v6.src, P_CSCF6, ports=(6000 + at, 6001), proto="udp-tcp",
                        outer=("192.0.2.78", P_CSCF4), encap=(41000 + at, 4500))
        for seq, tag in enumerate(tags.values(), 1):
            for one in (sa, v6, mixed):
                plain = one.plain(case.rng.randrange(200))
                tail = case.rng.randbytes(case.rng.randrange(1, 19))
                data = frame(one.seal(seq, plain), tag, tail)
                case.packet(data, "ok", one, seq, frame(plain, tag))
                case.packet(data, "replay", one, seq)
    keepalive = ip("192.0.2.9", P_CSCF4, UDP, udp(33333, 4500, b"\xff"))
    case.packet(frame(keepalive, tail=bytes(17)), "not-esp")
    case.packet(macs + b"\x08\x06" + bytes(46), "not-esp")
    case.packet(macs[:9], "not-esp", wire_len=60)
    case.packet(macs + b"\x08\x00" + b"\x45\0\0", "malformed", wire_len=60)
    return case


def in_pieces():
    """Fragments in any order, of ESP and of UDP, IPv4 and IPv6."""
    case = Case("fragments")
    for at, suite in enumerate(SUITES):
        v4 = case.sa(suite, f"198.51.100.{100 + at}", P_CSCF4)
        v6 = case.sa(suite, f"2001:db8:3::{100 + at:x}", P_CSCF6)
        tunnel4 = case.sa(suite, v4.src, P_CSCF4, ports=(6100 + at, 6101),
                          outer=(f"192.0.2.{100 + at}", P_CSCF4), encap=(42000 + at, 4500))
        tunnel6 = case.sa(suite, v6.src, P_CSCF6, ports=(6100 + at, 6101),
                          outer=(f"2001:db8:4::{at:x}", P_CSCF6), encap=(42000 + at, 4500))
        for sa in (v4, v6, tunnel4, tunnel6):
            made = lambda seq, *cuts: (
                plain := sa.plain(case.rng.randrange(900, 3000), ident=100 + seq),
                fragments(sa.seal(seq, plain), *cuts, ident=100 + seq),
            )
            plain, pieces = made(1, 512)
            case.fragments(pieces, sa, 1, plain)
            plain, pieces = made(2, 8, 64, 800)
            case.fragments(pieces[::-1], sa, 2, plain)
            plain, pieces = made(3, 240, 480, 720)
            case.rng.shuffle(pieces)
            case.fragments(pieces, sa, 3, plain)
            # The same again is a replay, and takes its fragments too.
            case.fragments(pieces, sa, 3, verdict="replay")
            # Two datagrams at once.
            plain_a, a = made(5, 400)
            plain_b, b = made(4, 480)
            case.packet(a[0], "fragment")
            case.packet(b[1], "fragment")
            case.packet(b[0], "ok", sa, 4, plain_b)
            case.packet(a[1], "ok", sa, 5, plain_a)
            # Never whole.
            case.packet(made(6, 400)[1][1], "fragment")
    v4, v6 = case.sas[0], case.sas[1]
    # An atomic fragment is whole by itself (RFC 6946).
    plain = v6.plain()
    case.packet(fragments(v6.seal(50, plain), ident=9)[0], "ok", v6, 50, plain)
    # Other things in fragments are what they are when they are whole.
    sip = ip("192.0.2.9", P_CSCF4, UDP, udp(5060, 5060, bytes(700)))
    case.fragments(fragments(sip, 400, ident=10), verdict="not-esp")
    # A piece over the end of another; then a fragment longer than the capture.
    for sa in (v4, v6):
        sealed = sa.seal(60, sa.plain(900))
        first, last = fragments(sealed, 640, ident=11)
        at = 40 if sealed[0] >> 4 == 6 else 20
        over = fragment(sealed, sealed[at + 320 : at + 648], 320, True, 11)
        case.packet(first, "fragment")
        case.packet(over, "malformed")
        case.packet(last[:-4], "malformed", wire_len=len(last))
    return case


def legacy():
    """The suites of older releases: sizes around their blocks, both modes and
    families, explicit keys, ESN, damage, shapes, fragments."""
    case = Case("legacy")
    top = 1 << 32
    for at, (suite, smallest, block) in enumerate(
        zip(LEGACY_NAMES, (24, 52, 36, 36), (None, 16, 8, 8))
    ):
        sa = case.sa(suite, f"198.51.100.{120 + at}", P_CSCF4)
        for size in range(18):
            case.ok(sa, size + 1, sa.plain(size))
        case.ok(sa, 19, sa.plain(7), pad=-(8 + 7 + 2) % (block or 4) + 224)
        case.ok(sa, 99, sa.plain(1301, TCP))
        case.bad("bad-icv", sa, 100, flip=-1)  # the ICV
        case.packet(sa.seal(100, sa.plain(), flip=7), "bad-icv", sa, 101)  # the number
        case.bad("bad-icv", sa, 100, flip=8)  # IV or payload
        case.bad("bad-icv", sa, 100, flip=-13)  # the last of what it covers
        case.ok(sa, 100)
        case.bad("replay", sa, 100)
        case.ok(sa, 200)
        case.bad("stale", sa, 136)
        case.ok(sa, 137)
        case.bad("selector-mismatch", sa, 201, sa.plain(transport=ICMP))
        tiny = struct.pack(">II", sa.spi, 300) + bytes(smallest - 8)
        case.packet(ip(sa.src, sa.dst, ESP, tiny[:-1]), "malformed", sa, 300)
        case.packet(ip(sa.src, sa.dst, ESP, tiny), "bad-icv", sa, 300)
        if block:
            # Four bytes more than whole blocks; as a whole block it is only forged.
            case.packet(ip(sa.src, sa.dst, ESP, tiny + bytes(4)), "malformed", sa, 300)
            case.packet(ip(sa.src, sa.dst, ESP, tiny + bytes(block)), "bad-icv", sa, 300)
        plain = sa.plain(900, ident=302)
        case.fragments(fragments(sa.seal(302, plain), 256, ident=302), sa, 302, plain)

        v6 = case.sa(suite, f"2001:db8:7::{at + 1:x}", P_CSCF6, explicit=True)
        case.ok(v6, 1)
        case.ok(v6, 2, v6.plain(333, TCP))
        case.bad("bad-icv", v6, 3, flip=-1)

        nat = case.sa(suite, sa.src, P_CSCF4, ports=(6200 + at, 6201),
                      outer=(f"192.0.2.{120 + at}", P_CSCF4), encap=(43000 + at, 4500))
        case.ok(nat, 1)
        case.ok(nat, 2, nat.plain(77, TCP))
        case.packet(nat.wrap(nat.esp(3, nat.plain(), 41)), "malformed", nat, 3)
        raw = ip(nat.outer[0], P_CSCF4, ESP, nat.esp(4, nat.plain(), 4))
        case.packet(raw, "mode-mismatch", nat, 4)
        nat6 = case.sa(suite, v6.src, P_CSCF6, ports=(6300 + at, 6301),
                       outer=(f"2001:db8:8::{at + 1:x}", P_CSCF6), encap=(43100 + at, 4500))
        case.ok(nat6, 1)

        esn = case.sa(suite, f"198.51.100.{130 + at}", P_CSCF4, esn=True)
        case.ok(esn, 1)
        case.bad("bad-icv", esn, 2, hi=1)
        case.ok(esn, top - 20)
        for seq in (top + 5, top - 1, top):
            case.ok(esn, seq)
        case.bad("replay", esn, top + 5)
    return case


def main():
    root = Path(__file__).resolve().parent.parent / "vectors" / "more"
    if len(sys.argv) > 1:
        root = Path(sys.argv[1])
    for make in (esn, windows, window_model, modes_and_keys, shapes, ethernet, in_pieces, legacy):
        case = make()
        case.write(root)
        print(f"{case.name}: {len(case.records)} packets, {len(case.plains)} open")


if __name__ == "__main__":
    main()
