"""Releases on real hosts: what is transferred, what a failure leaves, and what is never removed."""

from __future__ import annotations

import hashlib
import io
import platform
import struct
import tarfile
import zipapp
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible

MODULE = "selfhost.fleet.release"
FOREIGN = {"x86_64": (183, "aarch64"), "aarch64": (62, "x86_64")}[platform.machine()]

Release = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", params=["host", "debian12_host"])
def target(request: pytest.FixtureRequest) -> Host:
    made = request.getfixturevalue(request.param)
    assert isinstance(made, Host)
    return made


@pytest.fixture
def release(ansible: Ansible, target: Host, request: pytest.FixtureRequest, tmp_path: Path) -> Release:
    """Calls the module for a component of this test's own."""
    name = request.node.originalname.removeprefix("test_")[:40]

    def call(
        version: str, content: bytes | None = None, *, run: dict[str, Any] | None = None, **changes: Any
    ) -> dict[str, Any]:
        content = program(version) if content is None else content
        source = tmp_path / "source"
        source.write_bytes(content)
        arguments = {
            "root": f"/opt/{name}/server",
            "version": version,
            "source": str(source),
            "checksum": f"sha256:{hashlib.sha256(content).hexdigest()}",
            "executable": "prog",
            "version_command": ["{executable}", "--version"],
            "version_pattern": "prog {version}",
            **changes,
        }
        return ansible.module(MODULE, arguments, target, **(run or {}))

    return call


def program(version: str, more: str = "") -> bytes:
    return f"#!/bin/sh\necho prog {version}\n{more}\n".encode()


def archive(content: bytes, name: str = "app/prog") -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:xz") as tar:
        info = tarfile.TarInfo(name)
        info.size = len(content)
        tar.addfile(info, io.BytesIO(content))
    return packed.getvalue()


def on_host(path: str, version: str, host: Host) -> dict[str, Any]:
    """A real program of the host's as a release."""
    checksum = host.root(f"sha256sum {path} | cut -d' ' -f1").stdout.strip()
    return {
        "source": path,
        "source_on_host": True,
        "checksum": f"sha256:{checksum}",
        "version_pattern": "GNU coreutils",
        "version": version,
    }


def listing(host: Host, folder: str) -> str:
    return host.root(f"test ! -e {folder} || find {folder} -printf '%P %M %u:%g %l\\n' | sort").stdout


def test_install(release: Release, target: Host, tmp_path: Path) -> None:
    links = {"blue": "1.0"}
    foreseen = release("1.0", links=links, run={"check": True, "diff": True})
    assert (foreseen["changed"], foreseen["needed"]) == (True, True)
    assert foreseen["diff"]["after"] == "release 1.0\nlink blue -> 1.0\n"
    assert listing(target, "/opt/install") == ""

    done = release("1.0", links=links)
    assert (done["changed"], done["installed"], done["program_says"]) == (True, True, "prog 1.0")
    assert listing(target, "/opt/install/server").splitlines() == [
        " drwxr-xr-x root:root ",
        "blue lrwxrwxrwx root:root releases/1.0",
        "releases drwxr-xr-x root:root ",
        "releases/1.0 drwxr-xr-x root:root ",
        "releases/1.0/.release.json -rw-r--r-- root:root ",
        "releases/1.0/prog -rwxr-xr-x root:root ",
    ]
    assert target.ssh("/opt/install/server/blue/prog").stdout == "prog 1.0\n"

    absent = str(tmp_path / "absent")
    for run in ({}, {"check": True}):
        again = release("1.0", links=links, source=absent, run=run)
        assert (again["changed"], again["needed"]) == (False, False), "the controller's file is not even looked for"


def test_nothing_of_the_transfer_stays(release: Release, target: Host) -> None:
    release("1.0")
    assert target.root("find /home/admin/.ansible/tmp -type f -name 'release*'").stdout == ""


def test_archive_with_a_member(release: Release, target: Host) -> None:
    release("1.0", archive(program("1.0")), member="app/prog")
    assert "releases/1.0/prog -rwxr-xr-x" in listing(target, "/opt/archive_with_a_member/server")


@pytest.mark.parametrize("check", [False, True])
def test_wrong_checksum(release: Release, target: Host, check: bool) -> None:
    failed = release("1.0", checksum=f"sha256:{'0' * 64}", run={"expect_failure": True, "check": check})
    assert "on the controller has the checksum sha256:" in failed["msg"]
    assert listing(target, "/opt/wrong_checksum") == ""


def test_source_that_is_not_there(release: Release, target: Host) -> None:
    failed = release("1.0", source="/absent/prog", run={"expect_failure": True})
    assert (
        "source '/absent/prog' is not on the controller, and this host does not have the release yet" in failed["msg"]
    )
    assert listing(target, "/opt/source_that_is_not_there") == ""


def test_truncated_archive(release: Release, target: Host) -> None:
    noise = b"".join(hashlib.sha256(str(number).encode()).digest() for number in range(5000))
    cut = archive(noise)[:-20000]
    failed = release("1.0", cut, member="app/prog", run={"expect_failure": True})
    assert "is cut off or damaged" in failed["msg"]
    assert listing(target, "/opt/truncated_archive") == ""


def test_wrong_architecture(release: Release, target: Host) -> None:
    header = b"\x7fELF\x02\x01\x01" + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 2, FOREIGN[0], 1, 0, 64, 0, 0, 64, 56, 0, 0, 0, 0)
    failed = release("1.0", header + bytes(200), run={"expect_failure": True})
    assert f"it is built for the architecture {FOREIGN[1]}, and this host is {platform.machine()}" in failed["msg"]
    assert listing(target, "/opt/wrong_architecture") == ""


def test_version_that_it_is_not(release: Release, target: Host) -> None:
    failed = release("1.0", program("1.0.1"), run={"expect_failure": True})
    assert "does not say that it is 1.0" in failed["msg"]
    assert "It said: prog 1.0.1" in failed["msg"]
    assert listing(target, "/opt/version_that_it_is_not") == ""


def test_full_disk(release: Release, target: Host) -> None:
    target.root("mkdir -p /opt/full_disk; mount -t tmpfs -o size=1m,mode=0755 tmpfs /opt/full_disk")
    try:
        before = listing(target, "/opt/full_disk")
        failed = release("1.0", program("1.0", "# " + "x" * 2_000_000), run={"expect_failure": True})
        assert "The disk is full: Installing 1.0 failed below /opt/full_disk/server" in failed["msg"]
        assert "MiB free" in failed["msg"]
        assert listing(target, "/opt/full_disk") == before
        assert release("1.0")["changed"], "what fits is installed afterwards"
    finally:
        target.root("umount /opt/full_disk")


def test_noexec(release: Release, target: Host) -> None:
    target.root("mkdir -p /opt/noexec; mount -t tmpfs -o noexec,mode=0755 tmpfs /opt/noexec")
    try:
        assert "is mounted noexec" in release("1.0", run={"expect_failure": True})["msg"]
    finally:
        target.root("umount /opt/noexec")


def test_running_release_is_not_removed(release: Release, target: Host) -> None:
    release(**on_host("/usr/bin/sleep", "1.0", target), links={"blue": "1.0"})
    # A private mount namespace, as hardened units have.
    target.root(
        "systemd-run --unit running --property PrivateTmp=yes --property ProtectSystem=strict "
        "/opt/running_release_is_not_removed/server/blue/prog 600"
    )
    try:
        release("2.0", links={"blue": "2.0"}, keep=1)
        last = release("3.0", links={"blue": "3.0"}, keep=1)
        assert (last["removed"], last["releases"]) == (["2.0"], ["1.0", "3.0"])
        assert not release("3.0", keep=1)["changed"]
    finally:
        target.root("systemctl stop running")
    assert release("3.0", keep=1)["removed"] == ["1.0"]


def test_running_zipapp_is_not_removed(release: Release, target: Host, tmp_path: Path) -> None:
    def app(version: str) -> bytes:
        (tmp_path / version).mkdir()
        (tmp_path / version / "__main__.py").write_text(
            f"import sys, time\nprint('prog {version}')\nif len(sys.argv) < 2: time.sleep(600)\n"
        )
        zipapp.create_archive(tmp_path / version, tmp_path / f"{version}.pyz", "/usr/bin/python3")
        return (tmp_path / f"{version}.pyz").read_bytes()

    release("1.0", app("1.0"), links={"blue": "1.0"})
    target.root("systemd-run --unit zipped /opt/running_zipapp_is_not_removed/server/blue/prog")
    try:
        outcome = release("2.0", app("2.0"), keep=1)
        assert outcome["removed"] == [], "the link still tells what runs"
        outcome = release("3.0", app("3.0"), links={"blue": "3.0"}, keep=1)
        assert outcome["removed"] == [], "the link has moved on, so nobody knows"
        assert "Restart it" in outcome["warnings"][0]
    finally:
        target.root("systemctl stop zipped")
    assert release("3.0", (tmp_path / "3.0.pyz").read_bytes(), keep=1)["removed"] == ["1.0", "2.0"]


def test_same_version_from_another_file(release: Release, target: Host) -> None:
    release("1.0")
    before = listing(target, "/opt/same_version_from_another_file")
    failed = release("1.0", program("1.0", "exit 0"), run={"expect_failure": True})
    assert "A release is never changed" in failed["msg"]
    assert listing(target, "/opt/same_version_from_another_file") == before


def test_killed_while_it_installs(release: Release, target: Host) -> None:
    """A hidden folder is left, as by a lost connection or a reboot; the next run sweeps it."""
    release("1.0")
    target.root("mkdir -p /opt/killed_while_it_installs/server/releases/.incoming-abc/content")
    assert not release("1.0")["changed"]
    release("2.0")
    assert ".incoming" not in listing(target, "/opt/killed_while_it_installs/server")
