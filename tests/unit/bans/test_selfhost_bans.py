"""What counts as a failed login, for whom, and when it is enough: also where the text is an attacker's own."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[3] / "roles" / "bans" / "files" / "selfhost_bans.py"


def _load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("selfhost_bans", PROGRAM)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


bans = _load()
LIMITS = {"ssh": bans.Limit(3, 600, 3600), "login": bans.Limit(2, 60, 300)}
SSHD = "sshd-session"


def failure(source: str = "203.0.113.9", at: float = 0.0, kind: str = "ssh", **more: Any) -> Any:
    return bans.Event(kind, source, at, **more)


def judged(events: list[Any], *, state: Any = None, trusted: tuple[str, ...] = (), now: float = 100.0) -> Any:
    return bans.judge(state or bans.State(), events, LIMITS, trusted, now)


@pytest.mark.parametrize(
    "message",
    [
        "Failed password for root from 203.0.113.9 port 4000 ssh2",
        "Failed password for invalid user oracle from 203.0.113.9 port 4000 ssh2",
        "Failed keyboard-interactive/pam for root from 203.0.113.9 port 4000 ssh2",
        "Invalid user oracle from 203.0.113.9 port 4000",
        "Connection closed by authenticating user root 203.0.113.9 port 4000 [preauth]",
        "Connection closed by invalid user oracle 203.0.113.9 port 4000 [preauth]",
        "Connection reset by authenticating user root 203.0.113.9 port 4000 [preauth]",
        "Disconnected from authenticating user root 203.0.113.9 port 4000 [preauth]",
        "Disconnecting authenticating user root 203.0.113.9 port 4000: Too many authentication failures [preauth]",
        # A name of no letters at all.
        "Invalid user  from 203.0.113.9 port 4000",
    ],
)
def test_failures_of_ssh(message: str) -> None:
    found = bans.event(SSHD, message, 5.0)
    assert (found.kind, found.source, found.at, found.connection) == ("ssh", "203.0.113.9", 5.0, "4000")


@pytest.mark.parametrize(
    "message",
    [
        "Failed publickey for admin from 203.0.113.9 port 4000 ssh2: ED25519 SHA256:x",  # an agent offers several
        "Failed none for admin from 203.0.113.9 port 4000 ssh2",
        "Connection closed by 203.0.113.9 port 4000",  # a port scan, a load balancer's look
        "Received disconnect from 203.0.113.9 port 4000:11: Failed password for x from 192.0.2.1 port 1 ssh2",
        "banner exchange: Connection from 203.0.113.9 port 4000: invalid format",
        "pam_unix(sshd:session): session closed for user admin",
        "Disconnected from user admin 203.0.113.9 port 4000",
        "Failed password for root from not-an-address port 4000 ssh2",
        "",
    ],
)
def test_no_failures(message: str) -> None:
    assert bans.event(SSHD, message, 0.0) is None


@pytest.mark.parametrize(
    "message",
    [
        "Invalid user x from 192.0.2.1 port 22 from 203.0.113.9 port 4000",
        "Failed password for invalid user x from 192.0.2.1 port 22 ssh2 from 203.0.113.9 port 4000 ssh2",
        "Connection closed by invalid user x 192.0.2.1 port 22 [preauth] 203.0.113.9 port 4000 [preauth]",
        "Connection closed by invalid user x 192.0.2.1 port 22: Too many authentication failures 203.0.113.9 port 4000 [preauth]",
        "Invalid user Accepted publickey for root from 192.0.2.1 port 1 ssh2 from 203.0.113.9 port 4000",
    ],
)
def test_a_name_cannot_put_the_blame_on_somebody_else(message: str) -> None:
    found = bans.event(SSHD, message, 0.0)
    assert (found.kind, found.source) == ("ssh", "203.0.113.9")


def test_failures_at_the_edge() -> None:
    assert bans.event("selfhost_login", "401 203.0.113.9", 0.0) == failure(kind="login")
    assert bans.event("selfhost_login", "200 203.0.113.9", 0.0) is None
    assert bans.event("selfhost_login", "401 203.0.113.9 203.0.113.10", 0.0) is None
    # Each tells of its own kind only.
    assert bans.event(SSHD, "401 203.0.113.9", 0.0) is None
    assert bans.event("selfhost_login", "Invalid user x from 203.0.113.9 port 1", 0.0) is None


@pytest.mark.parametrize(
    ("text", "source"),
    [
        ("203.0.113.9", "203.0.113.9"),
        ("::ffff:203.0.113.9", "203.0.113.9"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2::", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("example.com", None),
        ("203.0.113.9/8", None),
        ("1.2.3.4 } drop", None),
    ],
)
def test_sources(text: str, source: str | None) -> None:
    assert bans.source_of(text) == source


def test_enough_failures_in_the_window() -> None:
    assert judged([failure(at=at) for at in (1, 2)]) == []
    assert judged([failure(at=at) for at in (1, 2, 3)]) == [("ssh", "203.0.113.9")]
    assert judged([failure(at=at) for at in (1, 400, 700)], now=700) == []
    assert judged([failure(kind="login", at=at) for at in (1, 2)]) == [("login", "203.0.113.9")]
    # Of one kind, and of one source.
    assert judged([failure(at=1), failure(at=2), failure(kind="login", at=3)]) == []
    assert judged([failure(at=1), failure(at=2), failure("203.0.113.8", at=3)]) == []


def test_failures_are_remembered_between_runs() -> None:
    state = bans.State()
    assert judged([failure(at=1), failure(at=2)], state=state) == []
    assert judged([failure(at=3)], state=state) == [("ssh", "203.0.113.9")]
    # After a ban it starts anew.
    assert judged([failure(at=4), failure(at=5)], state=state) == []


def test_a_connection_counts_once_however_much_it_says() -> None:
    lines = [
        "Invalid user oracle from 203.0.113.9 port 4000",
        "Connection closed by invalid user oracle 203.0.113.9 port 4000 [preauth]",
    ]
    state = bans.State()
    for line in lines:
        judged([bans.event(SSHD, line, 1.0)], state=state)
    assert len(state.failures["ssh"]["203.0.113.9"]) == 1
    # Each password that is tried over it does, and its end does not beside them.
    guess = bans.event(SSHD, "Failed password for root from 203.0.113.7 port 4001 ssh2", 1.0)
    end = bans.event(SSHD, "Connection closed by authenticating user root 203.0.113.7 port 4001 [preauth]", 1.0)
    judged([guess, guess, end], state=state)
    assert len(state.failures["ssh"]["203.0.113.7"]) == 2


def test_addresses_of_one_v6_client_count_together() -> None:
    events = [bans.event(SSHD, f"Invalid user x from 2001:db8:1:2::{n} port {n}", 1.0) for n in (1, 2, 3)]
    assert judged(events) == [("ssh", "2001:db8:1:2::")]


def test_the_trusted_are_never_banned() -> None:
    many = [failure(at=at) for at in range(9)]
    assert judged(many, trusted=("203.0.113.0/24",)) == []
    assert judged(many, trusted=("203.0.113.9",)) == []
    assert judged(many, trusted=("2001:db8::/32",)) == [("ssh", "203.0.113.9")]
    assert judged([failure("127.0.0.1", at=at) for at in range(9)]) == []
    # A host of the fleet that has an address in this /64.
    assert judged([failure("2001:db8:1:2::", at=at) for at in range(9)], trusted=("2001:db8:1:2::30",)) == []


def test_who_has_logged_in_is_not_banned_for_a_day() -> None:
    line = "Accepted publickey for admin from 203.0.113.9 port 4000 ssh2: ED25519-CERT SHA256:x ID k (serial 0) CA y"
    accepted = bans.event(SSHD, line, 50.0)
    assert accepted == bans.Event("accepted", "203.0.113.9", 50.0)
    state = bans.State()
    many = [failure(at=at) for at in range(9)]
    # Even where the failures stand before the login.
    assert judged([*many, accepted], state=state) == []
    assert judged([failure(at=at) for at in (60, 61, 62)], state=state) == []
    later = 50.0 + bans.ACCEPTED_FOR
    judged([], state=state, now=later)
    assert judged([failure(at=later + at) for at in (1, 2, 3)], state=state, now=later + 3) == [("ssh", "203.0.113.9")]


def test_what_is_remembered_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bans, "MAX_SOURCES", 10)
    state = bans.State()
    judged([failure(f"203.0.113.{n}", at=n) for n in range(50)], state=state)
    assert sorted(state.failures["ssh"]) == [f"203.0.113.{n}" for n in range(40, 50)]
    judged([], state=state, now=10_000)
    assert state.failures == {"ssh": {}}


def test_a_kind_that_is_switched_off_is_forgotten() -> None:
    state = bans.State(failures={"login": {"203.0.113.9": [(1.0, "")]}})
    assert bans.judge(state, [failure(kind="login", at=2)], {"ssh": LIMITS["ssh"]}, (), 3.0) == []
    assert "login" not in state.failures


def test_a_clock_that_goes_back_does_not_keep_failures_for_ever() -> None:
    state = bans.State(failures={"ssh": {"203.0.113.9": [(9000.0, "1")]}}, accepted={"203.0.113.8": 9000.0})
    judged([], state=state, now=100.0)
    assert (state.failures, state.accepted) == ({"ssh": {}}, {})


def entry(message: Any, cursor: str = "c1", identifier: str = SSHD) -> str:
    fields = {"__CURSOR": cursor, "__REALTIME_TIMESTAMP": "2000000", "MESSAGE": message}
    return json.dumps({**fields, "SYSLOG_IDENTIFIER": identifier})


def test_the_journals_lines() -> None:
    state = bans.State()
    message = "Invalid user x from 203.0.113.9 port 1"
    lines = [entry(message, "c1"), entry(list(message.encode() + b"\xff"), "c2"), entry(None, "c3"), entry("", "c4")]
    found = list(bans.parse(lines, state))
    assert [event.source for event in found] == ["203.0.113.9"]
    assert found[0].at == 2.0
    assert state.cursor == "c4"


def test_the_state_is_read_back_as_it_was_written(tmp_path: Path) -> None:
    state = bans.State()
    judged([failure(at=1, connection="7"), failure("203.0.113.1", at=2, kind="accepted")], state=state)
    state.cursor = "c"
    state.save(tmp_path / "state.json")
    assert bans.State.load(tmp_path / "state.json") == state
    assert bans.State.load(tmp_path / "none.json") == bans.State()


def test_what_nft_is_told() -> None:
    text = bans.additions([("ssh", "203.0.113.9"), ("login", "2001:db8::")], LIMITS)
    assert text.splitlines() == [
        "add element inet selfhost_bans ssh_v4 { 203.0.113.9 timeout 3600s }",
        "add element inet selfhost_bans login_v6 { 2001:db8:: timeout 300s }",
    ]
