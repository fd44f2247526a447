"""Packages: what dpkg says is believed, and apt's own words reach the operator."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.packages import Packages, PackagesError, is_of


class FakeRunner:
    """Answers by the first word of a command."""

    def __init__(self, **answers: CommandResult) -> None:
        self.answers = answers
        self.ran: list[list[str]] = []

    def run(self, argv: Any, **_: Any) -> CommandResult:
        self.ran.append(list(argv))
        return self.answers.get(argv[0].replace("-", "_"), CommandResult(tuple(argv), 0))

    def which(self, executable: str) -> str | None:
        return executable


def test_only_installed_counts() -> None:
    said = "nginx ii  1.26.3-3\nnftables un  \nopenssl rc  3.5.1-1\n"
    runner = FakeRunner(dpkg_query=CommandResult((), 1, said, "dpkg-query: no packages found matching nosuch"))
    assert Packages(runner).missing(["nginx", "nftables", "openssl", "nosuch"]) == ["nftables", "nosuch", "openssl"]


@pytest.mark.parametrize(
    ("found", "asked", "same"),
    [
        ("2.11.0-2+b4", "2.11.0", True),
        ("1:1.6.0-2", "1.6.0", True),
        ("0.12.0+dfsg1-4+b1", "0.12.0", True),
        ("2.11.0-2+deb13u1", "2.11.0", True),
        ("2.11.0", "2.11.0", True),
        ("2.11.0-2+b4", "2.11.0-2", True),
        ("2.11.01-2", "2.11.0", False),
        ("2.11.0.1-2", "2.11.0", False),
        ("4.1.0~beta2-3", "4.1.0", False),
        ("2x11.0-2", "2.11.0", False),
        ("12.11.0-2", "2.11.0", False),
    ],
)
def test_debians_versions_of_an_upstream_one(found: str, asked: str, same: bool) -> None:
    assert is_of(found, asked) is same


def test_another_version_than_the_one_asked_for_is_missing() -> None:
    runner = FakeRunner(dpkg_query=CommandResult((), 0, "miniflux ii  2.2.6-1+b4\nntfy ii  2.11.0-2+b4\n"))
    packages = Packages(runner)
    assert packages.missing(["miniflux", "ntfy"], {"ntfy": "2.11.0"}) == []
    assert packages.missing(["miniflux", "ntfy"], {"ntfy": "2.12.0"}) == ["ntfy"]


def test_a_version_that_cannot_be_had_is_named() -> None:
    class Refusing(FakeRunner):
        def run(self, argv: Any, **_: Any) -> CommandResult:
            refused = CommandResult((), 100, "", "E: Package 'ntfy' has no installation candidate\n")
            return refused if "install" in argv else CommandResult((), 0)

    with pytest.raises(PackagesError, match=r"nginx, ntfy 2\.12\.0 could not be installed(.|\n)*version: distribution"):
        Packages(Refusing()).install(["ntfy", "nginx"], {"ntfy": "2.12.0"})


def test_nothing_is_asked_for_nothing() -> None:
    runner = FakeRunner()
    assert Packages(runner).missing([]) == [] and runner.ran == []


def test_one_transaction_after_fresh_lists() -> None:
    runner = FakeRunner()
    Packages(runner).install(["b", "a"])
    assert [argv[1] for argv in runner.ran] == ["update", "install"]
    assert runner.ran[1][-2:] == ["a", "b"]


def test_apt_in_its_own_words() -> None:
    runner = FakeRunner(apt_get=CommandResult((), 100, "", "E: Unable to locate package nosuch\n"))
    with pytest.raises(PackagesError, match="E: Unable to locate package nosuch"):
        Packages(runner).install(["nosuch"])


LOCK = (
    "E: Could not get lock /var/lib/apt/lists/lock. It is held by process 262 (unattended-upgr)\n"
    "E: Unable to lock directory /var/lib/apt/lists/\n"
)


class Busy(FakeRunner):
    """apt is locked for so many calls."""

    def __init__(self, calls: int) -> None:
        super().__init__()
        self.left = calls

    def run(self, argv: Any, **_: Any) -> CommandResult:
        self.ran.append(list(argv))
        self.left -= 1
        return CommandResult(tuple(argv), 100, "", LOCK) if self.left >= 0 else CommandResult(tuple(argv), 0)


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def test_another_apt_is_waited_for() -> None:
    clock, runner = Clock(), Busy(calls=3)
    Packages(runner, 60, clock, clock.sleep).install(["nginx"])
    assert [argv[1] for argv in runner.ran] == ["update"] * 4 + ["install"]


def test_the_wait_ends_and_says_for_whom() -> None:
    clock, runner = Clock(), Busy(calls=1000)
    with pytest.raises(PackagesError) as caught:
        Packages(runner, 60, clock, clock.sleep).install(["nginx"])
    assert clock.now == 60
    for words in ("/var/lib/apt/lists/lock: process 262 (unattended-upgr)", "nothing was changed", "for 60 s"):
        assert words in str(caught.value)


class Interrupted(FakeRunner):
    """A former run was cut off: apt does nothing until dpkg has finished it, which it can or cannot."""

    def __init__(self, *, mended: bool) -> None:
        super().__init__()
        self.finished = False
        self.mended = mended

    def run(self, argv: Any, **_: Any) -> CommandResult:
        self.ran.append(list(argv))
        if argv[0] == "dpkg":
            self.finished = self.mended
            return CommandResult((), 0 if self.mended else 1, "", "dpkg: error processing package nginx (--configure)")
        said = "E: dpkg was interrupted, you must manually run 'dpkg --configure -a' to correct the problem."
        return CommandResult((), 0) if self.finished or argv[1] == "update" else CommandResult((), 100, "", said)


def test_what_a_former_run_left_half_done_is_finished_first() -> None:
    runner = Interrupted(mended=True)
    Packages(runner).install(["nginx"])
    assert [argv[:2] for argv in runner.ran] == [
        ["apt-get", "update"],
        ["apt-get", "install"],
        ["dpkg", "--configure"],
        ["apt-get", "install"],
    ]


def test_what_cannot_be_finished_is_said_in_dpkgs_words() -> None:
    with pytest.raises(PackagesError, match=r"error processing package nginx(.|\n)*dpkg --configure -a, by hand"):
        Packages(Interrupted(mended=False)).install(["nginx"])


@pytest.mark.parametrize(
    ("said", "remedy"),
    [
        ("E: Failed to fetch http://127.0.0.1:9/x  Unable to connect", "reach the mirrors"),
        ("E: Release file for http://x/InRelease is not valid yet (invalid for another 2h)", "This host's clock says"),
        ("E: You don't have enough free space in /var/cache/apt/archives/.", "Free some space"),
        ("E: Unable to locate package nosuch", "Is the name right"),
    ],
)
def test_what_to_do_is_said(said: str, remedy: str) -> None:
    with pytest.raises(PackagesError) as caught:
        Packages(FakeRunner(apt_get=CommandResult((), 100, "", said))).install(["nosuch"])
    assert said in str(caught.value) and remedy in str(caught.value)
