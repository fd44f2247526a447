"""What a disk refused: which one, how much is left, what to do."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.storage import free, trouble
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.journal import write_durably


def error_of(number: int, path: str | None = None) -> OSError:
    return OSError(number, os.strerror(number), path)


def test_a_full_disk_is_named(tmp_path: Path) -> None:
    said = trouble(error_of(errno.ENOSPC, str(tmp_path / "new")))
    assert said.startswith(f"{tmp_path}/new: No space left on device (")
    assert f"MiB free in {tmp_path}). The disk is full: free some space there" in said


def test_one_without_a_name_is_not_invented() -> None:
    assert trouble(error_of(errno.ENOSPC)) == (
        "No space left on device. The disk is full: free some space there, and run again"
    )


def test_a_disk_that_may_only_be_read() -> None:
    assert "mounted read-only" in trouble(error_of(errno.EROFS, "/etc/nginx/x"))


def test_others_are_said_as_they_are() -> None:
    assert trouble(error_of(errno.EACCES, "/etc/nginx/x")) == "/etc/nginx/x: Permission denied"


def test_room_of_a_folder_that_is_not_there_yet(tmp_path: Path) -> None:
    assert free(tmp_path / "a" / "b").split(",", maxsplit=1)[0] == free(tmp_path).split(",", maxsplit=1)[0]


def test_a_write_that_fails_says_where(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_descriptor: int) -> None:
        raise error_of(errno.ENOSPC)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left on device") as caught:
        write_durably(tmp_path / "file", b"x", 0o600, os.getuid(), os.getgid())
    assert caught.value.filename == str(tmp_path / "file")
