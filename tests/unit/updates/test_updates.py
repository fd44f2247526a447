"""Package updates: what apt would do, whom it concerns, and that no more is restarted than has to be."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.packages import PackagesError
from ansible_collections.selfhost.fleet.plugins.module_utils.updates import boot, stale
from ansible_collections.selfhost.fleet.plugins.module_utils.updates.host import HostUpdates, UpdatesError
from ansible_collections.selfhost.fleet.plugins.module_utils.updates.upgrade import Upgrade, Upgrader, parse

SIMULATED = """\
Reading package lists...
The following packages have been kept back:
  nginx nginx-common
  redis
The following packages will be upgraded:
  libssl3t64 tzdata
Inst libssl3t64 [3.5.1-1] (3.5.1-1+deb13u1 Debian:13.1/stable, Debian-Security:13/stable-security [amd64]) []
Inst tzdata [2025a-1] (2025b-1 Debian:13.1/stable [all])
Inst linux-image-6.12.48+deb13-amd64 (6.12.48-1 Debian:13.1/stable [amd64])
Conf libssl3t64 (3.5.1-1+deb13u1 Debian:13.1/stable [amd64])
"""
OPENSSL, TZDATA, KERNEL = (
    Upgrade("libssl3t64", "3.5.1-1", "3.5.1-1+deb13u1", security=True),
    Upgrade("tzdata", "2025a-1", "2025b-1", security=False),
    Upgrade("linux-image-6.12.48+deb13-amd64", "", "6.12.48-1", security=False),
)
LIBSSL = "/usr/lib/x86_64-linux-gnu/libssl.so.3"
CODE = f"7f3c1000-7f3d2000 r-xp 00028000 fe:01 131   {LIBSSL}"
GONE = f"{CODE} (deleted)\n"


class FakeHost:
    """apt-get and systemctl; what they were asked is in `ran`."""

    def __init__(self, simulated: str = SIMULATED, states: str = "", **failing: CommandResult) -> None:
        self.simulated, self.states, self.failing = simulated, states, failing
        self.ran: list[list[str]] = []

    def run(self, argv: Any, **_: Any) -> CommandResult:
        self.ran.append(list(argv))
        for word, result in self.failing.items():
            if word in argv:
                return result
        if "--simulate" in argv:
            return CommandResult(tuple(argv), 0, self.simulated)
        if argv[:2] == ["systemctl", "show"]:
            return CommandResult(tuple(argv), 0, "" if "postgresql@*.service" in argv else self.states)
        return CommandResult(tuple(argv), 0)

    def which(self, executable: str) -> str | None:
        return executable

    def did(self, *words: str) -> list[list[str]]:
        return [argv for argv in self.ran if set(words) <= set(argv)]


def updates(host: FakeHost, tmp_path: Path, *processes: stale.Process, security: bool = False) -> HostUpdates:
    def found(_proc: Path, replaced: Collection[str]) -> list[stale.Process]:
        return list(processes)

    return HostUpdates(host, Upgrader(host), "6.12.48+deb13-amd64", security=security, root=tmp_path, processes=found)


def shown(*names: str, **properties: str) -> str:
    defaults = {"ActiveState": "active", "KillMode": "control-group", "MainPID": "7"}
    lines = "\n".join(f"{name}={value}" for name, value in {**defaults, **properties}.items())
    return "\n\n".join(f"Id={name}\n{lines}" for name in names)


# What apt would do


def test_a_simulation_is_read() -> None:
    found = parse(SIMULATED)
    assert found.upgrades == [OPENSSL, TZDATA, KERNEL]
    assert found.kept_back == ["nginx", "nginx-common", "redis"]


def test_nothing_to_upgrade() -> None:
    assert parse("Reading package lists...\n0 upgraded, 0 newly installed.\n").upgrades == []


def test_all_in_one_transaction_that_removes_nothing(tmp_path: Path) -> None:
    host = FakeHost()
    assert updates(host, tmp_path).apply().upgrades == [OPENSSL, TZDATA, KERNEL]
    (done,) = host.did("apt-get", "--yes")
    assert done[1:3] == ["upgrade", "--with-new-pkgs"]
    assert "Dpkg::Options::=--force-confold" in done


def test_security_takes_what_debian_calls_so(tmp_path: Path) -> None:
    host = FakeHost()
    assert updates(host, tmp_path, security=True).apply().upgrades == [OPENSSL]
    (done,) = host.did("apt-get", "--yes")
    assert done[1:3] == ["install", "--only-upgrade"]
    assert done[-1] == "libssl3t64"
    assert "tzdata" not in done


def test_apt_installs_nothing_where_there_is_nothing(tmp_path: Path) -> None:
    host = FakeHost("")
    outcome = updates(host, tmp_path).apply()
    assert not outcome.changed
    assert host.did("apt-get", "--yes") == []


def test_a_host_that_is_only_looked_at_keeps_its_lists(tmp_path: Path) -> None:
    lists = tmp_path / "var" / "lib" / "apt" / "lists"
    lists.mkdir(parents=True)
    (lists / "deb.test_InRelease").write_text("as it was")
    host = FakeHost()
    assert updates(host, tmp_path).survey(touch=False).upgrades == [OPENSSL, TZDATA, KERNEL]
    for argv in host.did("apt-get"):
        option = next(word for word in argv if word.startswith("Dir::State::Lists="))
        assert not option.endswith(str(lists))
    assert [path.name for path in lists.iterdir()] == ["deb.test_InRelease"]
    assert host.did("--yes") == []


def test_a_simulation_that_fails_says_so(tmp_path: Path) -> None:
    broken = CommandResult((), 100, "", "E: Unmet dependencies.")
    with pytest.raises(PackagesError, match="E: Unmet dependencies"):
        updates(FakeHost(**{"--simulate": broken}), tmp_path).survey(touch=True)


# Whom it concerns


def process(tmp_path: Path, pid: int, maps: str, groups: str) -> Path:
    folder = tmp_path / "proc" / str(pid)
    folder.mkdir(parents=True)
    (folder / "maps").write_text(maps)
    (folder / "cgroup").write_text(groups)
    return tmp_path / "proc"


def test_what_is_mapped_and_gone_is_found(tmp_path: Path) -> None:
    process(tmp_path, 7, GONE, "0::/system.slice/nginx.service\n")
    process(tmp_path, 8, CODE + "\n", "0::/system.slice/other.service\n")
    (tmp_path / "proc" / "self").mkdir()
    (tmp_path / "proc" / "9").mkdir()  # it ended while it was looked at
    assert stale.processes(tmp_path / "proc") == [stale.Process(7, "nginx.service", frozenset({LIBSSL}))]


@pytest.mark.parametrize(
    "line",
    [
        "7f00-7f01 r--p 00000000 fe:01 131   /usr/share/locale/locale-archive (deleted)",
        "7f00-7f01 rw-s 00000000 00:01 42    /dev/zero (deleted)",
        "7f00-7f01 r-xp 00000000 00:01 43    /memfd:pgjit (deleted)",
        "7f00-7f01 r-xp 00000000 fe:01 131   /opt/fluxbase/server/releases/1/program (deleted)",
        "7f00-7f01 r-xp 00000000 00:00 0     [vdso]",
    ],
    ids=["data", "shared memory", "code made at run time", "a release of ours", "the kernel's"],
)
def test_what_is_no_code_of_a_package_does_not_count(tmp_path: Path, line: str) -> None:
    assert stale.processes(process(tmp_path, 7, line + "\n", "0::/system.slice/a.service\n")) == []


def test_what_an_upgrade_would_replace_is_foretold(tmp_path: Path) -> None:
    info = tmp_path / "info"
    info.mkdir()
    (info / "libssl3t64:amd64.list").write_text("/.\n/lib/x86_64-linux-gnu/libssl.so.3\n")
    (info / "libssl3t64-other.list").write_text("/usr/bin/other\n")
    files = stale.files_of(["libssl3t64"], info)
    assert LIBSSL in files
    assert "/usr/bin/other" not in files
    proc = process(tmp_path, 7, CODE + "\n", "0::/system.slice/nginx.service\n")
    assert [found.unit for found in stale.processes(proc, files)] == ["nginx.service"]


@pytest.mark.parametrize(
    ("groups", "unit"),
    [
        ("0::/system.slice/system-postgresql.slice/postgresql@17-main.service\n", "postgresql@17-main.service"),
        ("12:cpu:/a\n1:name=systemd:/system.slice/nginx.service\n0::/system.slice/nginx.service\n", "nginx.service"),
        ("0::/user.slice/user-1000.slice/user@1000.service/app.slice/a.service\n", "user@1000.service"),
        ("0::/user.slice/user-1000.slice/session-3.scope\n", "session-3.scope"),
        ("0::/init.scope\n", "init.scope"),
        ("1:name=systemd:/\n0::/system.slice/nginx.service\n", "nginx.service"),
        ("0::/\n", ""),
    ],
)
def test_the_unit_of_a_process(groups: str, unit: str) -> None:
    assert stale.unit_of(groups) == unit


# What is restarted


def using(unit: str, pid: int = 7) -> stale.Process:
    return stale.Process(pid, unit, frozenset({LIBSSL}))


def judged(*units: str, **properties: str) -> stale.Stale:
    return stale.judge([using(unit) for unit in units], stale.properties(shown(*units, **properties)))


def test_the_database_first_and_the_way_in_last() -> None:
    wanted = ["postgresql@17-main.service", "pgbouncer.service", "a.service", "nginx.service", "ssh.service"]
    assert list(judged(*reversed(wanted)).restart) == wanted


@pytest.mark.parametrize("unit", ["dbus.service", "user@1000.service", "docker.service", "systemd-logind.service"])
def test_what_others_would_lose_is_left_with_the_reason(unit: str) -> None:
    found = judged(unit)
    assert found.restart == {}
    assert found.leave[unit]


def test_sessions_are_no_units_to_restart() -> None:
    assert judged("session-3.scope", "") == stale.Stale()


def test_what_does_not_run_as_a_whole_is_left() -> None:
    assert judged("a.service", ActiveState="deactivating").restart == {}
    assert judged("run-1.service", Transient="yes").restart == {}


def test_what_outlives_a_restart_is_no_reason_for_one() -> None:
    """Sessions over SSH stay with the former files for as long as they last, this one among them."""
    states = stale.properties(shown("ssh.service", KillMode="process", MainPID="7"))
    assert stale.judge([using("ssh.service", 99)], states) == stale.Stale()
    assert list(stale.judge([using("ssh.service", 7)], states).restart) == ["ssh.service"]


def test_only_who_uses_what_is_gone_is_restarted(tmp_path: Path) -> None:
    host = FakeHost("", shown("pgbouncer.service"))
    outcome = updates(host, tmp_path, using("pgbouncer.service"), using("init.scope", 1)).apply()
    assert host.did("systemctl", "restart") == [["systemctl", "restart", "--", "pgbouncer.service"]]
    assert host.did("daemon-reexec")
    assert outcome.restarts == {"pgbouncer.service": [LIBSSL]}
    assert outcome.changed


def test_nginx_takes_its_new_program_while_it_answers(tmp_path: Path) -> None:
    host = FakeHost("", shown("nginx.service", MainPID="7"))
    outcome = updates(host, tmp_path, using("nginx.service"), using("nginx.service", 8)).apply()
    assert host.ran[-2] == ["/etc/init.d/nginx", "upgrade"]
    assert list(outcome.restarts) == ["nginx.service"]
    # Its former workers stay for as long as their WebSockets do.
    assert stale.judge([using("nginx.service", 8)], stale.properties(shown("nginx.service"))) == stale.Stale()


def test_a_unit_that_does_not_come_back_is_named(tmp_path: Path) -> None:
    refused = CommandResult((), 1, "", "Job for pgbouncer.service failed.")
    host = FakeHost(SIMULATED, shown("pgbouncer.service"), restart=refused)
    words = r"pgbouncer.service did not start again .* journalctl -u pgbouncer.service"
    with pytest.raises(UpdatesError, match=words) as caught:
        updates(host, tmp_path, using("pgbouncer.service")).apply()
    assert caught.value.done.upgrades == [OPENSSL, TZDATA, KERNEL]


# Whether it boots


def test_who_asks_for_a_boot_is_named(tmp_path: Path) -> None:
    assert boot.reasons(tmp_path, "6.12.48+deb13-amd64") == []
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "reboot-required").touch()
    assert boot.reasons(tmp_path, "6.12.48+deb13-amd64") == ["/run/reboot-required asks for it"]
    (tmp_path / "run" / "reboot-required.pkgs").write_text("libc6\ndbus\nlibc6\n")
    assert boot.reasons(tmp_path, "6.12.48+deb13-amd64") == ["/run/reboot-required asks for it (dbus, libc6)"]


def test_a_newer_kernel_wants_one(tmp_path: Path) -> None:
    (tmp_path / "boot").mkdir()
    for release in ("6.12.9+deb13-amd64", "6.12.48+deb13-amd64"):
        (tmp_path / "boot" / f"vmlinuz-{release}").touch()
    assert boot.reasons(tmp_path, "6.12.48+deb13-amd64") == []
    assert boot.reasons(tmp_path, "6.12.9+deb13-amd64") == [
        "the kernel 6.12.48+deb13-amd64 is installed, and 6.12.9+deb13-amd64 runs"
    ]


@pytest.mark.parametrize(
    ("installed", "running", "newest"),
    [
        (["6.1.0-9-amd64", "6.1.0-40-amd64"], "6.1.0-9-amd64", "6.1.0-40-amd64"),
        (["6.1.0-40-cloud-amd64"], "6.1.0-9-amd64", None),
        ([], "6.18.5", None),
        (["6.1.0-40-amd64"], "6.12.48+deb12-amd64", None),
    ],
    ids=["Debian 12", "another flavour", "a container", "one from elsewhere runs"],
)
def test_kernels_are_compared_by_their_numbers(installed: list[str], running: str, newest: str | None) -> None:
    assert boot.newer_kernel(installed, running) == newest


def test_a_kernel_that_is_to_be_installed_is_foretold(tmp_path: Path) -> None:
    found = updates(FakeHost(), tmp_path).survey(touch=True)
    assert found.reboot == ["linux-image-6.12.48+deb13-amd64 is to be installed"]
