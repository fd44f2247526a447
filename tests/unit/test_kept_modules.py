"""Modules that are kept from run to run: whose, of which state, and where nobody else can put any."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.callback.kept_modules import ABANDONED, Kept, state_of

BUILT = "ansible_collections.selfhost.fleet.plugins.modules.probe-ZIP_DEFLATED-none"


def a_run(tmp_path: Path, state: str, *modules: str) -> dict[str, str]:
    """One that builds these unless they are there; what it has in the end."""
    built = tmp_path / f"run-{time.monotonic_ns()}" / "ansiballz_cache"
    built.parent.mkdir()
    kept = Kept(tmp_path / "home" / "modules", state, built)
    laid_out = kept.lay_out()
    built.mkdir(exist_ok=True)
    for name in modules:
        if not (built / name).exists():
            (built / name).write_text(f"{name} of {state}, by {built.parent.name}")
    found = {path.name: path.read_text() for path in built.iterdir()}
    if laid_out:
        kept.keep()
    return found


def test_the_next_run_has_what_this_one_has_built(tmp_path: Path) -> None:
    first = a_run(tmp_path, "one", BUILT)
    assert a_run(tmp_path, "one", BUILT) == first
    assert a_run(tmp_path, "two", BUILT) != first


def test_modules_of_the_user_and_what_is_half_done_are_not_kept(tmp_path: Path) -> None:
    a_run(tmp_path, "one", "ansible.modules.mine-ZIP_DEFLATED-none", f"{BUILT}.lock", f"{BUILT}-part")
    assert a_run(tmp_path, "one") == {}


@pytest.mark.parametrize("mode", [0o770, 0o707])
@pytest.mark.parametrize("inner", ["", "one"])
def test_where_others_may_write_nothing_is_taken_nor_kept(tmp_path: Path, mode: int, inner: str) -> None:
    a_run(tmp_path, "one", BUILT)
    (tmp_path / "home" / "modules" / inner).chmod(mode)
    assert a_run(tmp_path, "one") == {}


def test_a_link_in_its_place_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "modules").symlink_to(tmp_path / "elsewhere")
    a_run(tmp_path, "one", BUILT)
    assert a_run(tmp_path, "one") == {}


def test_it_is_for_the_user_alone_whatever_the_umask(tmp_path: Path) -> None:
    former = os.umask(0o002)
    try:
        a_run(tmp_path, "one", BUILT)
    finally:
        os.umask(former)
    assert [(tmp_path / "home" / "modules" / name).stat().st_mode & 0o777 for name in ("", "one")] == [0o700, 0o700]


def test_what_nobody_has_used_for_a_week_goes(tmp_path: Path) -> None:
    a_run(tmp_path, "one", BUILT)
    old = time.time() - ABANDONED - 1
    os.utime(tmp_path / "home" / "modules" / "one", (old, old))
    a_run(tmp_path, "two", BUILT)
    assert [path.name for path in (tmp_path / "home" / "modules").iterdir()] == ["two"]


def test_another_text_is_another_state(tmp_path: Path) -> None:
    module = tmp_path / "module_utils" / "thing.py"
    module.parent.mkdir()
    module.write_text("a = 1\n")
    before = state_of(tmp_path)
    assert state_of(tmp_path) == before
    module.write_text("a = 2\n")
    assert state_of(tmp_path) != before
