"""Scapy's ESP, set up from an Sa of ours."""

from packets import IP, RAW_IP, UDP, IPv6, l3_of, parse
from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation

INTEGRITY_ERROR = IPSecIntegrityError
# Scapy's names for the halves of the names that sad.py gives the other suites.
MACS = {"sha1": "HMAC-SHA1-96", "md5": "HMAC-MD5-96"}
CIPHERS = {"null": "NULL", "cbc": "AES-CBC", "3des": "3DES"}


def algorithms(sa):
    """Scapy's names and keys. It wants the salt behind the key, and treats GMAC
    as the cipher that it is in RFC 4543, with the integrity key for a key."""
    if sa.suite == "gmac":
        return {"crypt_algo": "AES-NULL-GMAC", "crypt_key": sa.integrity + sa.salt}
    if sa.suite == "gcm":
        return {"crypt_algo": "AES-GCM", "crypt_key": sa.encryption + sa.salt}
    mac, cipher = sa.suite.split("-")
    more = {} if cipher == "null" else {"crypt_key": sa.encryption}
    return more | {
        "crypt_algo": CIPHERS[cipher],
        "auth_algo": MACS[mac],
        "auth_key": sa.integrity,
    }


def association(sa):
    """A SecurityAssociation that seals and opens what this Sa does."""
    more = {}
    if sa.tunnel:
        header = IPv6 if sa.outer_dst.version == 6 else IP
        more["tunnel_header"] = header(src=str(sa.outer_src), dst=str(sa.outer_dst))
        # Port_Uenc of a file for a live P-CSCF may be left open; 4500 then.
        more["nat_t_header"] = UDP(
            sport=sa.encap_sport or 4500, dport=sa.encap_dport or 4500, chksum=0
        )
    return SecurityAssociation(ESP, spi=sa.spi, **algorithms(sa), **more)


class Opener:
    """Opens the packets of one SA."""

    def __init__(self, sa):
        self.sa = sa
        self.association = association(sa)
        self.top = sa.seq - 1  # the highest number so far, all 64 bits

    def upper_half(self, seq):
        """Of an extended sequence number, after RFC 4303 A2.1. Scapy leaves it to us."""
        high, low = divmod(self.top, 2**32)
        bottom = low - self.sa.replay_window + 1
        if bottom >= 0:
            return high if seq >= bottom else high + 1
        return max(high - 1, 0) if seq >= bottom + 2**32 else high

    def open(self, packet):
        """The protected packet, as bytes. Raises INTEGRITY_ERROR for a bad ICV."""
        seq = packet[ESP].seq
        high = self.upper_half(seq) if self.sa.esn else 0
        plain = bytes(self.association.decrypt(parse(bytes(packet)), esn_en=self.sa.esn, esn=high))
        self.top = max(self.top, (high << 32) + seq)
        return l3_of(plain, RAW_IP) if self.sa.tunnel else plain
