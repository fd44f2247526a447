from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.probe.holder import foreign_holder

UNIT = "app@blue.service"
OWN = "/system.slice/system-app.slice/app@blue.service"
LOOPBACK = ("127.0.0.1", 8105)


def line(local: str, group: str) -> str:
    """As iproute2 6.1 and 6.15 print a listener; the part behind the arrow is empty for most."""
    return f"LISTEN 0      5          {local}      0.0.0.0:*    uid:1 ino:1667430 sk:1076 cgroup:{group} <-> cgroup:{group}"


class Host:
    def __init__(self, *lines: str, rc: int = 0) -> None:
        self.lines, self.rc = lines, rc

    def run(self, argv: Sequence[str], *, timeout: float | None = None, **_: Any) -> CommandResult:
        assert timeout
        if argv[0] == "ss":
            return CommandResult(tuple(argv), self.rc, "\n".join(self.lines))
        return CommandResult(tuple(argv), 0, f"{OWN}\n")

    def which(self, executable: str) -> str | None:
        return executable


@pytest.mark.parametrize(
    ("lines", "address"),
    [
        pytest.param([line("127.0.0.1:8105", OWN)], LOOPBACK, id="own"),
        pytest.param([line("*:8105", f"{OWN}/worker")], LOOPBACK, id="a group below the unit's"),
        pytest.param([line("127.0.0.1:8105", "/system.slice/a.service"), line("[::1]:8105", OWN)], LOOPBACK, id="both"),
        pytest.param([line("10.0.0.7:8105", "/system.slice/a.service")], LOOPBACK, id="another address of the host"),
        pytest.param([line("0.0.0.0:8105", "/system.slice/a.service")], ("10.9.9.9", 8105), id="another host"),
        pytest.param([line("127.0.0.1:8105", "/init.scope")], LOOPBACK, id="a socket made by systemd"),
        pytest.param([line("127.0.0.1:8105", "unreachable:1")], LOOPBACK, id="a group outside of this host"),
        pytest.param([], LOOPBACK, id="nobody"),
    ],
)
def test_no_doubt(lines: list[str], address: tuple[str, int]) -> None:
    assert foreign_holder(UNIT, address, Host(*lines)) is None


@pytest.mark.parametrize(
    ("local", "host"),
    [
        ("127.0.0.1:8105", "127.0.0.1"),
        ("0.0.0.0:8105", "localhost"),
        ("*:8105", "127.0.0.1"),
        ("[::]:8105", "::1"),
        ("127.0.0.1%lo:8105", "127.0.0.1"),
        ("[fd00::7]:8105", "fd00::7"),
        ("10.0.0.7:8105", "10.0.0.7"),
    ],
)
def test_another_unit_holds_it(local: str, host: str) -> None:
    former = "/system.slice/system-app.slice/app@green.service"
    assert foreign_holder(UNIT, (host, 8105), Host(line(local, former))) == former


def test_an_ss_that_cannot_tell_is_no_doubt() -> None:
    assert foreign_holder(UNIT, LOOPBACK, Host(line("127.0.0.1:8105", "/system.slice/a.service"), rc=255)) is None
