"""Commands that somebody else wrote: how they end, within their time, and what is left of them."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.command import (
    LENGTH,
    LINES,
    CommandError,
    Outcome,
    of_a_host,
    run,
)


def shell(script: str, timeout: float = 20, **environment: str) -> Outcome:
    return run(["/bin/sh", "-c", script], environment={"PATH": os.environ["PATH"], **environment}, timeout=timeout)


def test_one_that_passes() -> None:
    found = shell('echo "$FLEET_SLOT answers"; pwd', FLEET_SLOT="green")
    assert (found.ok, found.code, found.lines) == (True, 0, ("green answers", "/"))
    assert found.words.startswith("ended with 0 after ")


def test_one_that_fails_says_its_last_words_whichever_way_it_said_them() -> None:
    found = shell("seq 100; echo; printf 'no \\033[31mred\\033[0m\\a\\n' >&2; exit 3")
    assert not found.ok and found.code == 3
    assert found.lines == (*(str(number) for number in range(102 - LINES, 101)), "no red")
    assert ". Its last words:\n  87\n" in found.words and found.words.endswith("\n  no red")


def test_one_without_a_word_and_one_with_a_very_long_one() -> None:
    assert shell("exit 1").words.endswith(", without a word")
    (line,) = shell("head -c 200000 /dev/zero | tr '\\0' x; exit 1").lines
    assert line == "x" * LENGTH
    assert shell("printf '\\377\\n'; exit 1").lines == ("\ufffd",)


def test_a_signal_is_a_failure() -> None:
    assert shell("kill -9 $$").code == 137


def test_it_has_no_more_than_its_time() -> None:
    begun = time.monotonic()
    found = shell("echo waiting; sleep 60", timeout=0.3)
    assert time.monotonic() - begun < 10
    assert (found.ok, found.code, found.lines) == (False, None, ("waiting",))
    assert found.words.startswith("had not ended after 0.3 s")


@pytest.mark.parametrize("end", ["exit 0", "trap '' TERM; sleep 60"], ids=["passes", "does not end"])
def test_nothing_of_it_is_left_running_nor_waited_for(tmp_path: Path, end: str) -> None:
    begun = time.monotonic()
    shell(f"sleep 60 & echo $! > {tmp_path}/child; {end}", timeout=0.3)
    assert time.monotonic() - begun < 10
    status = Path(f"/proc/{(tmp_path / 'child').read_text().strip()}/stat")
    for _try in range(50):
        # Its parent has ended, so it is init's to bury.
        if not status.exists() or status.read_text().rpartition(") ")[2][0] in "ZX":
            return
        time.sleep(0.1)
    pytest.fail("the child still runs")


def test_it_is_asked_nothing() -> None:
    assert shell("read line || echo nothing").lines == ("nothing",)


def test_what_cannot_be_run_is_said_in_words(tmp_path: Path) -> None:
    text = tmp_path / "notes.txt"
    text.write_text("no program")
    for command, words in (("/nowhere/smoke", "no such file or directory"), (str(text), "permission denied")):
        with pytest.raises(CommandError, match=words):
            run([command], environment={}, timeout=1)
    with pytest.raises(CommandError, match="there is no user nosuchuser"):
        run(["/bin/true"], environment={}, timeout=1, user="nosuchuser")


def test_on_a_host_it_has_nothing_of_whoever_connected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SSH_AUTH_SOCK", "/tmp/agent")
    found = of_a_host({"FLEET_SLOT": "green"}, "root")
    assert set(found) == {"PATH", "HOME", "LANG", "FLEET_SLOT"} and found["HOME"] == "/root"
    assert of_a_host({}, "nosuchuser")["HOME"] == "/"
