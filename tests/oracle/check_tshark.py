#!/usr/bin/env python3
"""Opens a capture's ESP with tshark and the keys of a SAD.toml.

tshark 4.0 knows three of the four suites, the four of older releases, and no
ESN: AES-GMAC is not asked of it, nor AES-GCM with ESN, and with ESN no ICV. A
case is an SA that the capture shows: every packet's ICV verifies, and the
inside has the addresses and ports of the SA's selectors. The keys come from
--sad through a table written here, or from the product's own table (--esp-sa),
which is then a case as well.
"""

import argparse
import os
import shutil
import subprocess
import tempfile
from collections import defaultdict
from pathlib import Path

from sad import NAMES, Index, ipaddress, load
from tally import Tally

ENCRYPTION = {
    "sha1-null": "NULL",
    "sha1-cbc": "AES-CBC [RFC3602]",
    "gcm": "AES-GCM with 16 octet ICV [RFC4106]",
    "md5-null": "NULL",
    "md5-cbc": "AES-CBC [RFC3602]",
    "md5-3des": "TripleDES-CBC [RFC2451]",
    "sha1-3des": "TripleDES-CBC [RFC2451]",
}
MACS = {16: "HMAC-MD5-96 [RFC2403]", 20: "HMAC-SHA-1-96 [RFC2404]"}  # by the key's length
# Nothing above UDP and TCP: a heuristic dissector that trips over an inner
# payload takes the ICV's verdict away with it.
PROTOCOLS = {
    "frame", "eth", "ethertype", "vlan", "raw", "ip", "udp", "udpencap", "esp", "tcp",
    "ipv6", "ipv6.hopopts", "ipv6.routing", "ipv6.fraghdr", "ipv6.dstopts",
}  # fmt: skip
FIELDS = [
    "frame.number", "ip.src", "ip.dst", "ipv6.src", "ipv6.dst", "esp.spi", "esp.sequence",
    "esp.icv_good", "esp.icv_bad", "udp.srcport", "udp.dstport", "tcp.srcport", "tcp.dstport",
]  # fmt: skip


def table_line(sa):
    """A line of Wireshark's ESP SA table. Any address: behind a NAT the file's
    outer ones need not be those that the capture shows."""
    key = "0x" + ((sa.encryption or b"") + (sa.salt or b"")).hex() if sa.encryption else ""
    mac = (MACS[len(sa.integrity)], "0x" + sa.integrity.hex()) if sa.integrity else ("NULL", "")
    version = "IPv6" if sa.destination.version == 6 else "IPv4"
    values = [version, "*", "*", f"0x{sa.spi:08x}", ENCRYPTION[sa.suite], key, *mac]
    return ",".join(f'"{v}"' for v in values)


def tshark(home, *arguments):
    """Runs tshark with a configuration directory of its own, so that no user's
    profile counts."""
    done = subprocess.run(
        ["tshark", *arguments], env=os.environ | {"WIRESHARK_CONFIG_DIR": home},
        stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"tshark ended with {done.returncode}: {done.stderr.strip()[-500:]}")
    return done.stdout.splitlines()


def dissect(capture, table):
    """tshark's fields for every ESP packet."""
    options = ["-n", "-r", str(capture), "-Y", "esp", "-T", "fields", "-E", "occurrence=a", "-E", "aggregator=,"]
    for option in ("enable_encryption_decode", "enable_authentication_check"):
        options += ["-o", f"esp.{option}:TRUE"]
    for field in FIELDS:
        options += ["-e", field]
    with tempfile.TemporaryDirectory() as home:
        known = {line.split("\t")[2] for line in tshark(home, "-G", "protocols")}
        Path(home, "disabled_protos").write_text("".join(f"{p}\n" for p in sorted(known - PROTOCOLS)))
        Path(home, "esp_sa").write_text(table)
        lines = tshark(home, *options)
    for line in lines:
        yield {name: value.split(",") if value else [] for name, value in zip(FIELDS, line.split("\t"))}


def wrong_inside(sa, fields):
    """What tshark shows inside that the SA's selectors do not allow. The
    innermost layer's values come last."""
    if fields["esp.icv_good"] != ["0" if sa.esn else "1"] or fields["esp.icv_bad"] != ["0"]:
        return "ICV not good"
    v = "ipv6" if sa.dst.version == 6 else "ip"
    inside = [fields[f"{v}.src"][-1], fields[f"{v}.dst"][-1]]
    if [ipaddress.ip_address(a) for a in inside] != [sa.src, sa.dst]:
        return f"addresses {inside}"
    # Under UDP encapsulation the first UDP ports are the outer ones.
    udp = list(zip(fields["udp.srcport"], fields["udp.dstport"]))[1 if sa.tunnel else 0 :]
    ports = udp + list(zip(fields["tcp.srcport"], fields["tcp.dstport"]))
    if not ports:
        return "neither UDP nor TCP inside"
    for have, want in zip(ports[0], (sa.src_port, sa.dst_port)):
        if want is not None and int(have) != want:
            return f"ports {ports[0]}"
    return None


def arguments():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--sad", required=True, help="SAD.toml with the keys")
    p.add_argument("--esp-sa", help="Wireshark's ESP SA table as the product wrote it, used instead of the keys of --sad")
    p.add_argument("--all-suites", action="store_true", help="each suite that tshark knows must occur")
    p.add_argument("--encapsulation", action="store_true", help="UDP encapsulation must occur")
    p.add_argument("--legacy", action="store_true", help="with --all-suites: each legacy suite must occur as well")
    p.add_argument("--damaged", type=int, default=0, help="so many packets must fail their ICV (default 0)")
    p.add_argument("capture")
    return p.parse_args()


def main():
    args = arguments()
    tally = Tally()
    if not shutil.which("tshark"):
        tally.skip(args.capture, "there is no tshark here")
        tally.finish()
    sas = load(args.sad)
    index = Index(sas)
    if args.esp_sa:
        table = Path(args.esp_sa).read_text()
    else:
        table = "".join(table_line(sa) + "\n" for sa in sas if sa.suite in ENCRYPTION)

    seen, unknown, damaged = defaultdict(int), defaultdict(int), 0
    problems = defaultdict(list)
    for fields in dissect(args.capture, table):
        address = (fields["ip.dst"] or fields["ipv6.dst"])[0]
        sa = index.find(ipaddress.ip_address(address), int(fields["esp.spi"][0], 0))
        if sa is None:
            continue  # check_scapy.py judges packets without an SA
        if sa.suite not in ENCRYPTION or (sa.esn and sa.suite == "gcm"):
            unknown[sa.suite] += 1
            continue
        seen[sa] += 1
        if fields["esp.icv_bad"] == ["1"] and damaged < args.damaged:
            damaged += 1
        elif wrong := wrong_inside(sa, fields):
            problems[sa.label].append(f"frame {fields['frame.number'][0]}: {wrong}")

    for sa, count in sorted(seen.items(), key=lambda item: item[0].label):
        tally.check(f"{sa.label}: {count} packets", problems[sa.label])
    if args.all_suites:
        for suite in sorted(s for s in ENCRYPTION if args.legacy or s in NAMES):
            tally.check(f"suite {suite} occurs", [] if any(sa.suite == suite for sa in seen) else ["no packet"])
    if args.encapsulation:
        tally.check("UDP encapsulation occurs", [] if any(sa.tunnel for sa in seen) else ["no packet"])
    for suite, count in sorted(unknown.items()):
        print(f"  note  {count} packets of {suite} left to Scapy: tshark does not know the suite")
    tally.finish()


if __name__ == "__main__":
    main()
