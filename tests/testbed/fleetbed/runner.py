"""Ansible against test hosts: the checkout's collection, run as its users run it, with the results as data."""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from . import built_modules, forked
from .engine import TestbedError
from .host import Host
from .paths import REPOSITORY, TESTBED

RUN_TIMEOUT = 900  # seconds
# What looks for failed logins every five seconds costs each host 2 % of a core; with four files at a time that is a tenth of two.
QUIET = {"bans_interval": 600}


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a task came to on a host. `status`: ok, failed, ignored, skipped or unreachable."""

    host: str
    task: str
    status: str
    result: dict[str, Any]

    @property
    def changed(self) -> bool:
        return bool(self.result.get("changed", False))


@dataclass(frozen=True, kw_only=True)
class Run:
    """A whole run: its exit status, what it printed, and every outcome in the order in which they came."""

    returncode: int
    output: str
    outcomes: tuple[Outcome, ...]

    @property
    def changed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.changed]

    @property
    def failed(self) -> list[Outcome]:
        return [outcome for outcome in self.outcomes if outcome.status in ("failed", "unreachable")]

    def of(self, task: str, host: str | None = None) -> Outcome:
        """The last outcome of a task, by its name."""
        for outcome in reversed(self.outcomes):
            if outcome.task == task and host in (None, outcome.host):
                return outcome
        raise TestbedError(f"no outcome of the task {task!r} in this run:\n{self.output}")


@dataclass(frozen=True, kw_only=True)
class Running:
    """A run that goes on, in a session of its own."""

    command: Sequence[str]
    process: subprocess.Popen[bytes] | forked.Forked
    results: Path
    printed: Path
    reader: threading.Thread | None = None  # of the terminal that it has

    @property
    def outcomes(self) -> tuple[Outcome, ...]:
        """Those that there are by now."""
        lines = self.results.read_text().splitlines(keepends=True)
        return tuple(Outcome(**json.loads(line)) for line in lines if line.endswith("\n"))

    def end(self, *, timeout: float) -> Run:
        """Wait for its end; one that does not come, and an interrupted wait, end it."""
        try:
            returncode = self.process.wait(timeout)
        except BaseException:
            self.kill()
            raise
        if self.reader:
            self.reader.join()
        return Run(returncode=returncode, output=self.printed.read_text(), outcomes=self.outcomes)

    def kill(self) -> None:
        """The controller is gone between two of its instructions; nobody is told, nothing is cleared up."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


class Ansible:
    """Runs playbooks and modules; inventories, playbooks and results lie in `folder`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = Path(sys.executable).parent / "ansible-playbook"
        if not self.program.exists():
            raise TestbedError(f"{self.program} is missing: run the tests with the environment of requirements-dev.txt")
        collection = REPOSITORY / ".cache" / "collections" / "ansible_collections" / "selfhost" / "fleet"
        if not (collection / "galaxy.yml").exists():
            raise TestbedError(f"{collection} is missing: it is a link to the checkout, made by `make`")
        self._numbers = itertools.count(1)

    def playbook(
        self,
        playbook: Path | str | Sequence[Mapping[str, Any]],
        hosts: Sequence[Host],
        *,
        groups: Mapping[str, Sequence[Host]] | None = None,
        variables: Mapping[str, Any] | None = None,
        options: Sequence[str] = (),
        check: bool = False,
        diff: bool = False,
        terminal: bool = False,
        expect_failure: bool = False,
    ) -> Run:
        """Run a playbook: a file, or plays as data. A failure is an error, unless it is what the test expects."""
        running = self.start(
            playbook,
            hosts,
            groups=groups,
            variables=variables,
            options=options,
            check=check,
            diff=diff,
            terminal=terminal,
        )
        run = running.end(timeout=RUN_TIMEOUT)
        if (run.returncode != 0) != expect_failure:
            words = "succeeded, which was not expected" if expect_failure else f"failed ({run.returncode})"
            raise AssertionError(f"{' '.join(running.command)}: {words}\n{run.output}")
        return run

    def start(
        self,
        playbook: Path | str | Sequence[Mapping[str, Any]],
        hosts: Sequence[Host],
        *,
        groups: Mapping[str, Sequence[Host]] | None = None,
        variables: Mapping[str, Any] | None = None,
        options: Sequence[str] = (),
        check: bool = False,
        diff: bool = False,
        terminal: bool = False,
    ) -> Running:
        """Begin a run, and come back while it goes on. With `terminal` its output goes to one, 120 wide."""
        number = next(self._numbers)
        if not isinstance(playbook, (Path, str)):
            plays = self.folder / f"playbook-{number}.json"
            plays.write_text(json.dumps(playbook))
            playbook = plays
        inventory = self.folder / f"inventory-{number}.json"
        inventory.write_text(json.dumps(self.inventory(hosts, groups or {}, variables or {}), indent=1))
        results = self.folder / f"results-{number}.jsonl"
        results.touch()
        command = [str(self.program), "--inventory", str(inventory), str(playbook), *options]
        command += [*(["--check"] if check else []), *(["--diff"] if diff else [])]
        environment = {
            **os.environ,
            "ANSIBLE_CONFIG": str(REPOSITORY / "ansible.cfg"),
            "ANSIBLE_CALLBACK_PLUGINS": str(TESTBED / "callback"),
            "ANSIBLE_CALLBACKS_ENABLED": "selfhost.fleet.preload,testbed_results",
            "ANSIBLE_NOCOLOR": "1",
            "TESTBED_RESULTS": str(results),
            "TESTBED_MODULES": built_modules.folder(),
        }
        output = self.folder / f"output-{number}.txt"
        reader = None
        process: subprocess.Popen[bytes] | forked.Forked
        with contextlib.ExitStack() as stack:
            if terminal:
                # What it shows depends on the terminal that it begins with.
                reader, file = _terminal(output, stack)
                environment["TERM"] = "xterm"
                process = subprocess.Popen(
                    command,
                    cwd=REPOSITORY,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
            else:
                file = stack.enter_context(output.open("wb")).fileno()
                process = forked.start(command, cwd=REPOSITORY, env=environment, output=file)
        return Running(command=command, process=process, results=results, printed=output, reader=reader)

    def module(
        self,
        name: str,
        arguments: Mapping[str, Any],
        host: Host,
        *,
        check: bool = False,
        diff: bool = False,
        expect_failure: bool = False,
        task: Mapping[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Call one module (or action plugin) on one host, and give its result. `task`: further keywords of the task."""
        play = {
            "hosts": "all",
            "gather_facts": False,
            "tasks": [{"name": name, name: dict(arguments), **(task or {})}],
        }
        run = self.playbook([play], [host], check=check, diff=diff, expect_failure=expect_failure)
        return run.of(name).result

    @staticmethod
    def inventory(
        hosts: Sequence[Host], groups: Mapping[str, Sequence[Host]], variables: Mapping[str, Any]
    ) -> dict[str, Any]:
        members: dict[str, Any] = {name: {"hosts": {host.name: {} for host in group}} for name, group in groups.items()}
        return {
            "all": {
                "hosts": {host.name: host.variables() for host in hosts},
                "vars": {"ansible_become": True, **QUIET, **variables},
                "children": members,
            }
        }


def _terminal(output: Path, stack: contextlib.ExitStack) -> tuple[threading.Thread, int]:
    """One whose text goes into the file until nobody holds it any more; the side for a program, which `stack` closes."""
    ours, theirs = pty.openpty()
    stack.callback(os.close, theirs)
    termios.tcsetwinsize(theirs, (40, 120))

    def copy() -> None:
        with output.open("ab", buffering=0) as file, contextlib.suppress(OSError):  # EIO is its end
            while text := os.read(ours, 65536):
                file.write(text)
        os.close(ours)

    reader = threading.Thread(target=copy, daemon=True)
    reader.start()
    return reader, theirs
