"""Scapy's ESP, set up from an Sa of ours."""

from packets import IP, UDP, IPv6, parse
from scapy.layers.ipsec import ESP, IPSecIntegrityError, SecurityAssociation

INTEGRITY_ERROR = IPSecIntegrityError


def algorithms(sa):
    """Scapy's names and keys. It wants the salt behind the key, and treats GMAC
    as the cipher that it is in RFC 4543, with the integrity key for a key."""
    if sa.suite == "sha1-null":
        return {"crypt_algo": "NULL", "auth_algo": "HMAC-SHA1-96", "auth_key": sa.integrity}
    if sa.suite == "sha1-cbc":
        return {
            "crypt_algo": "AES-CBC",
            "crypt_key": sa.encryption,
            "auth_algo": "HMAC-SHA1-96",
            "auth_key": sa.integrity,
        }
    if sa.suite == "gmac":
        return {"crypt_algo": "AES-NULL-GMAC", "crypt_key": sa.integrity + sa.salt}
    return {"crypt_algo": "AES-GCM", "crypt_key": sa.encryption + sa.salt}


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


def open_packet(association, packet):
    """The protected packet, as bytes. Raises INTEGRITY_ERROR for a bad ICV."""
    return bytes(association.decrypt(parse(bytes(packet))))
