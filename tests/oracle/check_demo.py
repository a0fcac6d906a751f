#!/usr/bin/env python3
"""Runs `gmespd demo` the way its users do, and holds it to what it promises.

All steps happen, for every suite and behind a NAT; it is quick; it takes away
what it made, after Ctrl-C too; and a user who may not run it is told so in one
line. What the captures hold is check_scapy.py's and check_tshark.py's matter.
"""

import argparse
import json
import os
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from sad import NAMES
from tally import Tally

LIMIT = 60  # seconds that the demo may take
NOBODY = 65534
ATTACKS = ("replayed-packet", "tampered-packet", "spoofed-cleartext")
PER_PHONE = ("register", "message-to-network", "message-to-phone")


def traces():
    """What a demo could leave behind on the machine."""
    found = {f"link {n}" for n in os.listdir("/sys/class/net")}
    for folder, pattern in (("/run/netns", "*"), ("/sys/fs/bpf", "*"), (tempfile.gettempdir(), "gmesp*")):
        found |= {str(p) for p in Path(folder).glob(pattern)}
    return found


def left_behind(before):
    return [f"left {t}" for t in sorted(traces() - before)]


def expected_steps():
    """(name, suite, mode) of every step that must be in the report."""
    for alg, ealg in NAMES.values():
        yield from ((name, f"{alg}/{ealg}", "trans") for name in PER_PHONE)
    yield from ((f"{name}-tcp", None, "trans") for name in PER_PHONE)
    yield from ((name, None, "udp-enc-tun") for name in (*PER_PHONE, "nat-rebind"))
    yield from ((name, None, None) for name in ATTACKS)


def happened(steps, name, suite, mode):
    return any(
        s["name"] == name and s["ok"] and suite in (None, s["suite"]) and mode in (None, s["mode"]) for s in steps
    )


def whole(tally, program, kept):
    """The demo from beginning to end."""
    before, began = traces(), time.monotonic()
    done = subprocess.run(
        [program, "demo", "--json", "--pcap", kept], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, timeout=150
    )
    took = time.monotonic() - began
    try:
        report = json.loads(done.stdout)
    except ValueError:
        tally.bad("demo", f"ended with {done.returncode}, and its output is no JSON: {done.stdout[-300:]!r}")
        return
    for step in report["steps"]:
        name = " ".join(filter(None, (step["name"], step["suite"], step["mode"])))
        tally.check(f"step {name}", [] if step["ok"] else [str(step["reason"])])
    missing = [" ".join(filter(None, want)) for want in expected_steps() if not happened(report["steps"], *want)]
    tally.check("no step is missing", missing)
    problems = [f"it ended with {done.returncode}"] if done.returncode else []
    problems += [f"error: {report['error']}"] if report.get("error") else []
    tally.check("ok, and exit status 0", problems + ([] if report["ok"] else ["ok is false"]))
    tally.check(f"within {LIMIT} s", [f"took {took:.0f} s"] if took > LIMIT else [])
    print(f"  note  the demo took {took:.1f} s")
    tally.check("nothing left behind", left_behind(before))
    readable = [
        f"{name} can be read by others"
        for name in ("capture.pcapng", "sad.toml", "esp_sa")
        if (Path(kept) / name).stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
    ]
    tally.check("keys and capture are the user's own", readable)


def interrupted(tally, program, after):
    """Ctrl-C in the middle."""
    before = traces()
    with tempfile.TemporaryFile() as quiet:
        demo = subprocess.Popen([program, "demo"], stdin=subprocess.DEVNULL, stdout=quiet, stderr=quiet)
        try:
            status = demo.wait(after)
            tally.bad("Ctrl-C", f"the demo ended with {status} before it was interrupted")
            return
        except subprocess.TimeoutExpired:
            made = traces() - before
            demo.send_signal(signal.SIGINT)
        try:
            status = demo.wait(30)
        except subprocess.TimeoutExpired:
            demo.kill()
            demo.wait()
            tally.bad(f"Ctrl-C after {after} s", "it did not end within 30 s")
            return
    problems = left_behind(before) + ([] if status else ["exit status 0"]) + ([] if made else ["it had made nothing yet"])
    tally.check(f"Ctrl-C after {after} s leaves nothing", problems)


def without_root(tally, program):
    """A user who may not: one line, and a status."""
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o755)
        copy = shutil.copy(program, folder)
        done = subprocess.run(
            [copy, "demo"], user=NOBODY, group=NOBODY, extra_groups=[], cwd="/", env={"PATH": "/usr/bin"},
            stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30,
        )  # fmt: skip
    said = (done.stdout + done.stderr).strip()
    problems = [] if done.returncode else ["exit status 0"]
    if "root" not in said:
        problems.append(f"it does not say that it needs root: {said!r}")
    elif len(said.splitlines()) != 1:
        problems.append(f"{len(said.splitlines())} lines: {said!r}")
    tally.check("without root one line says what is missing", problems)


def main():
    p = argparse.ArgumentParser(description=__doc__)
    p.add_argument("--gmespd", required=True, help="the program")
    p.add_argument("--pcap", required=True, help="directory for the capture and the keys")
    args = p.parse_args()
    tally = Tally()
    for part, more in ((whole, (args.pcap,)), (interrupted, (1.0,)), (interrupted, (2.5,)), (without_root, ())):
        try:
            part(tally, args.gmespd, *more)
        except (OSError, KeyError, subprocess.SubprocessError) as error:
            tally.bad(part.__doc__, repr(error))
    tally.finish()


if __name__ == "__main__":
    sys.exit(main())
