#!/usr/bin/env python3
"""Opens a capture's ESP with Scapy and the keys of a SAD.toml.

Every SA that the capture shows is a case: all its packets open, and carry what
its selectors say. With --plain the opened packets are also compared, in order
and byte for byte; with --expect a report in the form of `gm-xfrm pcap open`
says which packets must open and which must not.
"""

import argparse
import ipaddress
import json
from collections import defaultdict

import packets
from sad import SUITES, Index, load
from scapy_esp import INTEGRITY_ERROR, Opener
from tally import Tally

TCP, UDP = 6, 17


def arguments():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sad", required=True, help="SAD.toml with the keys")
    p.add_argument("--plain", help="capture that the opened packets must equal")
    p.add_argument("--expect", help="report (JSON lines) with the verdict of every packet")
    p.add_argument("--all-suites", action="store_true", help="each suite must occur")
    p.add_argument("--encapsulation", action="store_true", help="UDP encapsulation must occur")
    p.add_argument("--damaged", type=int, default=0, help="so many packets must fail their ICV (default 0)")
    p.add_argument("capture")
    return p.parse_args()


def wrong_inside(sa, plain):
    """What an opened packet has that its SA's selectors do not allow."""
    inner = packets.parse(plain)
    if (inner.src, inner.dst) != (str(sa.src), str(sa.dst)):
        return f"addresses {inner.src} -> {inner.dst}"
    layer = next((inner[name] for name in ("UDP", "TCP") if name in inner), None)
    if layer is None:
        return None if sa.any_proto else "neither UDP nor TCP"
    for have, want in ((layer.sport, sa.src_port), (layer.dport, sa.dst_port)):
        if want is not None and have != want:
            return f"ports {layer.sport} -> {layer.dport}"
    return None


class Capture:
    """One pass over a capture: what opened, what did not, by SA."""

    def __init__(self, sas):
        self.index = Index(sas)
        self.openers = {}
        self.opened = []  # (packet number, bytes)
        self.seen = defaultdict(int)  # packets by SA label
        self.problems = defaultdict(list)
        self.damaged = []  # (packet number, label)
        self.unknown = 0
        self.other = 0

    def take(self, number, packet):
        esp = packets.esp_of(packet)
        if esp is None:
            self.other += 1
            return
        dst, spi, seq, in_udp = esp
        sa = self.index.find(dst, spi)
        if sa is None or sa.tunnel != in_udp:
            self.unknown += 1
            return
        self.seen[sa.label] += 1
        try:
            plain = self.openers.setdefault(sa, Opener(sa)).open(packet)
        except INTEGRITY_ERROR:
            self.damaged.append((number, sa.label))
            return
        self.opened.append((number, plain))
        if wrong := wrong_inside(sa, plain):
            self.problems[sa.label].append(f"packet {number} (seq {seq}): {wrong}")


def same(opened, plain_path):
    """Differences between what was opened and a capture of what was sealed."""
    want = [bytes(p) for p in packets.read(plain_path)]
    have = [data for _, data in opened]
    if len(want) != len(have):
        return [f"{len(have)} opened, {len(want)} in {plain_path}"]
    return [f"packet {n} differs" for (n, have), want in zip(opened, want) if have != want]


def main():
    args = arguments()
    tally = Tally()
    capture = Capture(load(args.sad))
    verdicts = {}
    if args.expect:
        with open(args.expect) as f:
            verdicts = {r["index"]: r["verdict"] for r in map(json.loads, f)}
    for number, packet in packets.numbered(args.capture):
        # Scapy keeps no window and knows no selectors: only what the ICV decides is asked of it.
        if not verdicts or verdicts.get(number) in ("ok", "bad-icv"):
            capture.take(number, packet)

    bad_icv = {n for n, v in verdicts.items() if v == "bad-icv"}
    for number, label in capture.damaged:
        if number not in bad_icv and not args.damaged:
            capture.problems[label].append(f"packet {number}: bad ICV")
    for label, count in sorted(capture.seen.items()):
        tally.check(f"{label}: {count} packets", capture.problems[label])

    if args.damaged and not verdicts:
        wrong = len(capture.damaged) != args.damaged
        tally.check(f"{args.damaged} packets with a bad ICV", [f"there were {len(capture.damaged)}"] if wrong else [])
    if bad_icv:
        missed = sorted(bad_icv - {n for n, _ in capture.damaged})
        tally.check(f"{len(bad_icv)} damaged packets refused", [f"packet {n} opened" for n in missed])
    if args.plain:
        tally.check(f"{len(capture.opened)} packets as they were before", same(capture.opened, args.plain))
    if args.all_suites:
        for suite in sorted(SUITES.values()):
            tally.check(f"suite {suite} occurs", [] if any(s.startswith(suite + " ") for s in capture.seen) else ["no packet"])
    if args.encapsulation:
        tally.check("UDP encapsulation occurs", [] if any("udp-enc-tun" in s for s in capture.seen) else ["no packet"])
    tally.check("every ESP packet has its SA", [f"{capture.unknown} have none"] if capture.unknown else [])
    if not capture.opened:
        tally.bad(args.capture, "not one packet opened")
    tally.finish()


if __name__ == "__main__":
    main()
