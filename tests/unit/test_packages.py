"""Packages: what dpkg says is believed, and apt's own words reach the operator."""

from __future__ import annotations

from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.packages import Packages, PackagesError


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
    said = "nginx ii \nnftables un \nopenssl rc \n"
    runner = FakeRunner(dpkg_query=CommandResult((), 1, said, "dpkg-query: no packages found matching nosuch"))
    assert Packages(runner).missing(["nginx", "nftables", "openssl", "nosuch"]) == ["nftables", "nosuch", "openssl"]


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
