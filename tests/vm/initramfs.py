#!/usr/bin/env python3
"""Makes what a VM boots from of an unpacked Debian kernel package.

usage: initramfs.py LINUX BUSYBOX INIT OUT

LINUX is the folder that the package was unpacked in. Writes OUT/vmlinux, the
kernel as it is inside its compressed image (emulated, it would need seconds to
decompress itself), and OUT/initrd: busybox, INIT and the modules below with
those that they depend on, in the file modules in the order of loading.
"""

import lzma
import os
import pathlib
import struct
import subprocess
import sys

MODULES = """
    virtio_pci 9p 9pnet_virtio overlay
    veth dummy 8021q bridge tun
    sch_ingress cls_bpf xsk_diag
""".split()

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


def depends(module):
    """The names in the field `depends` of a module's section .modinfo."""
    (sections,) = struct.unpack_from("<Q", module, 0x28)
    size, count, names = struct.unpack_from("<3H", module, 0x3A)
    headers = [struct.unpack_from("<IIQQQQ", module, sections + i * size) for i in range(count)]
    strings = headers[names][4]
    for name, _, _, _, offset, length in headers:
        if module.startswith(b".modinfo\0", strings + name):
            for field in module[offset : offset + length].split(b"\0"):
                key, _, value = field.decode("latin-1").partition("=")
                if key == "depends" and value:
                    return value.replace("-", "_").split(",")
    return []


def load_order(linux):
    """The modules wanted, name and bytes, each after those it depends on.
    What no file is there for is part of the kernel."""
    files = {name_of(p): p for pattern in ("*.ko", "*.ko.xz") for p in linux.rglob(pattern)}
    order = {}

    def add(name):
        if name in order or name not in files:
            return
        module = read_module(files[name])
        for other in depends(module):
            add(other)
        order[name] = module

    for name in MODULES:
        add(name.replace("-", "_"))
    return order


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
    modules = load_order(linux)
    folder, program, plain = 0o40755, 0o100755, 0o100644
    entries = [(d, folder, b"") for d in ["bin", "dev", "proc", "sys", "lib", "lower", "upper", "new"]]
    entries += [("bin/busybox", program, busybox.read_bytes()), ("init", program, init.read_bytes())]
    entries += [(f"lib/{name}.ko", plain, module) for name, module in modules.items()]
    entries += [("modules", plain, "".join(f"{name}\n" for name in modules).encode())]
    (out / "initrd").write_bytes(archive(entries))
    (image,) = (linux / "boot").glob("vmlinuz-*")
    (out / "vmlinux").write_bytes(vmlinux(image.read_bytes()))


if __name__ == "__main__":
    main()
