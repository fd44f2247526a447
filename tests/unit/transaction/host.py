"""A host in a folder: files are real, systemd is a few lines that remember what they were told."""

from __future__ import annotations

import grp
import os
import pwd
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.engine import Outcome, Transaction
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import Difference, SetSpec
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.units import Units

USER = pwd.getpwuid(os.getuid()).pw_name
GROUP = grp.getgrgid(os.getgid()).gr_name


@dataclass
class FakeUnit:
    active: str = "inactive"
    enabled: str = "disabled"
    kind: str = "notify"
    can_reload: str = "yes"
    restarts: int = 0
    result: str = "exit-code"
    ends: str = "inactive"  # what a stop makes of it
    remain: str = "no"

    def show(self, name: str) -> str:
        return (
            f"Id={name}\nLoadState=loaded\nActiveState={self.active}\nSubState=x\nUnitFileState={self.enabled}\n"
            f"Type={self.kind}\nRemainAfterExit={self.remain}\nResult={self.result}\nCanReload={self.can_reload}\n"
            f"NRestarts={self.restarts}\n"
        )


@dataclass
class FakeHost:
    """The runner, the sandbox and the prober in one. `refuse` says which commands fail, and with which words."""

    root: Path
    units: dict[str, FakeUnit] = field(default_factory=dict)
    installed: set[str] = field(default_factory=lambda: {"systemctl", "check", "apply"})
    calls: list[tuple[str, ...]] = field(default_factory=list)
    refuse: Callable[[tuple[str, ...]], str | None] = lambda _argv: None
    probe: Callable[[Mapping[str, Any]], tuple[bool, str]] = lambda _options: (True, "answers")
    holder: Callable[[Mapping[str, Any]], tuple[str, str] | None] = lambda _options: None
    validated: list[Difference] = field(default_factory=list)

    # the runner

    def which(self, executable: str) -> str | None:
        return f"/usr/bin/{executable}" if executable in self.installed else None

    def run(
        self,
        argv: Sequence[str],
        *,
        timeout: float | None = None,
        stdin: str | None = None,
        env: Mapping[str, str] | None = None,
    ) -> CommandResult:
        del timeout, stdin, env
        command = tuple(argv)
        self.calls.append(command)
        words = self.refuse(command)
        if words is not None:
            return CommandResult(command, 1, stderr=words)
        if command == ("journalctl", "--sync"):
            return CommandResult(command, 0)
        if command[0] == "journalctl":
            return CommandResult(command, 0, stdout=f"{command[2]} said: no such port\n")
        if command[0] == "systemctl":
            return CommandResult(command, 0, stdout=self._systemctl(command))
        return CommandResult(command, 0)

    def _systemctl(self, command: tuple[str, ...]) -> str:
        if command[1] == "show":
            names = command[command.index("--") + 1 :]
            return "\n".join(
                self.units[name].show(name)
                if name in self.units
                else f"Id={name}\nLoadState=not-found\nActiveState=inactive\n"
                for name in names
            )
        if command[1] == "list-units":
            stem = command[-1].partition("*")[0]
            return "".join(f"{name} loaded active running x\n" for name in self.units if name.startswith(stem))
        if command[1] in ("daemon-reload", "reset-failed"):
            return ""
        step, names = command[2], command[command.index("--") + 1 :]
        for name in names:
            unit = self.units.setdefault(name, FakeUnit())
            if step in ("start", "restart"):
                unit.active = "active"
            elif step == "stop":
                unit.active = unit.ends
            elif step == "reset-failed":
                unit.active = "inactive"
            elif step in ("enable", "disable"):
                unit.enabled = f"{step}d"
        return ""

    @property
    def steps(self) -> list[str]:
        """What was asked of systemd, without questions."""
        asked = [call for call in self.calls if call[0] == "systemctl" and call[1] in ("--quiet", "daemon-reload")]
        return [call[1] if call[1] == "daemon-reload" else f"{call[2]} {' '.join(call[4:])}" for call in asked]

    # the sandbox

    def validate(
        self, difference: Difference, commands: Sequence[Sequence[str]], timeout: float
    ) -> list[CommandResult]:
        self.validated.append(difference)
        return [self.run(argv, timeout=timeout) for argv in commands]

    # the host

    def put(self, path: str, content: str, mode: int = 0o644) -> Path:
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(mode)
        return target

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    def tree(self, folder: str = "/etc") -> dict[str, tuple[str, int]]:
        """Every file and folder below one, with content and mode: what must be as before after a failure."""
        found: dict[str, tuple[str, int]] = {}
        for path in sorted(self.at(folder).rglob("*")):
            facts = path.lstat()
            content = f"-> {path.readlink()}" if path.is_symlink() else "/" if path.is_dir() else path.read_text()
            found["/" + str(path.relative_to(self.root))] = (content, facts.st_mode & 0o7777)
        return found

    def transaction(self, **params: Any) -> Transaction:
        now = [0.0]

        def sleep(seconds: float) -> None:
            now[0] += seconds

        mine = {"owner": USER, "group": GROUP}
        for kind in ("files", "directories"):
            params[kind] = [{**mine, **entry} for entry in params.get(kind, [])]
        spec = SetSpec.from_params({"name": "set", "timeout": 5, **params})
        units = Units(self, timeout=5, sleep=sleep, clock=lambda: now[0])
        return Transaction(
            spec, runner=self, sandbox=self, prober=self.probe, holder=self.holder, root=self.root, units=units
        )

    def apply(self, *, check: bool = False, **params: Any) -> Outcome:
        return self.transaction(**params).run(check=check)

    @property
    def leftovers(self) -> list[str]:
        """Temporary files and journals: none after any run."""
        names = [str(path) for path in self.root.rglob("*.selfhost-*")]
        return names + [str(path) for path in self.at("/var/lib/selfhost/transactions").glob("*/*")]
