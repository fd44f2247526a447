"""The Docker engine: the one that answers, or else one installed and started here. Never stopped from here."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from .paths import STATE, locked

ENGINE_START_TIMEOUT = 60  # seconds


class TestbedError(Exception):
    """What went wrong with the test bed, and what to do about it."""

    __test__ = False  # not a test class, whatever its name starts with


Completed = subprocess.CompletedProcess[str]


def say(text: str) -> None:
    """Progress goes to standard error: standard output is for results."""
    print(f"testbed: {text}", file=sys.stderr, flush=True)


def run(
    command: Sequence[str], *, stdin: str | bytes | None = None, check: bool = True, timeout: float | None = None
) -> Completed:
    """Run a command here; its output is text, and part of the message when it fails."""
    # Without input of its own a command gets an empty one: it must not eat the caller's.
    data = stdin.encode() if isinstance(stdin, str) else stdin or b""
    try:
        done = subprocess.run(list(command), input=data, capture_output=True, check=False, timeout=timeout)
    except subprocess.TimeoutExpired as error:
        raise TestbedError(f"{' '.join(command)}: no end after {error.timeout:.0f} s") from error
    result = Completed(
        list(command),
        done.returncode,
        done.stdout.decode(errors="replace"),
        done.stderr.decode(errors="replace"),
    )
    if check and result.returncode != 0:
        raise TestbedError(
            f"{' '.join(command)}: exit status {result.returncode}\n{result.stdout}{result.stderr}".rstrip()
        )
    return result


def docker(
    *arguments: str, stdin: str | bytes | None = None, check: bool = True, timeout: float | None = None
) -> Completed:
    return run(["docker", *arguments], stdin=stdin, check=check, timeout=timeout)


def ensure_engine() -> None:
    """Return when an engine answers."""
    problem = _problem()
    if not problem:
        return
    if not _may_install():
        raise TestbedError(
            f"no Docker engine answers ({problem}). Start one, or let this user reach it (group docker), "
            "or run this as root on Debian or Ubuntu, where one is installed and started."
        )
    with locked("engine"):
        if not _problem():
            return
        if shutil.which("dockerd") is None or shutil.which("docker") is None:
            install("docker.io")
        _start()


def ensure_program(program: str, package: str) -> None:
    if shutil.which(program) is not None:
        return
    if not _may_install():
        raise TestbedError(f"{program} is missing. Install the package {package}: apt-get install {package}")
    with locked("engine"):
        if shutil.which(program) is None:
            install(package)


def install(*packages: str) -> None:
    say(f"installing {' '.join(packages)}")
    environment = ["env", "DEBIAN_FRONTEND=noninteractive"]
    run([*environment, "apt-get", "update", "-q"])
    run([*environment, "apt-get", "install", "-qy", "--no-install-recommends", *packages])


def _problem() -> str:
    """Why no engine answers; empty when one does."""
    if shutil.which("docker") is None:
        return "there is no command docker"
    answer = docker("info", "--format", "{{.ServerVersion}}", check=False, timeout=30)
    if answer.returncode == 0 and answer.stdout.strip():
        return ""
    return (answer.stderr.strip() or answer.stdout.strip() or "no answer").splitlines()[-1]


def _may_install() -> bool:
    return os.geteuid() == 0 and Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None


def _start() -> None:
    """Start an engine that outlives this program, unless the package has started one."""
    log = STATE / "dockerd.log"
    if Path("/run/systemd/system").is_dir():
        run(["systemctl", "start", "docker.service"])
    else:
        say(f"starting dockerd; its log is {log}")
        with log.open("ab") as output:
            subprocess.Popen(
                ["dockerd"], stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True
            )
    deadline = time.monotonic() + ENGINE_START_TIMEOUT
    while problem := _problem():
        if time.monotonic() > deadline:
            raise TestbedError(f"dockerd does not answer after {ENGINE_START_TIMEOUT} s ({problem}); see {log}")
        time.sleep(0.5)
