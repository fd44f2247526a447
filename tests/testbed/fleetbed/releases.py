"""Releases as they should not be: archives with odd entries, programs for other machines."""

from __future__ import annotations

import io
import platform
import struct
import tarfile

NEW = "2026.3.7"
FOREIGN = {"x86_64": (183, "aarch64"), "aarch64": (62, "x86_64")}[platform.machine()]
HERE = {"x86_64": 62, "aarch64": 183}[platform.machine()]


def script(version: str = NEW) -> bytes:
    return f"#!/bin/sh\necho Fluxbase {version}\n".encode()


def archive(*entries: tarfile.TarInfo) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as tar:
        for entry in entries:
            entry.size = 0 if entry.linkname else len(script())
            tar.addfile(entry, None if entry.linkname else io.BytesIO(script()))
    return packed.getvalue()


def link(name: str, target: str) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    made.type, made.linkname = tarfile.SYMTYPE, target
    return made


def elf(machine: int, loader: str = "") -> bytes:
    """The head of a program, with the one that is to load it. elf(5)."""
    where, needed = 64 + 56, loader.encode() + b"\0"
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1 if loader else 0, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 3, 4, where, 0, 0, len(needed), len(needed), 1) + needed + bytes(100)
