from __future__ import annotations

import os
import platform
import shutil
import struct
import time
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.release.model import ReleaseError
from ansible_collections.selfhost.fleet.plugins.module_utils.release.program import check_version, elf_header, found_in

OTHER = {"x86_64": (183, "aarch64"), "aarch64": (62, "x86_64")}[platform.machine()]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    # The program is run by nobody, who must be able to get there.
    for item in (tmp_path, *tmp_path.parents):
        if item == Path("/tmp") or item == Path("/"):
            break
        item.chmod(0o755)
    return tmp_path


def script(folder: Path, body: str, shebang: str = "#!/bin/sh") -> Path:
    path = folder / "prog"
    path.write_text(f"{shebang}\n{body}\n")
    path.chmod(0o755)
    return path


def elf(folder: Path, *, machine: int, loader: str | None = None) -> Path:
    """As little of a 64-bit ELF program as its header's readers need."""
    code = (loader or "").encode() + b"\0"
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 1 if loader else 0, 0, 0, 0)
    segment = struct.pack("<IIQQQQQQ", 3, 4, 120, 0, 0, len(code), len(code), 1)
    path = folder / "prog"
    path.write_bytes(header + segment + code + bytes(64))
    path.chmod(0o755)
    return path


def check(program: Path, *, pattern: str = "prog {version}", timeout: float = 10.0) -> str:
    return check_version(program, command=["{executable}", "-v"], pattern=pattern, version="1.2", timeout=timeout)


@pytest.mark.parametrize(
    ("said", "pattern", "found"),
    [
        ("prog 1.2", "{version}", True),
        ("prog v1.2 (abc)", "v{version}", True),
        ("prog 1.2.3", "{version}", False),
        ("prog 11.2", "{version}", False),
        ("prog 0.1.2", "{version}", False),
        ("prog 1.20", "{version}", False),
        ("prog 1.2.", "{version}", True),
        ("prog 1x2", "{version}", False),
        ("a (b) 1.2", "a (b) {version}", True),
        ("Version:   1.2", r"^Version:\s+{version}$", True),
        ("built\nVersion: 1.2", r"^Version: {version}$", True),
        ("[1.2", "[{version}", True),
        ("x", "[{version}", False),
        ("commit 0123", r"commit [0-9]{4}", True),
    ],
)
def test_found_in(said: str, pattern: str, found: bool) -> None:
    assert found_in(said, pattern, "1.2") is found


def test_its_words_come_back(folder: Path) -> None:
    assert check(script(folder, "echo prog 1.2 $1; echo more >&2")) == "prog 1.2 -v\nmore"


def test_environment_is_clean_and_the_user_unprivileged(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECRET", "word")
    said = check(script(folder, "echo prog 1.2; env; id -u; id -G; pwd"))
    assert "word" not in said
    assert os.geteuid() != 0 or said.splitlines()[-3:] == ["65534", "65534", "/"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (
            "echo prog 1.3",
            "does not say that it is 1.2: 'prog {version}' is not found in its output. It said: prog 1.3.",
        ),
        ("echo broken >&2; exit 3", "(exit status 3): broken"),
        ("kill -SEGV $$", "(killed by SIGSEGV): without a word"),
        ("kill -ILL $$", "take the build for older ones"),
        (
            'echo "$0: /lib/libc.so.6: version \\`GLIBC_2.38\' not found (required by $0)" >&2; exit 1',
            "built for another C library: this host has glibc",
        ),
        (
            "echo '/x: error while loading shared libraries: libvips.so.42: cannot open shared object' >&2; exit 127",
            "The library libvips.so.42 is missing",
        ),
    ],
)
def test_failures_have_the_programs_words_and_a_remedy(folder: Path, body: str, words: str) -> None:
    with pytest.raises(ReleaseError) as caught:
        check(script(folder, body))
    assert words in str(caught.value)


def test_time_out_ends_what_it_started_too(folder: Path) -> None:
    begin = time.monotonic()
    with pytest.raises(ReleaseError, match="did not end within 0.3 s.*It said: hello"):
        check(script(folder, "echo hello; sleep 20 & sleep 20"), timeout=0.3)
    assert time.monotonic() - begin < 5


def test_other_architecture(folder: Path) -> None:
    with pytest.raises(
        ReleaseError, match=f"built for the architecture {OTHER[1]}, and this host is {platform.machine()}"
    ):
        check(elf(folder, machine=OTHER[0]))


def test_other_c_library(folder: Path) -> None:
    here = {"x86_64": 62, "aarch64": 183}[platform.machine()]
    program = elf(folder, machine=here, loader="/lib/ld-musl-absent.so.1")
    with pytest.raises(
        ReleaseError, match="built for another C library .musl.: its loader /lib/ld-musl-absent.so.1 is not"
    ):
        check(program)


def test_no_program(folder: Path) -> None:
    program = script(folder, "", shebang="just text")
    with pytest.raises(ReleaseError, match="exec format error.*member"):
        check(program)


def test_script_without_its_interpreter(folder: Path) -> None:
    with pytest.raises(ReleaseError, match="a script for /usr/bin/absent-ruby"):
        check(script(folder, "", shebang="#!/usr/bin/absent-ruby -w"))


def test_a_folder_that_nobody_can_enter(folder: Path) -> None:
    inner = folder / "closed"
    inner.mkdir()
    program = script(inner, "echo prog 1.2")
    # Root's check runs as nobody; any other user's as that user, who owns the folder.
    inner.chmod(0o700 if os.geteuid() == 0 else 0o600)
    try:
        with pytest.raises(ReleaseError, match="permission denied to the user nobody"):
            check(program)
    finally:
        inner.chmod(0o755)


def test_elf_header_of_real_programs(folder: Path) -> None:
    machine, loader = elf_header(Path(shutil.which("sleep") or "/bin/sleep").resolve())
    assert machine == platform.machine()
    assert loader and Path(loader).exists()
    assert elf_header(script(folder, "")) == (None, None)
    (folder / "short").write_bytes(b"\x7fELF\x02\x01" + bytes(60))
    assert elf_header(folder / "short")[1] is None
