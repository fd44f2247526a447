"""A test host: made, driven and removed through the engine, reached over SSH as its users would."""

from __future__ import annotations

import contextlib
import json
import re
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from . import keys
from .engine import Completed, TestbedError, docker, ensure_engine, run
from .image import DEFAULT_OS, USER, image
from .network import LABEL, NETWORK, ensure_network, pick_addresses

BOOT_TIMEOUT = 90  # seconds; a host takes one or two, unless the machine is busy
# What systemd needs of the engine. --privileged would be more than many machines can give.
SYSTEMD_OPTIONS = (
    "--cap-add=SYS_ADMIN",
    "--cap-add=NET_ADMIN",
    "--cap-add=SYS_PTRACE",
    "--security-opt=seccomp=unconfined",
    "--security-opt=apparmor=unconfined",
    "--security-opt=systempaths=unconfined",
    "--tmpfs=/run",
    "--tmpfs=/run/lock",
    "--tmpfs=/tmp:exec",
    "--stop-signal=SIGRTMIN+3",
)


@dataclass(frozen=True, kw_only=True)
class Host:
    name: str
    os: str
    address: str
    address_v6: str

    @property
    def container(self) -> str:
        return f"fleet-{self.name}"

    # Life

    @classmethod
    def create(
        cls, name: str, *, os: str = DEFAULT_OS, publish: Sequence[str] = (), apt_cache: bool = True, tag: str = ""
    ) -> Host:
        """A host that has booted and answers over SSH; `tag` is another image than a fresh one of this release."""
        if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,50}", name):
            raise TestbedError(f"{name!r} is no name for a host: use small letters, digits and hyphens")
        tag = tag or image(os)
        host = cls._start_container(name, os=os, tag=tag, publish=publish, apt_cache=apt_cache)
        try:
            host.put(f"/home/{USER}/.ssh/authorized_keys", keys.public_key(), mode="0600", owner=f"{USER}:{USER}")
            host.wait()
        except BaseException:
            host.remove()
            raise
        return host

    @classmethod
    def _start_container(cls, name: str, *, os: str, tag: str, publish: Sequence[str], apt_cache: bool) -> Host:
        subnet, subnet_v6 = ensure_network()
        while True:
            address, address_v6 = pick_addresses(subnet, subnet_v6, {host.address for host in hosts()})
            host = cls(name=name, os=os, address=address, address_v6=address_v6)
            options = [f"--name={host.container}", f"--hostname={name}", f"--network-alias={name}"]
            options += [f"--label={LABEL}=1", f"--label={LABEL}.os={os}", f"--env=TESTBED_NAME={name}"]
            options += [f"--network={NETWORK}", f"--ip={address}", *([f"--ip6={address_v6}"] if address_v6 else [])]
            options += [f"--publish={port}" for port in publish]
            if apt_cache:
                options.append(f"--mount=type=volume,src={_apt_volume(os)},dst=/var/cache/testbed")
            started = docker("run", "--detach", *SYSTEMD_OPTIONS, *options, tag, check=False)
            if started.returncode == 0:
                return host
            if "is already in use by container" in started.stderr:
                raise TestbedError(f"there is a host {name} already; remove it with: testbed.py down {name}")
            docker("rm", "--force", "--volumes", host.container, check=False)
            if "Address already in use" not in started.stderr:
                raise TestbedError(f"host {name} does not start: {started.stderr.strip()}")

    def wait(self, timeout: float = BOOT_TIMEOUT) -> str:
        """Wait until systemd has booted and SSH answers; says `running`, or `degraded` when a unit has failed."""
        deadline = time.monotonic() + timeout
        while (state := self.state()) not in ("running", "degraded"):
            if time.monotonic() > deadline or not self.is_up():
                logs = docker("logs", "--tail=30", self.container, check=False)
                raise TestbedError(f"host {self.name} does not boot: {state}\n{logs.stdout}{logs.stderr}")
            time.sleep(0.1)
        host_keys = self.root("cat /etc/ssh/ssh_host_*_key.pub").stdout
        keys.write_known_hosts(self.name, [self.address, *([self.address_v6] if self.address_v6 else [])], host_keys)
        while (answer := self.ssh("true", check=False)).returncode != 0:
            if time.monotonic() > deadline:
                raise TestbedError(f"host {self.name} does not answer over SSH: {answer.stderr.strip()}")
            time.sleep(0.1)
        return state

    def state(self) -> str:
        """systemd's own word: starting, running, degraded, ...; empty while it does not answer."""
        return docker("exec", self.container, "systemctl", "is-system-running", check=False).stdout.strip()

    def is_up(self) -> bool:
        return docker("inspect", "--format={{.State.Running}}", self.container, check=False).stdout.strip() == "true"

    def restart(self) -> str:
        """A reboot: an orderly shutdown and a boot; the address stays, /run and /tmp are empty."""
        docker("restart", "--time=30", self.container)
        return self.wait()

    def kill(self) -> None:
        """The power goes: no process is told."""
        docker("kill", self.container)

    def start(self) -> str:
        """The power comes back."""
        docker("start", self.container)
        return self.wait()

    def pause(self) -> None:
        """Every process stands still: connections stay open, and nobody answers."""
        docker("pause", self.container)

    def unpause(self) -> None:
        docker("unpause", self.container)

    def remove(self) -> None:
        """Nothing of the host stays but the packages that it downloaded."""
        tag = docker("inspect", "--format={{.Config.Image}}", self.container, check=False).stdout.strip()
        docker("rm", "--force", "--volumes", self.container)
        keys.known_hosts(self.name).unlink(missing_ok=True)
        volume = _apt_volume(self.os)
        if tag and docker("volume", "inspect", volume, check=False).returncode == 0:
            give_back = (
                'cd "/cache/hosts/$1" && find . -maxdepth 1 -name "*.deb" '
                "-exec cp --link --no-clobber --target-directory=/cache/pool {} + && rm -r $PWD"
            )
            script = f'test ! -d "/cache/hosts/$1" || {{ {give_back}; }}'
            mount = f"--mount=type=volume,src={volume},dst=/cache"
            docker("run", "--rm", "--network=none", mount, tag, "sh", "-c", script, "give-back", self.name)

    # Work

    def root(
        self,
        command: str | Sequence[str],
        *,
        stdin: str | bytes | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Completed:
        """Run as root through the engine: works with SSH or the network broken. A string is a shell script."""
        argv = ["sh", "-ec", command] if isinstance(command, str) else list(command)
        interactive = ["--interactive"] if stdin is not None else []
        return docker("exec", *interactive, self.container, *argv, stdin=stdin, check=check, timeout=timeout)

    def ssh(
        self,
        command: str,
        *,
        stdin: str | bytes | None = None,
        check: bool = True,
        timeout: float | None = None,
    ) -> Completed:
        """Run as the unprivileged user (who may use sudo), as an operator would."""
        argv = [*keys.ssh_command(self.name, self.address), command]
        return run(argv, stdin=stdin, check=check, timeout=timeout)

    def put(self, path: str, content: str | bytes, *, mode: str = "0644", owner: str = "root:root") -> None:
        """Write a file. `docker cp` is not used: into /run or /tmp it writes below the tmpfs, unseen."""
        quoted = shlex.quote(path)
        self.root(
            f"mkdir -p $(dirname {quoted}); umask 077; cat > {quoted}; chown {owner} {quoted}; chmod {mode} {quoted}",
            stdin=content,
        )

    def read(self, path: str) -> str:
        return self.root(["cat", path]).stdout

    def variables(self) -> dict[str, Any]:
        """What an inventory says of this host."""
        return {
            "ansible_host": self.address,
            "ansible_user": USER,
            "ansible_ssh_private_key_file": str(keys.PRIVATE_KEY),
            "ansible_ssh_common_args": shlex.join(keys.ssh_options(self.name)),
            "fleet_os": self.os,
        }


def hosts() -> list[Host]:
    """Every host of the test bed on this engine, up or not."""
    ensure_engine()
    found = []
    identifiers = docker("ps", "--all", "--quiet", f"--filter=label={LABEL}=1").stdout.split()
    for identifier in identifiers:
        # One by one: a host may be gone before it is asked about.
        with contextlib.suppress(TestbedError, KeyError):
            details = json.loads(docker("inspect", identifier).stdout)[0]
            fixed = details["NetworkSettings"]["Networks"][NETWORK]["IPAMConfig"]
            found.append(
                Host(
                    name=details["Name"].removeprefix("/fleet-"),
                    os=details["Config"]["Labels"][f"{LABEL}.os"],
                    address=fixed["IPv4Address"],
                    address_v6=fixed.get("IPv6Address", ""),
                )
            )
    return sorted(found, key=lambda host: host.name)


def find(name: str) -> Host:
    for host in hosts():
        if host.name == name:
            return host
    raise TestbedError(f"there is no host {name}; see: testbed.py list")


def _apt_volume(os: str) -> str:
    return f"fleet-testbed-apt-{os}"
