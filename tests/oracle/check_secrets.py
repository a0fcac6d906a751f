#!/usr/bin/env python3
"""Runs `gmespd demo` with the most talkative log there is and looks for keys in
everything that it says: IK, CK, the ESP keys made of them, and the SIMs' K and
OPc; in hex of both cases, with separators, as a list of numbers, in base64 and as
they are. On the wire it looks as well: in clear goes SIP, and no key with it.
"""

import argparse
import base64
import os
import re
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

from tally import Tally

SUBSCRIBERS = 6


def sim_keys():
    """K and OPc of the demo's subscribers, as gmespd's demo makes them."""
    for n in range(SUBSCRIBERS):
        for seed in (0x40 + n, 0x80 + n):
            yield bytes((seed * 31 + i * 7) & 0xFF for i in range(16))


def shapes(key):
    """Every way in which a key could be shown."""
    text = key.hex()
    pairs = [text[i : i + 2] for i in range(0, len(text), 2)]
    plain = [text, text.upper(), ":".join(pairs), " ".join(pairs), ", ".join(str(b) for b in key), ",".join(str(b) for b in key)]
    plain += [", ".join(f"0x{b:02x}" for b in key), ", ".join(f"0x{b:x}" for b in key), "".join(f"\\x{b:02x}" for b in key)]
    found = [p.encode() for p in plain]
    # In base64 a key may begin at any of three places of a longer text.
    for before in range(3):
        whole = base64.b64encode(b"\0" * before + key).rstrip(b"=")
        found.append(whole[(before * 8 + 5) // 6 : -1])
    # A part of a key is too much as well.
    found += [text[i : i + 12].encode() for i in range(0, len(text) - 11, 4)]
    return [key, *found]


def shown(data, keys):
    """Names of the keys that are in the data."""
    folded = data.lower()
    for name, key in keys:
        for shape in shapes(key):
            hexlike = re.fullmatch(rb"[0-9a-fA-F :,x]+", shape)
            if shape in data or (hexlike and shape.lower() in folded):
                yield name
                break


def set_keys(sad):
    """IK and CK of every set of the demo."""
    seen = {}
    for n, sa in enumerate(tomllib.loads(sad.read_text())["sa"]):
        for name in ("ik", "ck"):
            seen.setdefault(bytes.fromhex(sa[name]), f"{name} of SA {n + 1}")
    return [(name, key) for key, name in seen.items()]


def esp_keys(esp_sa):
    """The keys that Wireshark is given for the ESP itself."""
    found = re.findall(r'"0x([0-9a-fA-F]{32,})"', esp_sa.read_text())
    return [(f"ESP key {n + 1}", bytes.fromhex(k)) for n, k in enumerate(dict.fromkeys(found)) if int(k, 16)]


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--gmespd", required=True, help="the program")
    args = p.parse_args()
    tally = Tally()
    with tempfile.TemporaryDirectory(prefix="secrets-") as kept:
        done = subprocess.run(
            [args.gmespd, "demo", "--json", "--pcap", kept], stdin=subprocess.DEVNULL, capture_output=True, timeout=240,
            env={**os.environ, "GMESP_LOG": "trace"},
        )  # fmt: skip
        tally.check("the demo runs", [f"ended with {done.returncode}"] if done.returncode else [])
        traced = len(re.findall(rb"\bTRACE\b|\bDEBUG\b", done.stderr))
        tally.check("its log is at its most talkative", [] if traced else ["no line of level TRACE or DEBUG"])
        keys = set_keys(Path(kept) / "sad.toml") + esp_keys(Path(kept) / "esp_sa")
        sets = len([name for name, _ in keys if name.startswith(("ik", "ck"))])
        tally.check("keys to look for", [] if sets >= 10 else [f"only {sets}"])
        keys += [(f"K or OPc {n}", key) for n, key in enumerate(sim_keys())]
        missed = [s for name, key in keys for s in shapes(key) if not list(shown(b"x " + s + b" y", [(name, key)]))]
        tally.check("each is found where it is planted", [repr(m) for m in missed])
        places = {
            "the log": done.stderr,
            "the report": done.stdout,
            "the capture": (Path(kept) / "capture.pcapng").read_bytes(),
        }
    for place, data in places.items():
        tally.check(f"no key in {place} ({len(data)} bytes)", list(shown(data, keys)))
    tally.finish()


if __name__ == "__main__":
    sys.exit(main())
