#!/usr/bin/env python3
"""Writes the seeds of the fuzz corpora into DIR/TARGET: the shapes of phones and
cores, with values that are made up, and packets (packet_seeds.py).
tests/fuzz/run starts from these, from the committed corpus and from
tests/torture."""

import hashlib
import pathlib
import sys

import packet_seeds

out = pathlib.Path(sys.argv[1])
ends = "spi-c=19500101;spi-s=69500202;port-c=31100;port-s=31800"


def offer(pairs, sep=",", gap=""):
    return sep.join(
        f"ipsec-3gpp;{gap}alg={a};{gap}ealg={e};{gap}" + ends.replace(";", ";" + gap) for a, e in pairs
    )


sha, md5 = "hmac-sha-1-96", "hmac-md5-96"
every = [(a, e) for a in (md5, sha) for e in ("des-ede3-cbc", "aes-cbc", "null")]
today = [("null", "aes-gcm"), (sha, "aes-cbc"), ("aes-gmac", "null"), (sha, "null")]
lists = [
    offer([(sha, "des-ede3-cbc"), (sha, "aes-cbc"), (sha, "null")]),
    offer(every),
    offer(today, ", "),
    offer(every[:1], gap=" "),
    "ipsec-3gpp;prot=esp;mod=trans;spi-c=35001;spi-s=35002;port-c=6101;port-s=6100;alg=hmac-sha-1-96;ealg=aes-cbc",
    "ipsec-3gpp;alg=hmac-md5-96;ealg=aes-cbc;mod=trans;port-c=61650;port-s=55180;prot=esp;spi-c=194000001;spi-s=137000002",
    "tls;q=0.2, ipsec-ike;q=0.1, ipsec-3gpp;q=1.000;alg=hmac-sha-1-96;spi-c=0000004096;spi-s=0000004097;port-c=5100;port-s=6100",
    "ipsec-3gpp;q=0.1;prot=esp;mod=trans;spi-c=4096;spi-s=4097;port-c=5100;port-s=6100;alg=hmac-sha-1-96;ealg=null",
    "ipsec-3gpp; alg=hmac-sha-1-96, ipsec-3gpp; alg=hmac-sha-1-96; ealg=aes-cbc; " + ends,
    "ipsec-3gpp;alg=hmac-sha-1-96;mod=UDP-enc-tun;ealg=aes-cbc;" + ends,
    "ipsec-3gpp;alg=hmac-sha-1-96;prot=ah;spi-c=4294967295;spi-s=255;port-c=5060;port-s=65528",
    "ipsec-3gpp ; q=0.1",
    'IPSEC-3GPP;Alg="hmac-sha-1-96";EALG=AES-CBC;x-new="a,b;c";' + ends.upper(),
    "",
]
via = "SIP/2.0/UDP 192.0.2.7:31800;branch=z9hG4bK7;rport"
first = (
    'Digest username="001010000000001@ims.example",realm="ims.example",uri="sip:ims.example",'
    'nonce="",response="",integrity-protected="yes"'
)
nonce = "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="
key = "000102030405060708090a0b0c0d0e0f"


def message(start, headers, body=b"", eol="\r\n", length=True):
    lines = [start, *headers]
    if length:
        lines.append(f"Content-Length: {len(body)}")
    return (eol.join(lines) + eol + eol).encode() + body


def common(method, to="<sip:user1@ims.example>"):
    return [
        f"Via: {via}",
        "Max-Forwards: 70",
        "From: <sip:user1@ims.example>;tag=81",
        f"To: {to}",
        "Call-ID: 7@[2001:db8::7]",
        f"CSeq: 1 {method}",
    ]


def register(list_, digest=first, more=()):
    return message(
        "REGISTER sip:ims.example SIP/2.0",
        common("REGISTER")
        + [
            'Contact: <sip:192.0.2.7:31800;transport=UDP>;expires=600000;+g.3gpp.smsip;+sip.instance="<urn:gsma:imei:35-0>"',
            f"Authorization: {digest}",
            f"Security-Client: {list_}",
            "Require: sec-agree",
            "Proxy-Require: sec-agree",
            "Supported: path,gruu",
            "P-Access-Network-Info: 3GPP-E-UTRAN-FDD;utran-cell-id-3gpp=001010001",
            *more,
        ],
    )


def challenge(value):
    return message("SIP/2.0 401 Unauthorized", common("REGISTER", "<sip:user1@ims.example>;tag=9") + [f"WWW-Authenticate: {value}"])


answer = f'Digest username="u@ims.example",realm="ims.example",nonce="{nonce}",uri="sip:ims.example",response="{key}",qop=auth,nc=00000001,cnonce="1",algorithm=AKAv1-MD5'
messages = [register(l) for l in lists[:8]]
messages += [
    register(lists[0], answer, ["Security-Verify: " + lists[7]]),
    register(lists[2], answer.replace("qop=auth", "qop=auth\r\n ") + ',auts="AAECAwQFBgcICQoLDA0="'),
    register(lists[2].replace(", ", ",\r\n ")).replace(b"Via:", b"v :").replace(b"Contact:", b"m:"),
    challenge(f'Digest realm="ims.example",nonce="{nonce}",algorithm=AKAv1-MD5,ck="{key}",ik="{key}",qop="auth,auth-int"'),
    challenge(f'Digest ik="{key}", ck="{key.upper()}", opaque="o\\"", realm="r", nonce="{nonce}", algorithm=akav1-md5'),
    message("SIP/2.0 200 OK", common("REGISTER") + [
        "Contact: <sip:192.0.2.7:31800>;expires=3600, <sip:other@192.0.2.8>;expires=60",
        "P-Associated-URI: <sip:user1@ims.example>, <tel:+15550100>",
        "Service-Route: <sip:orig@scscf.ims.example;lr>",
        'Authentication-Info: nextnonce="x", ck="1"',
    ]),
    message("INVITE tel:+15550111 SIP/2.0", common("INVITE") + [
        "Route: <sip:192.0.2.1:5063;lr>, <sip:orig@scscf.ims.example;lr>",
        "Record-Route: <sip:192.0.2.1:5063;lr>",
        "P-Preferred-Identity: \"A, B\" <sip:user1@ims.example>",
        "Security-Verify: " + lists[7],
        "Content-Type: application/sdp",
    ], b"v=0\r\no=- 1 1 IN IP4 192.0.2.7\r\ns=-\r\n"),
    message("MESSAGE sip:user1@192.0.2.7:31800 SIP/2.0", common("MESSAGE"), b"\0\xff text"),
    message("SIP/2.0 200 ", ["v: " + via + ", SIP/2.0/TCP a.example", "i:1", "CSeq: 7  BYE"], eol="\n"),
]


def write(target, seeds):
    folder = out / target
    folder.mkdir(parents=True, exist_ok=True)
    for n, seed in enumerate(seeds):
        (folder / f"seed-{n:02}").write_bytes(seed)


torture = sorted((pathlib.Path(__file__).parent.parent / "torture").glob("*.sip"))
messages += [f.read_bytes() for f in torture if f.stat().st_size < 8192]
write("message", messages)
streams = [messages[0] + messages[11] + b"\r\n\r\n" + messages[3], b"\r\n" * 40 + messages[14], *messages]
write("framing", [bytes([17, 3, 200, 1, 0, 90]) + b"\n" + s for s in streams])
pairs = [(a, b) for a in lists for b in (a.replace(";", " ; "), lists[2])]
write("sec_agree", [f"{n % 6}{'0123'[n % 4:]}\n{a}\n{b}".encode() for n, (a, b) in enumerate(pairs)])

# Sequences for an edge: what the letters mean is in props/edge.rs.
end = b"\x1e"
good = lists[2].encode()
flow = [b"r" + good, b"k", b"s", b"o"]
again = flow + [b"t\xff\xff\x10", b"s", b"o", b"s", b"k", b"s", b"o", b"t\xff\xff\xff"]
in_dialog = messages[14].replace(b"192.0.2.7:31800", b"198.51.100.7:31800")
runs = [
    flow, again, [b"r" + l.encode() for l in lists], flow[:2] + [b"s", b"f403 No", b"t\xff\x20"],
    flow + [b"p" + in_dialog, b"o", b"P" + in_dialog, b"f486 Busy"],
    flow + [b"d" + messages[15].replace(b"user1@192.0.2.7", b"u@198.51.100.7"), b"P" + messages[16]],
    [b"i", *flow, b"r" + good, b"k", b"t\xff\xff\xff"], flow[:2] + [b"r" + good, b"k", b"s", b"o", b"S", b"o"],
    [b"u" + m for m in messages[:12]], flow + [b"sContact: *;expires=0\r\nExpires: 0", b"o", b"t\xff\xff"],
    flow + [b"oService-Route: <sip:a;lr>\r\nP-Associated-URI: <sip:u@r>, <tel:+1>"],
    [b"r" + good, b"k" + b"Security-Server: x\r\nProxy-Authenticate: Digest ik=\"" + key.encode() + b"\""],
]
write("edge", [end.join(r) for r in runs])
# Batches of 1 to 80 packets, about ten bytes each.
write("engines", [hashlib.shake_128(bytes([n])).digest(1 + 10 * (n % 8) ** 2 + n) for n in range(96)])
for target, inputs in packet_seeds.seeds().items():
    write(target, inputs)
