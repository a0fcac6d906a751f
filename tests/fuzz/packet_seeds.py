"""Seeds of the targets that read packets: captures of tests/vectors, frames of
each kind, and sequences of steps (what the bytes choose is in props/)."""

import pathlib
import struct

tests = pathlib.Path(__file__).parent.parent
mac = bytes([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2])


def capture(path):
    """The packets of a pcap, each from its IP header on."""
    data, at = path.read_bytes(), 24
    ethernet = struct.unpack_from("<I", data, 20)[0] == 1
    while at < len(data):
        length = struct.unpack_from("<I", data, at + 8)[0]
        packet = data[at + 16 : at + 16 + length]
        yield packet[14:] if ethernet else packet
        at += 16 + length


def framed(packet, tags=b""):
    kind = b"\x86\xdd" if packet[:1] and packet[0] >> 4 == 6 else b"\x08\x00"
    return mac + tags + kind + packet


def v4(proto, payload, place=0, options=b"", dst=bytes([10, 0, 0, 1])):
    header = struct.pack(">BBHHHBBH", 0x45 + len(options) // 4, 0, 20 + len(options) + len(payload), 7, place, 64, proto, 0)
    return header + bytes([10, 0, 0, 2]) + dst + options + payload


def v6(proto, payload):
    ends = bytes.fromhex("20010db8" + "00" * 11 + "02" + "20010db8" + "00" * 11 + "01")
    return struct.pack(">IHBB", 0x60000000, len(payload), proto, 64) + ends + payload


def udp(payload, ports=(6064, 5063)):
    return struct.pack(">HHHH", *ports, 8 + len(payload), 0) + payload


esp = struct.pack(">II", 1_000_000_001, 1) + bytes(range(40))
in_udp = udp(esp, (33333, 4500))
tcp = struct.pack(">HHIIBBHHHHBBH", 6064, 5063, 1, 0, 0x60, 2, 65535, 0, 0, 0, 2, 4, 1460)


def extension(following, payload, words=0):
    return bytes([following, words, 1, 4 + 8 * words]) + bytes(4 + 8 * words) + payload


def piece(following, place, payload):
    return bytes([following, 0]) + struct.pack(">HI", place, 9) + payload


def frames():
    """One of each kind, without and with VLAN tags."""
    quoted = bytes([3, 4, 0, 0, 0, 0, 5, 0]) + v4(50, esp)
    packets = [
        v4(50, esp), v6(50, esp), v4(17, in_udp), v6(17, in_udp), v4(17, udp(b"\xff", (1, 4500))),
        v4(17, udp(bytes(8), (1, 4500))), v4(17, udp(b"REGISTER")), v4(6, tcp), v6(6, tcp), v4(50, esp, options=bytes([148, 4, 0, 0])),
        v6(0, extension(43, extension(60, extension(50, esp), 1))), v6(60, extension(17, in_udp)),
        v4(17, in_udp[:24], 0x2000), v4(17, in_udp[24:], 3), v6(44, piece(17, 1, in_udp[:24])), v6(44, piece(17, 24, in_udp[24:])),
        v6(44, piece(50, 0, esp)), v4(1, quoted), v6(58, bytes([2, 0, 0, 0, 0, 0, 5, 0]) + v6(50, esp)), v4(50, esp[:15]),
        v4(17, in_udp[:4]), v4(17, udp(b"SIP", (5060, 5060)), dst=bytes([10, 0, 0, 9])),
        v6(60, extension(60, extension(60, extension(60, extension(60, extension(60, extension(17, in_udp))))))),
    ]
    made = [framed(p) for p in packets]
    made += [framed(p, b"\x81\x00\x00\x64") for p in packets[:4]]
    made += [framed(p, b"\x88\xa8\x00\x01\x81\x00\x00\x64") for p in packets[:4]]
    return made + [mac + b"\x08\x06" + bytes(28)]


def seeds():
    captured = []
    for path in sorted((tests / "vectors").rglob("*.pcap")):
        captured += [p for p in capture(path) if len(p) < 300][:12]
    sequences, everything = [], bytes([0, 0, 0, 1, 20, 3, 1, 3, 1])
    for kind in range(256):
        # Send twice, the second one first, the first, again; change one, forge one.
        steps = bytes([0, 0, kind % 3, 7, 9, 60, 0, 0, 0, 0, 30, 0, 3, 1, 3, 0, 3, 0])
        steps += bytes([10, 3, kind % 4, 2, 0, 0, 0, 10, 2, 3, 2, 5, 0, 1, 4, 200, 9, 2, 5, 0, 0, 0, 0, 40, 1, 0, 0, 11, 3, 0, 1, 2])
        sequences.append(bytes([kind, kind % 8]) + steps + everything)
    fragments = [
        bytes([2, 1, 2, 2, k]) + bytes([66 + k % 2, k, k % 4, 3, 232, 0, 10, k % 8, 1, 2]) * 3 + bytes([30 + k, 1, 1, 0, 4, 3, 0]) * 4
        for k in range(32)
    ]
    batches = []
    for kind in range(64):
        # Packets of a phone; one of each again, changed, cut; fragments; forged ones;
        # the stack's; the SAs gone and here again; a router's word; time passes.
        nth, plain = kind & 1, [0, 0, 60, 0, 0]
        send = [nth, *plain]
        steps = [0, 2, *(send + [0]) * 3, 3, 5, 0, 0, 1, 1, 7, 2, 0x10, 40, 0, 0x40, 0, 1, 14, 2, 0]
        steps += [5, *send, kind & 1, 30, kind >> 1 & 31, *[0] * 8, 6, *send, 0, 0, 1, 20, 0, *[0] * 8]
        steps += [8, 2, *(send + [0, 0]) * 3, 10, *send, 40, 0, *[0] * 8, 12, nth, 0, 3, 1, 0, 0, 1, 0, 12, nth, 1]
        steps += [13, 2, kind % 5, 14, 1, 5, 120, 0, 0, 8, 1, *([nth, 0, 0, 250, 12, 0, 0, 0x40]) * 2, 15, 200]
        batches.append(bytes([kind * 5 % 32, kind * 11 % 32, *steps]))
    return {
        "batch": batches,
        "wire": [b"\0\x20" + f for f in frames()] + [b"\0\x30" + framed(p) for p in captured],
        "esp_open": sequences + [bytes([k, 1, 7, len(p) % 120]) + p[:120] for k, p in enumerate(captured[:64])],
        "reassembly": fragments,
    }
