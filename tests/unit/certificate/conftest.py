"""A host in a temporary folder, whose openssl is the real one."""

from __future__ import annotations

import datetime
import grp
import os
import pwd
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate import authority, host

NOW = datetime.datetime(2030, 1, 15, 12, tzinfo=datetime.UTC)


class Runner:
    """Runs openssl for real, and plays systemctl."""

    def __init__(self) -> None:
        self.active: set[str] = set()
        self.broken: set[str] = set()
        self.reloaded: list[str] = []
        self.calls = 0

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        self.calls += 1
        if command[0] != "systemctl":
            # Certificates of these tests begin in 2030, whatever the day is.
            extra = ["-attime", str(int(NOW.timestamp()))] if command[1] == "verify" else []
            line = [*command[:2], *extra, *command[2:]]
            return subprocess.run(line, capture_output=True, text=True, check=False)
        unit = command[-1]
        if command[1] == "is-active":
            return subprocess.CompletedProcess(command, 0 if unit in self.active else 3, "", "")
        self.reloaded.append(unit)
        return subprocess.CompletedProcess(command, 1 if unit in self.broken else 0, "", "it said no")


@pytest.fixture
def runner() -> Runner:
    return Runner()


@pytest.fixture
def wanted(tmp_path: Path) -> Callable[..., host.Wanted]:
    """A certificate of the plan, owned by whoever runs the tests."""

    def make(ca: str = "", **changes: Any) -> host.Wanted:
        entry = {
            "name": "api",
            "domains": ["api.example.com"],
            "addresses": ["2001:db8::1"],
            "mode": "local_ca",
            "directory": str(tmp_path / "tls" / "api"),
            "owner": pwd.getpwuid(os.getuid()).pw_name,
            "group": grp.getgrgid(os.getgid()).gr_name,
            "reload": ["nginx.service"],
            **changes,
        }
        return host.Wanted.of(entry, authority=ca)

    return make


@pytest.fixture
def ca(tmp_path: Path) -> authority.Authority:
    return authority.Authority(tmp_path / "ca", passphrase=None, now=NOW)


@pytest.fixture
def machine(runner: Runner) -> Callable[..., host.Host]:
    def make(*, dry_run: bool = False, days_later: float = 0, openssl: str = "/usr/bin/openssl") -> host.Host:
        return host.Host(
            runner,
            openssl=host.Openssl(runner, binary=openssl),
            now=lambda: NOW.timestamp() + days_later * host.DAY,
            renew_before=30,
            dry_run=dry_run,
        )

    return make
