#!/usr/bin/env python3
"""Makes what a VM boots from of an unpacked Debian kernel package.

usage: initramfs.py LINUX BUSYBOX INIT OUT

LINUX is the folder that the package was unpacked in. Writes OUT/vmlinux, the
kernel as it is inside its compressed image (emulated, it would need seconds to
decompress itself), and OUT/initrd: busybox, INIT and the modules below with
those that they depend on, as modprobe finds them by name and alias.
"""

import lzma
import os
import pathlib
import struct
import subprocess
import sys

# What INIT loads, for the file tree. Everything else waits until the kernel asks
# for it: a VM that needs none of it is up the sooner.
BOOT = "virtio_pci 9p 9pnet_virtio overlay".split()

MODULES = """
    veth dummy 8021q bridge tun
    sch_ingress cls_bpf inet_diag tcp_diag udp_diag
    xfrm_user esp4 esp6
    authenc authencesn seqiv echainiv gcm ctr cbc ecb ghash_generic
    aes_generic crypto_null hmac sha1_generic md5 des_generic
    drbg sha512_generic crc32c_generic
    nf_tables nft_chain_nat nft_nat nft_masq nft_redir nft_ct nft_xfrm nft_limit nft_log
    nft_reject_inet nft_fib_inet nf_log_syslog nf_conntrack nf_conntrack_netlink
    udp_tunnel ip6_udp_tunnel
""".split()

# What newer kernels have inside of other modules.
OLDER = "nft_objref".split()

# How a kernel image may hold the kernel: the first bytes, and who reads on.
COMPRESSIONS = [
    (b"\xfd7zXZ\0", lambda data: lzma.LZMADecompressor().decompress(data)),
    (b"\x28\xb5\x2f\xfd", lambda data: subprocess.run(["zstd", "-dcq"], input=data, capture_output=True).stdout),
]


def vmlinux(image):
    """The ELF file in a compressed kernel image."""
    for magic, decompress in COMPRESSIONS:
        at = image.find(magic)
        while at >= 0:
            try:
                # What follows the compressed part is not the reader's; it has
                # given the whole of it by then.
                elf = decompress(image[at:])
            except lzma.LZMAError:
                elf = b""
            if elf.startswith(b"\x7fELF"):
                return elf
            at = image.find(magic, at + 1)
    sys.exit("the kernel image is compressed in a way that is not known here")


def name_of(path):
    return path.name.removesuffix(".xz").removesuffix(".ko").replace("-", "_")


def read_module(path):
    data = path.read_bytes()
    return lzma.decompress(data) if path.suffix == ".xz" else data


def modinfo(module):
    """The pairs of key and value in a module's section .modinfo."""
    (sections,) = struct.unpack_from("<Q", module, 0x28)
    size, count, names = struct.unpack_from("<3H", module, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", module, sections + i * size) for i in range(count)]
    strings = headers[names][4]
    for name, _, _, _, offset, length in headers:
        if module.startswith(b".modinfo\0", strings + name):
            for field in module[offset : offset + length].split(b"\0"):
                key, _, value = field.decode("latin-1").partition("=")
                yield key, value


class Modules:
    """The modules wanted and those they depend on, out of a kernel package."""

    def __init__(self, linux):
        self.files = {name_of(p): p for pattern in ("*.ko", "*.ko.xz") for p in linux.rglob(pattern)}
        (builtin,) = linux.rglob("modules.builtin")
        self.builtin = {name_of(pathlib.Path(line)) for line in builtin.read_text().split()}
        self.release = builtin.parent.name
        self.data, self.depends, self.aliases = {}, {}, []
        for name in BOOT + MODULES:
            if name not in self.files and name not in self.builtin:
                sys.exit(f"Linux {self.release} has no module {name}")
            self.add(name)
        for name in OLDER:
            self.add(name)

    def add(self, name):
        """A module with those it depends on; nothing where it is part of the kernel."""
        if name in self.data or name not in self.files:
            return
        self.data[name] = read_module(self.files[name])
        fields = list(modinfo(self.data[name]))
        self.depends[name] = [o for key, v in fields if key == "depends" and v for o in v.replace("-", "_").split(",")]
        self.aliases += [(value, name) for key, value in fields if key == "alias"]
        for other in self.depends[name]:
            self.add(other)

    def load_order(self, name, order):
        """A module behind those that have to be loaded before it."""
        for other in self.depends[name]:
            if other in self.data and other not in order:
                self.load_order(other, order)
        order.append(name)
        return order

    def entries(self):
        """The folder that modprobe looks into."""
        folder, plain = f"lib/modules/{self.release}", 0o100644
        yield from [(path, 0o40755, b"") for path in ("lib/modules", folder)]
        for name, data in self.data.items():
            yield f"{folder}/{name}.ko", plain, data
        # Each line is read from its end to its beginning.
        orders = [[f"{n}.ko" for n in reversed(self.load_order(name, []))] for name in self.data]
        dep = [" ".join([f"{first}:", *before]) for first, *before in orders]
        alias = [f"alias {alias} {name}" for alias, name in self.aliases]
        for file, lines in [("modules.dep", dep), ("modules.alias", alias)]:
            yield f"{folder}/{file}", plain, "".join(f"{line}\n" for line in lines).encode()


def archive(entries):
    """A cpio archive ("newc") of (path, mode, content)."""
    out = bytearray()
    for inode, (path, mode, content) in enumerate([*entries, ("TRAILER!!!", 0, b"")], 1):
        name = path.encode() + b"\0"
        # mode, uid, gid, links, time, size, device numbers, length of the name, checksum
        fields = [inode, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
        out += b"070701" + b"".join(b"%08X" % f for f in fields) + name
        out += bytes(-len(out) % 4) + content
        out += bytes(-len(out) % 4)
    return out


def main():
    linux, busybox, init, out = map(pathlib.Path, sys.argv[1:])
    modules = Modules(linux)
    folder, program, plain = 0o40755, 0o100755, 0o100644
    entries = [(d, folder, b"") for d in ["bin", "dev", "proc", "sys", "lib", "lower", "upper", "new"]]
    entries += [("bin/busybox", program, busybox.read_bytes()), ("init", program, init.read_bytes())]
    entries += modules.entries()
    entries += [("modules", plain, "".join(f"{n}\n" for n in BOOT if n in modules.data).encode())]
    (out / "initrd").write_bytes(archive(entries))
    (image,) = (linux / "boot").glob("vmlinuz-*")
    (out / "vmlinux").write_bytes(vmlinux(image.read_bytes()))


if __name__ == "__main__":
    main()
