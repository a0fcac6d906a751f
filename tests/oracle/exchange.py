#!/usr/bin/env python3
"""Scapy and gm-xfrm open what the other sealed, and expand keys alike.

Every suite, the legacy ones too, in transport mode and in the UDP-encapsulated tunnel, over IPv4 and
IPv6, with UDP and TCP inside and lengths around the ciphers' blocks. Keys,
SPIs, ports and payloads are random; the seed is printed and can be given.
With --keep DIR what gm-xfrm sealed stays there with its keys, for tshark, which
gets them from gm-xfrm's own table as well.
"""

import argparse
import json
import random
import subprocess
import sys
import tempfile
from pathlib import Path

import packets
from packets import IP, UDP, IPv6
from sad import EVERY_NAME, annex_i, load
from scapy.layers.inet import TCP
from scapy_esp import ESP, INTEGRITY_ERROR, Opener, association
from tally import Tally

# Initialisation vectors that are drawn.
IV = {"sha1-cbc": 16, "md5-cbc": 16, "md5-3des": 8, "sha1-3des": 8}
# Payload lengths: none, around a 4-octet boundary, a DES and an AES block, SIP's sizes.
LENGTHS = [0, 1, 2, 3, 4, 5, 6, 7, 8, 13, 14, 15, 16, 17, 30, 31, 32, 33, 128, 700, 1300]
PCSCF = {4: "203.0.113.5", 6: "2001:db8:cafe::1"}
UE = {4: "198.51.100.{}", 6: "2001:db8:5a12::{:x}"}


class GmXfrm:
    """The program under test."""

    def __init__(self, path):
        self.path = path

    def run(self, *arguments):
        done = subprocess.run([self.path, *map(str, arguments)], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=120)
        if done.returncode:
            raise RuntimeError(f"gm-xfrm {' '.join(map(str, arguments[:2]))} ended with {done.returncode}: {done.stderr.strip()}")
        return done.stdout


def random_sad(rng):
    """SAD.toml with an SA for each suite, mode and family, in both directions."""
    lines = []
    for n, (suite, mode, version, inbound) in enumerate(
        (s, m, v, i) for s in EVERY_NAME for m in ("trans", "udp-enc-tun") for v in (4, 6) for i in (True, False)
    ):
        ue, pcscf = UE[version].format(n + 10), PCSCF[version]
        src, dst = (ue, pcscf) if inbound else (pcscf, ue)
        alg, ealg = EVERY_NAME[suite]
        port = lambda: rng.randrange(10000, 65536)
        table = {
            "spi": rng.randrange(256, 2**32 - 64) // 64 * 64 + n,  # distinct by the last bits
            "mode": mode, "src": src, "dst": dst, "src_port": port(), "dst_port": port(),
            "alg": alg, "ealg": ealg, "ik": rng.randbytes(16).hex(), "ck": rng.randbytes(16).hex(),
        }  # fmt: skip
        if mode == "udp-enc-tun":
            nat = port()
            table |= {"outer_src": src, "outer_dst": dst}
            table |= {"encap_sport": nat, "encap_dport": 4500} if inbound else {"encap_sport": 4500, "encap_dport": nat}
        lines.append("[[sa]]")
        lines += [f"{k} = {json.dumps(v)}" for k, v in table.items()]
        lines.append("")
    return "\n".join(lines)


def random_plain(rng, sa):
    """Packets that this SA's selectors match, of every length, UDP and TCP in turn."""
    for n, length in enumerate(LENGTHS):
        ip = (IPv6 if sa.dst.version == 6 else IP)(src=str(sa.src), dst=str(sa.dst))
        if sa.dst.version == 4:
            ip.id = rng.randrange(65536)
            ip.tos = rng.choice((0, 0x68, 0xB8))
        l4 = (UDP if n % 2 else TCP)(sport=sa.src_port, dport=sa.dst_port)
        yield packets.parse(bytes(ip / l4 / rng.randbytes(length)))


def udp_checksum(packet):
    """What Scapy computes for the outer UDP header."""
    copy = packet.copy()
    del copy[UDP].chksum
    return packets.parse(bytes(copy))[UDP].chksum


def sealed_wrongly(sa, packet, seen):
    """What a packet sealed by gm-xfrm has that no opener would complain of:
    initialisation vectors that must never repeat, and the encapsulation."""
    esp = packet[ESP]
    if sa.suite in ("gcm", "gmac"):
        # One key and salt for all SAs of a set: SPI and number keep the nonces apart.
        if esp.data[:8] != esp.spi.to_bytes(4, "big") + esp.seq.to_bytes(4, "big"):
            return "its IV is not SPI and sequence number"
    elif sa.suite in IV:
        iv = esp.data[: IV[sa.suite]]
        if iv in seen or not any(iv):
            return "its IV was used before, or is zero"
        seen.add(iv)
    if sa.tunnel:
        udp = packet[UDP]
        if (udp.sport, udp.dport) != (sa.encap_sport, sa.encap_dport):
            return f"outer UDP {udp.sport} -> {udp.dport}"
        # None over IPv4 (RFC 3948 2.1); IPv6 has no other, so there it must be right.
        right = 0 if packet.version == 4 else udp_checksum(packet)
        if udp.chksum != right:
            return f"outer UDP checksum {udp.chksum:#x} instead of {right:#x}"
    return None


def gm_to_scapy(tally, gm, sad, sas, plain, work):
    """gm-xfrm seals, Scapy opens."""
    gm.run("pcap", "seal", "--sad", sad, "--out", work / "gm.pcap", work / "plain.pcap")
    sealed = list(packets.read(work / "gm.pcap"))
    if len(sealed) != len(plain):
        tally.bad("sealed by gm-xfrm", f"{len(sealed)} packets of {len(plain)}")
        return
    openers = {sa: Opener(sa) for sa in sas}
    seen, problems, next_seq = set(), {sa: [] for sa in sas}, dict.fromkeys(sas, 1)
    for (sa, before), packet in zip(plain, sealed):
        dst, spi, seq, in_udp = packets.esp_of(packet) or (None,) * 4
        name = f"{len(before)} bytes"
        if (dst, spi, in_udp) != (sa.destination, sa.spi, sa.tunnel):
            problems[sa].append(f"{name}: went out as SPI {spi} to {dst}")
            continue
        if seq != next_seq[sa]:
            problems[sa].append(f"{name}: number {seq} instead of {next_seq[sa]}")
        next_seq[sa] += 1
        if wrong := sealed_wrongly(sa, packet, seen):
            problems[sa].append(f"{name}: {wrong}")
        try:
            if openers[sa].open(packet) != bytes(before):
                problems[sa].append(f"{name}: Scapy opens it to something else")
        except INTEGRITY_ERROR:
            problems[sa].append(f"{name}: Scapy finds a bad ICV")
    for sa in sas:
        tally.check(f"gm-xfrm seals, Scapy opens: {sa.label}", problems[sa])


def scapy_to_gm(tally, gm, sad, sas, plain, work):
    """Scapy seals, gm-xfrm opens."""
    by_sa = {sa: association(sa) for sa in sas}
    packets.write(work / "scapy.pcap", [by_sa[sa].encrypt(packets.parse(bytes(p))) for sa, p in plain])
    gm.run("pcap", "open", "--sad", sad, "--out", work / "opened.pcap", "--report", work / "report.jsonl", work / "scapy.pcap")
    report = [json.loads(line) for line in (work / "report.jsonl").read_text().splitlines()]
    opened = iter(packets.read(work / "opened.pcap"))
    if len(report) != len(plain):
        tally.bad("report of gm-xfrm", f"{len(report)} lines for {len(plain)} packets")
        return
    problems = {sa: [] for sa in sas}
    for n, ((sa, before), line) in enumerate(zip(plain, report)):
        if line["verdict"] != "ok" or line["index"] != n or line["spi"] != sa.spi:
            problems[sa].append(f"packet {n}: reported as {line}")
        elif bytes(next(opened, b"")) != bytes(before):
            problems[sa].append(f"packet {n}: gm-xfrm opens it to something else")
    for sa in sas:
        tally.check(f"Scapy seals, gm-xfrm opens: {sa.label}", problems[sa])
    tally.check("nothing else was opened", [] if next(opened, None) is None else ["more packets than reported"])


def keys_alike(tally, gm, rng):
    """Annex I by gm-xfrm and by Python."""
    for suite, (alg, ealg) in EVERY_NAME.items():
        problems = []
        for _ in range(8):
            ik, ck = rng.randbytes(16), rng.randbytes(16)
            out = json.loads(gm.run("keys", "--alg", alg, "--ealg", ealg, "--ik", ik.hex(), "--ck", ck.hex(), "--json"))
            want = [k.hex() if k is not None else None for k in annex_i(suite, ik, ck)]
            if [out["integrity_key"], out["encryption_key"], out["salt"]] != want:
                problems.append(f"ik {ik.hex()} ck {ck.hex()}")
        tally.check(f"Annex I: {suite}", problems)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--gm-xfrm", required=True, help="the program")
    p.add_argument("--seed", type=int, default=random.SystemRandom().randrange(2**32))
    p.add_argument("--keep", help="existing directory for sad.toml, gm.pcap and esp_sa")
    args = p.parse_args()
    print(f"  seed {args.seed}")
    rng = random.Random(args.seed)
    tally = Tally()
    gm = GmXfrm(args.gm_xfrm)
    with tempfile.TemporaryDirectory() as temporary:
        work = Path(args.keep or temporary)
        sad = work / "sad.toml"
        sad.write_text(random_sad(rng))
        sas = load(sad)
        plain = [(sa, packet) for sa in sas for packet in random_plain(rng, sa)]
        rng.shuffle(plain)
        gm.run("export", "--sad", sad, "--format", "wireshark", "--show-keys", "--out", work / "esp_sa")
        packets.write(work / "plain.pcap", [packet for _, packet in plain])
        for part in (gm_to_scapy, scapy_to_gm):
            try:
                part(tally, gm, sad, sas, plain, work)
            except (RuntimeError, OSError, subprocess.TimeoutExpired) as error:
                tally.bad(part.__doc__, str(error))
        try:
            keys_alike(tally, gm, rng)
        except (RuntimeError, OSError, KeyError, ValueError) as error:
            tally.bad("gm-xfrm keys", str(error))
    tally.finish()


if __name__ == "__main__":
    sys.exit(main())
