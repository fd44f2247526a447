from __future__ import annotations

import gzip
import io
import stat
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.release.model import ReleaseError
from ansible_collections.selfhost.fleet.plugins.module_utils.release.unpack import archive_kind, unpack

PROGRAM = b"#!/bin/sh\necho prog 1.0\n"


def entry(name: str, content: bytes = b"", **fields: object) -> tuple[tarfile.TarInfo, bytes]:
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in fields.items():
        setattr(info, field, value)
    return info, content


def tar(path: Path, *entries: tuple[tarfile.TarInfo, bytes], mode: str = "w:gz") -> Path:
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for info, content in entries:
            archive.addfile(info, io.BytesIO(content))
    return path


def zipped(path: Path, *entries: tuple[str, bytes, int]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content, mode in entries:
            item = zipfile.ZipInfo(name)
            item.external_attr = mode << 16
            archive.writestr(item, content)
    return path


@pytest.fixture
def target(tmp_path: Path) -> Path:
    folder = tmp_path / "content"
    folder.mkdir()
    return folder


@pytest.fixture
def extract(target: Path) -> Callable[..., dict[str, bytes]]:
    def run(archive: Path, member: str | None = None) -> dict[str, bytes]:
        kind = archive_kind(archive)
        assert kind
        unpack(archive, kind, target, member=member, executable="prog", shown=archive.name)
        return {str(path.relative_to(target)): path.read_bytes() for path in target.rglob("*") if path.is_file()}

    return run


Extract = Callable[..., dict[str, bytes]]
TREE = (
    entry("app-1.0", type=tarfile.DIRTYPE),
    entry("app-1.0/bin/prog", PROGRAM, mode=0o4755),
    entry("app-1.0/README", b"read"),
)


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_whole_archive(tmp_path: Path, target: Path, extract: Extract, mode: str) -> None:
    found = extract(tar(tmp_path / "a", *TREE, mode=mode))
    assert found == {"app-1.0/bin/prog": PROGRAM, "app-1.0/README": b"read"}
    assert stat.S_IMODE((target / "app-1.0/bin/prog").stat().st_mode) == 0o755, "the bits beyond 0755 are not taken"
    assert stat.S_IMODE((target / "app-1.0/README").stat().st_mode) == 0o644


def test_member_that_is_a_file_becomes_the_executable(tmp_path: Path, extract: Extract) -> None:
    assert extract(tar(tmp_path / "a", *TREE), "app-1.0/bin/prog") == {"prog": PROGRAM}


def test_member_that_is_a_folder_is_taken_without_its_name(tmp_path: Path, extract: Extract) -> None:
    assert extract(tar(tmp_path / "a", *TREE), "app-1.0") == {"bin/prog": PROGRAM, "README": b"read"}


def test_member_with_a_dot_before_it(tmp_path: Path, extract: Extract) -> None:
    assert extract(tar(tmp_path / "a", entry("./prog", PROGRAM)), "prog") == {"prog": PROGRAM}


def test_zip(tmp_path: Path, target: Path, extract: Extract) -> None:
    archive = zipped(tmp_path / "a", ("bin/", b"", 0o40755), ("bin/prog", PROGRAM, 0o100755), ("notes", b"n", 0))
    assert extract(archive) == {"bin/prog": PROGRAM, "notes": b"n"}
    assert (target / "bin/prog").stat().st_mode & 0o111


def test_links_inside_are_kept(tmp_path: Path, target: Path, extract: Extract) -> None:
    found = extract(
        tar(
            tmp_path / "a",
            *TREE,
            entry("app-1.0/prog", type=tarfile.SYMTYPE, linkname="bin/prog"),
            entry("app-1.0/again", type=tarfile.LNKTYPE, linkname="app-1.0/bin/prog"),
        ),
        "app-1.0",
    )
    assert found["prog"] == found["again"] == PROGRAM
    assert (target / "prog").is_symlink()


@pytest.mark.parametrize(
    ("entries", "words"),
    [
        ([entry("/etc/passwd", b"x")], "leaves the release's folder"),
        ([entry("../evil", b"x")], "leaves the release's folder"),
        ([entry("a/../../evil", b"x")], "leaves the release's folder"),
        ([entry("a", type=tarfile.SYMTYPE, linkname="/etc")], "outside of the release's folder"),
        ([entry("a/b", type=tarfile.SYMTYPE, linkname="../../x")], "outside of the release's folder"),
        (
            [entry("a", type=tarfile.SYMTYPE, linkname="."), entry("a/evil", b"x")],
            "written through a link",
        ),
        (
            [
                entry("d/e/x", type=tarfile.SYMTYPE, linkname="../.."),
                entry("z", type=tarfile.SYMTYPE, linkname="d/e/x/../.."),
            ],
            "outside of the release's folder",
        ),
        ([entry("a", type=tarfile.LNKTYPE, linkname="/etc/passwd")], "leaves the release's folder"),
        ([entry("a", type=tarfile.LNKTYPE, linkname="absent")], "which was not unpacked"),
        ([entry("null", type=tarfile.CHRTYPE, devmajor=1, devminor=3)], "a device or pipe"),
        ([entry("pipe", type=tarfile.FIFOTYPE)], "a device or pipe"),
        ([entry(".release.json", b"{}")], "the name of the manifest"),
        ([entry("a", b"x"), entry("a/b", b"x")], "Not a directory"),
        ([], "is empty"),
    ],
)
def test_refusals(tmp_path: Path, extract: Extract, entries: list[tuple[tarfile.TarInfo, bytes]], words: str) -> None:
    with pytest.raises((ReleaseError, NotADirectoryError)) as caught:
        extract(tar(tmp_path / "a", *entries))
    assert words in str(caught.value)
    assert not (tmp_path / "evil").exists()


@pytest.mark.parametrize(
    ("item", "words"),
    [
        (("../evil", b"x", 0o100644), "leaves the release's folder"),
        (("link", b"/etc/passwd", 0o120777), "outside of the release's folder"),
        (("pipe", b"", 0o010644), "a device or pipe"),
    ],
)
def test_refusals_of_zip(tmp_path: Path, extract: Extract, item: tuple[str, bytes, int], words: str) -> None:
    with pytest.raises(ReleaseError, match=words):
        extract(zipped(tmp_path / "a", item))


def test_member_that_is_not_there_says_what_is(tmp_path: Path, extract: Extract) -> None:
    with pytest.raises(ReleaseError, match=r"does not contain 'prog'. It contains: app-1.0, app-1.0/bin/prog"):
        extract(tar(tmp_path / "a", *TREE), "prog")


def test_member_that_is_a_link(tmp_path: Path, extract: Extract) -> None:
    with pytest.raises(ReleaseError, match="name that file itself"):
        extract(tar(tmp_path / "a", entry("prog", type=tarfile.SYMTYPE, linkname="other")), "prog")


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
@pytest.mark.parametrize("share", [0.05, 0.5, 0.9])
def test_truncated_tar(tmp_path: Path, extract: Extract, mode: str, share: float) -> None:
    noise = b"".join(bytes([index * 7 % 251, index % 253]) * 3 for index in range(20000))
    whole = tar(tmp_path / "a", entry("prog", noise), mode=mode)
    size = int(whole.stat().st_size * share)
    with whole.open("r+b") as stream:
        stream.truncate(size)
    with pytest.raises(ReleaseError, match="cut off or damaged"):
        extract(whole)


def test_truncated_and_damaged_zip(tmp_path: Path, extract: Extract) -> None:
    archive = zipped(tmp_path / "a", ("prog", bytes(range(256)) * 100, 0o100755))
    content = archive.read_bytes()
    archive.write_bytes(content[:-30])
    with pytest.raises(ReleaseError, match="cut off or damaged"):
        extract(archive)
    archive.write_bytes(content[:60] + b"\0\0\0\0" + content[64:])
    with pytest.raises(ReleaseError, match="cut off or damaged"):
        extract(archive)


def test_other_compressions_are_named(tmp_path: Path, target: Path) -> None:
    (tmp_path / "a.gz").write_bytes(gzip.compress(PROGRAM * 100))
    (tmp_path / "a.zst").write_bytes(b"\x28\xb5\x2f\xfd" + bytes(20))
    for name, words in (("a.gz", "gzip-compressed"), ("a.zst", "zstd-compressed")):
        kind = archive_kind(tmp_path / name)
        assert kind
        with pytest.raises(ReleaseError, match=words):
            unpack(tmp_path / name, kind, target, member=None, executable="prog", shown=name)


def test_a_program_with_a_zip_behind_it_is_a_program(tmp_path: Path) -> None:
    archive = zipped(tmp_path / "a", ("__main__.py", b"print(1)", 0o100644))
    zipapp = tmp_path / "app"
    zipapp.write_bytes(b"#!/usr/bin/env python3\n" + archive.read_bytes())
    assert archive_kind(zipapp) is None
    assert archive_kind(archive) == "zip"
