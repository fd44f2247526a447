# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""A host's firewall: the plan's inbound rules as one nftables table, and the table's comparison with the kernel's.

Only the table named here is ever read, written or deleted: Docker's and anybody else's are left as they are.
"""

from __future__ import annotations

import ipaddress
import os
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

TABLE = "selfhost_fleet"
COMMENT_BYTES = 128  # nftables refuses longer comments

Network: TypeAlias = "ipaddress.IPv4Network | ipaddress.IPv6Network"
Run = Callable[[Sequence[str]], subprocess.CompletedProcess[str]]

HEAD = f"""\
# The whole firewall of this host, derived from the plan of selfhost.fleet. Changes made here are taken back.
# Loaded in one transaction: there is no moment without a firewall.
table inet {TABLE}
delete table inet {TABLE}
table inet {TABLE} {{
\tchain input {{
\t\ttype filter hook input priority filter; policy drop;
\t\tct state established,related accept
\t\tct state invalid drop
\t\tiif "lo" accept
\t\ticmp type {{ destination-unreachable, time-exceeded, parameter-problem }} accept comment "errors and path MTU"
\t\ticmp type echo-request limit rate 20/second burst 40 packets accept
\t\tip6 hoplimit 255 icmpv6 type {{ nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert }} accept \
comment "neighbour discovery, from this link only"
\t\tip6 saddr fe80::/10 icmpv6 type {{ mld-listener-query, mld-listener-report, \
mld-listener-done, mld2-listener-report }} \
accept comment "multicast listeners"
\t\ticmpv6 type {{ destination-unreachable, packet-too-big, time-exceeded, parameter-problem }} accept \
comment "errors and path MTU"
\t\ticmpv6 type echo-request limit rate 20/second burst 40 packets accept
\t\tip6 saddr fe80::/10 udp sport 547 udp dport 546 accept \
comment "DHCPv6 answers, which connection tracking does not see"
"""

TAIL = """\
\t\tcounter comment "dropped"
\t}
}
"""


class FirewallError(Exception):
    """What is wrong with a rule, or what nft said; written for the operator."""


@dataclass(frozen=True)
class Rule:
    """One port that may be reached, and by whom; no networks means by anybody."""

    port: int
    protocol: str
    networks: tuple[Network, ...]
    why: str

    def admits(self, address: str, port: int) -> bool:
        """Whether a TCP connection from this address to this port is let in by this rule."""
        if self.protocol != "tcp" or self.port != port:
            return False
        if not self.networks:
            return True
        source = ipaddress.ip_address(address.partition("%")[0])
        if isinstance(source, ipaddress.IPv6Address) and source.ipv4_mapped:
            source = source.ipv4_mapped
        return any(source.version == network.version and source in network for network in self.networks)


def parse(inbound: Sequence[dict[str, object]]) -> list[Rule]:
    """The plan's list as rules; every mistake in it is reported at once."""
    rules: list[Rule] = []
    mistakes: list[str] = []
    for index, entry in enumerate(inbound):
        try:
            rules.append(_rule(entry))
        except FirewallError as error:
            mistakes.append(f"inbound[{index}]: {error}")
    if mistakes:
        raise FirewallError("; ".join(mistakes))
    return rules


def _rule(entry: dict[str, object]) -> Rule:
    port, protocol = entry.get("port"), entry.get("protocol", "tcp")
    sources = entry.get("sources")
    if isinstance(port, bool) or not isinstance(port, int) or not 1 <= port <= 65535:
        raise FirewallError(f"{port!r} is not a port; give a number from 1 to 65535")
    if protocol not in ("tcp", "udp"):
        raise FirewallError(f"{protocol!r} is not a protocol; give tcp or udp")
    if not isinstance(sources, (list, tuple)) or not sources:
        # An empty list would otherwise read as "anybody", the opposite of what it says.
        raise FirewallError(f"port {port} has no sources; give addresses, networks or any")
    networks = () if "any" in sources else tuple(_network(str(source)) for source in sources)
    return Rule(port=port, protocol=str(protocol), networks=networks, why=str(entry.get("why") or ""))


def _network(source: str) -> Network:
    try:
        return ipaddress.ip_network(source)
    except ValueError as error:
        raise FirewallError(f"{source!r} is neither any nor an address nor a network ({error})") from error


def _comment(why: str) -> str:
    """The reason as nftables takes it: one line, without quotes, at most 128 bytes."""
    text = " ".join(why.split()).replace('"', "'").replace("\\", "/")
    text = text.encode()[:COMMENT_BYTES].decode(errors="ignore")
    return f' comment "{text}"' if text else ""


def _sources(networks: Sequence[Network], *, version: int) -> str | None:
    """The match on the source address of one IP version, or None where that version has no source."""
    keyword = {4: "ip", 6: "ip6"}[version]
    # Overlapping networks in one set are refused by nftables.
    collapsed = list(ipaddress.collapse_addresses([n for n in networks if n.version == version]))  # type: ignore[type-var]
    if not collapsed:
        return None
    if collapsed[0].prefixlen == 0:
        return f"meta nfproto ipv{version} "
    whole = {4: 32, 6: 128}[version]
    names = [str(n.network_address) if n.prefixlen == whole else str(n) for n in collapsed]
    return f"{keyword} saddr {{ {', '.join(names)} }} "


def render(rules: Sequence[Rule]) -> str:
    """The text for `nft -f`: replaces the table by these rules in one transaction."""
    lines: list[str] = []
    for rule in rules:
        verdict = f"{rule.protocol} dport {rule.port} accept{_comment(rule.why)}"
        if not rule.networks:
            lines.append(verdict)
            continue
        for version in (4, 6):
            sources = _sources(rule.networks, version=version)
            if sources is not None:
                lines.append(sources + verdict)
    body = "".join(f"\t\t{line}\n" for line in dict.fromkeys(lines))
    return HEAD + body + TAIL


class Kernel:
    """The live table, by way of nft."""

    def __init__(self, run: Run, *, nft: str = "/usr/sbin/nft", unshare: str = "/usr/bin/unshare") -> None:
        self._run = run
        self.nft = nft
        self._unshare = unshare

    @property
    def available(self) -> bool:
        """Whether nft is installed; on a bare host in check mode it is not."""
        return Path(self.nft).exists()

    def live(self) -> str | None:
        """The table as the kernel has it, without counters; None where it is absent."""
        listed = self._run([self.nft, "--stateless", "list", "table", "inet", TABLE])
        if listed.returncode == 0:
            return listed.stdout
        if "No such file or directory" in listed.stderr:
            return None
        raise FirewallError(f"nft cannot list the table inet {TABLE}: {listed.stderr.strip()}")

    def as_loaded(self, path: Path) -> str:
        """What the kernel would make of the file, tried out in a network namespace of its own, where it touches nobody.

        It validates more than `nft --check` does, and gives the kernel's own way of writing the rules, so that the live
        table can be compared as text.
        """
        script = '"$1" -f "$2" && "$1" --stateless list table inet "$3"'
        tried = self._run([self._unshare, "--net", "/bin/sh", "-c", script, "sh", self.nft, str(path), TABLE])
        if tried.returncode != 0:
            raise FirewallError(f"nft refuses the ruleset: {tried.stderr.strip()}")
        return tried.stdout

    def load(self, path: Path) -> None:
        """Replace the table by the file's, in one transaction."""
        loaded = self._run([self.nft, "-f", str(path)])
        if loaded.returncode != 0:
            raise FirewallError(f"nft cannot load {path}: {loaded.stderr.strip()}")


def restore_text(live: str | None) -> str:
    """The text for `nft -f` that brings a listed table back, or takes ours away where there was none."""
    return f"table inet {TABLE}\ndelete table inet {TABLE}\n{live or ''}"


def ssh_connection(processes: Path, pid: int) -> tuple[str, int] | None:
    """The client's address and the host's port of the SSH connection that this process descends from.

    sudo drops SSH_CONNECTION from the environment, so the parents are asked, up to the first one that has it.
    """
    while pid > 1:
        try:
            environment = (processes / str(pid) / "environ").read_bytes()
            status = (processes / str(pid) / "status").read_text()
        except OSError:
            return None
        for variable in environment.split(b"\0"):
            name, _equals, value = variable.partition(b"=")
            fields = value.decode(errors="replace").split()
            if name == b"SSH_CONNECTION" and len(fields) == 4:
                return fields[0], int(fields[3])
        pid = next((int(line.split()[1]) for line in status.splitlines() if line.startswith("PPid:")), 0)
    return None


@dataclass(frozen=True)
class Outcome:
    """What a run found and did."""

    changed: bool
    pending: bool = False  # loaded, and taken back by itself unless it is confirmed
    drift: bool = False  # the file was right, the kernel's table was not
    before: str = ""
    after: str = ""


class Firewall:
    """The file, the live table, and the timer that takes an unconfirmed ruleset back."""

    TIMER = "selfhost-firewall-rollback"

    def __init__(self, path: Path, *, run: Run, kernel: Kernel, state: Path = Path("/run/selfhost/firewall")) -> None:
        self._path = path
        self._run = run
        self._kernel = kernel
        self._former = state / "former.nft"
        self._candidate = state / "candidate.nft"

    def converge(self, text: str, *, rollback_after: int, dry_run: bool) -> Outcome:
        """Make the live table and the file what the text says."""
        if not self._kernel.available:
            if dry_run:
                return Outcome(changed=True, after=text)
            raise FirewallError("nft is not installed; the Debian package nftables belongs to the plan's packages")
        if not dry_run and self._pending():
            self._take_back()  # a run that died between loading and confirming
        former_text = self._path.read_text() if self._path.exists() else None
        live = self._kernel.live()
        with tempfile.TemporaryDirectory(prefix="selfhost-firewall-") as scratch:
            trial = Path(scratch) / "candidate.nft"
            trial.write_text(text)
            wanted = self._kernel.as_loaded(trial)
        if live == wanted:
            if former_text != text and not dry_run:
                _write(self._path, text)
            return Outcome(changed=former_text != text, before=former_text or "", after=text)
        outcome = Outcome(changed=True, pending=not dry_run, drift=former_text == text, before=live or "", after=wanted)
        if dry_run:
            return outcome
        _write(self._former, restore_text(live))
        _write(self._candidate, text)
        self._arm(rollback_after)
        self._kernel.load(self._candidate)
        return outcome

    def confirm(self) -> None:
        """Keep the loaded ruleset: disarm the timer, and write the file that is loaded at boot."""
        if not self._pending():
            raise FirewallError("the new ruleset was taken back before it was confirmed; the former one is in force")
        self._disarm()
        _write(self._path, self._candidate.read_text())
        self._candidate.unlink()
        self._former.unlink()

    def _pending(self) -> bool:
        return self._run(["systemctl", "is-active", "--quiet", f"{self.TIMER}.timer"]).returncode == 0

    def _take_back(self) -> None:
        self._disarm()
        self._kernel.load(self._former)

    def _arm(self, seconds: int) -> None:
        armed = self._run(
            ["systemd-run", "--quiet", "--collect", f"--unit={self.TIMER}", f"--on-active={seconds}s"]
            + ["--timer-property=AccuracySec=100ms", "--description=Takes an unconfirmed firewall back"]
            + [self._kernel.nft, "-f", str(self._former)]
        )
        if armed.returncode != 0:
            raise FirewallError(f"the ruleset was not loaded, as its way back cannot be armed: {armed.stderr.strip()}")

    def _disarm(self) -> None:
        stopped = self._run(["systemctl", "stop", f"{self.TIMER}.timer"])
        if stopped.returncode != 0:
            raise FirewallError(f"the timer {self.TIMER} cannot be stopped: {stopped.stderr.strip()}")


def _write(path: Path, text: str) -> None:
    """Write a file that only root reads, whole or not at all."""
    path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(name).replace(path)


def refuse_cut(rules: Sequence[Rule], connection: tuple[str, int] | None) -> None:
    """Fail where the rules would cut the SSH connection that this run uses."""
    if connection is None:
        return
    address, port = connection
    if not any(rule.admits(address, port) for rule in rules):
        raise FirewallError(
            f"these rules would cut this run's own SSH connection, from {address} to port {port}: "
            f"let inbound admit {address} to port {port}/tcp"
        )
