"""SAD.toml read apart from the project: Python's TOML, its own key expansion.

Only what the oracles need. It does not judge a file the way gm-api does: a
test of gm-api's errors belongs there.
"""

import hashlib
import hmac
import ipaddress
import tomllib
from dataclasses import dataclass

# Annex H's (alg, ealg) -> the name that the oracles print.
SUITES = {
    ("hmac-sha-1-96", "null"): "sha1-null",
    ("hmac-sha-1-96", "aes-cbc"): "sha1-cbc",
    ("aes-gmac", "null"): "gmac",
    ("null", "aes-gcm"): "gcm",
}
# Those of older releases, which the specification has dropped.
LEGACY = {
    ("hmac-md5-96", "null"): "md5-null",
    ("hmac-md5-96", "aes-cbc"): "md5-cbc",
    ("hmac-md5-96", "des-ede3-cbc"): "md5-3des",
    ("hmac-sha-1-96", "des-ede3-cbc"): "sha1-3des",
}
NAMES = {name: pair for pair, name in SUITES.items()}
LEGACY_NAMES = {name: pair for pair, name in LEGACY.items()}
EVERY_NAME = NAMES | LEGACY_NAMES


def kdf(key, fc, p0):
    """TS 33.220 B.2 with one parameter: HMAC-SHA-256 over FC || P0 || L0."""
    s = bytes([fc]) + p0 + len(p0).to_bytes(2, "big")
    return hmac.new(key, s, hashlib.sha256).digest()


def annex_i(suite, ik, ck):
    """TS 33.203 Annex I: (integrity key, encryption key, salt), None where the suite has none.
    The legacy ones after the releases that had them, the parity of DES left alone."""
    if suite == "sha1-null":
        return ik + bytes(4), None, None
    if suite == "sha1-cbc":
        return ik + bytes(4), ck, None
    if suite == "gmac":
        return ik, None, kdf(ck + ik, 0x58, b"AES_GMAC_SALT")[-4:]
    if suite == "gcm":
        return None, ck, kdf(ck + ik, 0x59, b"AES_GCM_SALT")[-4:]
    if suite == "md5-null":
        return ik, None, None
    if suite == "md5-cbc":
        return ik, ck, None
    if suite == "md5-3des":
        return ik, ck + ck[:8], None
    if suite == "sha1-3des":
        return ik + bytes(4), ck + ck[:8], None
    raise ValueError(f"no such suite: {suite}")


@dataclass(frozen=True)
class Sa:
    """One [[sa]] table, its keys expanded."""

    spi: int
    mode: str
    src: ipaddress.IPv4Address | ipaddress.IPv6Address
    dst: ipaddress.IPv4Address | ipaddress.IPv6Address
    src_port: int | None
    dst_port: int | None
    suite: str
    integrity: bytes | None
    encryption: bytes | None
    salt: bytes | None
    outer_src: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    outer_dst: ipaddress.IPv4Address | ipaddress.IPv6Address | None
    encap_sport: int | None
    encap_dport: int | None
    any_proto: bool
    esn: bool
    seq: int
    replay_window: int

    @property
    def tunnel(self):
        return self.mode == "udp-enc-tun"

    @property
    def destination(self):
        """Where its ESP goes: with the SPI what names the SA."""
        return self.outer_dst if self.tunnel else self.dst

    @property
    def label(self):
        return f"{self.suite} {self.mode} v{self.dst.version} spi {self.spi}"


def sa_from(table):
    """One parsed [[sa]] table as an Sa."""
    suite = (SUITES | LEGACY)[table["alg"], table["ealg"]]
    if "ik" in table:
        keys = annex_i(suite, bytes.fromhex(table["ik"]), bytes.fromhex(table["ck"]))
    else:
        keys = tuple(
            bytes.fromhex(table[k]) if k in table else None
            for k in ("integrity_key", "encryption_key", "salt")
        )
    address = lambda k: ipaddress.ip_address(table[k]) if k in table else None
    return Sa(
        table["spi"], table["mode"], address("src"), address("dst"),
        table.get("src_port"), table.get("dst_port"), suite, *keys,
        address("outer_src"), address("outer_dst"),
        table.get("encap_sport"), table.get("encap_dport"),
        table.get("proto") == "any", table.get("esn", False), table.get("seq", 1),
        table.get("replay_window", 64),
    )  # fmt: skip


def load(path):
    """Every SA of a SAD.toml, in file order."""
    with open(path, "rb") as f:
        return [sa_from(t) for t in tomllib.load(f).get("sa", [])]


class Index:
    """Finds the SA of a packet. Behind a NAT the outer destination that a
    capture shows need not be the one in the file, so a tunnel's SPI alone will
    do, as long as it is one SA's only."""

    def __init__(self, sas):
        self.exact = {(sa.destination, sa.spi): sa for sa in sas}
        self.by_spi = {}
        for sa in sas:
            if sa.tunnel:
                self.by_spi.setdefault(sa.spi, []).append(sa)

    def find(self, dst, spi):
        found = self.exact.get((dst, spi))
        if found is None and len(self.by_spi.get(spi, [])) == 1:
            found = self.by_spi[spi][0]
        return found
