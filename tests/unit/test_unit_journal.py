"""The last words of a unit, taken from the journal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.unit_journal import unit_journal

RUN = ["Started app.service.", *(f"line {number}" for number in range(9)), "Failed to run migrations"]
END = [
    "app.service: Main process exited, code=exited, status=1/FAILURE",
    "app.service: Failed with result 'exit-code'.",
]
AGAIN = ["app.service: Scheduled restart job, restart counter is at 2.", "Started app.service.", "line 0", "line 1"]


class Journalctl:
    """Has these lines, the last of them since the time that is asked for."""

    def __init__(self, lines: Sequence[str], since: int = 0) -> None:
        self.lines, self.since = lines, since

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        found = list(self.lines)
        if any(word.startswith("--since=") for word in argv):
            found = found[len(found) - min(self.since, len(found)) :]
        for word in argv:
            if word.startswith("--lines="):
                found = found[-int(word.partition("=")[2]) :]
        return CommandResult(tuple(argv), 0, stdout="".join(f"{line}\n" for line in found))

    def which(self, executable: str) -> str | None:
        return f"/usr/bin/{executable}"


def test_the_last_lines_and_no_more() -> None:
    assert unit_journal(Journalctl(RUN), "app.service", lines=2) == ["line 8", "Failed to run migrations"]


def test_since_its_start_and_else_of_the_unit_altogether() -> None:
    assert unit_journal(Journalctl(RUN, since=1), "app.service", lines=5, since="@7") == RUN[-1:]
    assert unit_journal(Journalctl(RUN, since=0), "app.service", lines=2, since="@7") == RUN[-2:]
    assert unit_journal(Journalctl([]), "app.service", lines=2, since="@7") == []


def test_what_was_said_before_is_nothing_where_it_would_mislead() -> None:
    assert unit_journal(Journalctl(RUN, since=0), "app.service", lines=2, since="@7", or_before=False) == []
    journalctl = Journalctl([*RUN, *END, *AGAIN], since=len(AGAIN))
    found = unit_journal(journalctl, "app.service", lines=9, since="@7", or_before=False, restarted=True)
    assert found == AGAIN


def test_of_a_crash_loop_the_run_that_ended_tells() -> None:
    journalctl = Journalctl([*RUN, *END, *AGAIN], since=3)
    assert unit_journal(journalctl, "app.service", lines=3, since="@7", restarted=True) == [RUN[-1], *END]


def test_a_crash_loop_in_which_systemd_has_said_no_end_yet() -> None:
    assert unit_journal(Journalctl(AGAIN), "app.service", lines=2, restarted=True) == AGAIN[-2:]


def test_colours_are_for_terminals() -> None:
    said = "\x1b[90m11:43AM\x1b[0m \x1b[31mERR\x1b[0m \x1b[1mFailed\x1b[0m \x1b]8;;https://example.com\x07here\x1b]8;;\x1b\\"
    assert unit_journal(Journalctl([said, "\x1b[0m"]), "app.service", lines=2) == ["11:43AM ERR Failed here"]


def test_of_a_line_with_a_whole_script_in_it_both_ends_are_kept() -> None:
    (said,) = unit_journal(Journalctl([f"failed: {'x' * 6000} SQLSTATE 42P10"]), "app.service", lines=2)
    assert said.startswith("failed: xxx") and said.endswith("SQLSTATE 42P10")
    assert "characters ...]" in said and len(said) < 700
    assert unit_journal(Journalctl(["x" * 600]), "app.service", lines=2) == ["x" * 600]
