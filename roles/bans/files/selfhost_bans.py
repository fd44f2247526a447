#!/usr/bin/python3
# Managed by selfhost.fleet, role bans.
"""Shuts out sources that fail to log in again and again, by elements with a time-out in nftables sets.

`watch` is run by a timer: it reads what sshd and nginx wrote to the journal since it was last run, and ends.
`list` and `lift ADDRESS` are for people.
"""

from __future__ import annotations

import argparse
import ipaddress
import json
import re
import subprocess
import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TABLE = "selfhost_bans"
SETTINGS = Path("/etc/selfhost/bans.json")
# On disk: after a reboot the journal is not judged again, and whoever was let in by hand stays so.
STATE = Path("/var/lib/selfhost-bans/state.json")
NFT = "/usr/sbin/nft"
JOURNALCTL = "/usr/bin/journalctl"

# Whoever floods the journal costs a run no more than this; the next one goes on where it ended.
MAX_ENTRIES = 20_000
MAX_SOURCES = 10_000
# Seconds for which a source that has logged in is not banned: a controller whose key once failed must not be locked out.
ACCEPTED_FOR = 86_400

# A user's name stands within these lines and is whatever a client sends: so each is matched to its end, where sshd itself writes
# the address, and the name takes as much as it can.
SSH_GUESS = re.compile(
    r"Failed (?:password|keyboard-interactive(?:/pam)?) for .* from (?P<source>\S+) port (?P<connection>\d+)(?: ssh2)?\Z"
)
# How a connection ends that has not logged in: the only trace of a wrong key.
SSH_ENDED = re.compile(
    r"(?:Invalid user .* from"
    r"|(?:Connection (?:closed|reset) by|Disconnected from|Disconnecting) (?:authenticating|invalid) user .*)"
    r" (?P<source>\S+) port (?P<connection>\d+)(?:: Too many authentication failures)?(?: \[preauth\])?\Z"
)
SSH_ACCEPTED = re.compile(r"Accepted \S+ for \S+ from (?P<source>\S+) port \d+ ssh2(?:: .*)?\Z")
LOGIN_FAILED = re.compile(r"[45]\d\d (?P<source>\S+)\Z")


@dataclass(frozen=True)
class Event:
    """What a line of the journal says of a source."""

    kind: str  # ssh, login, or accepted
    source: str
    at: float
    connection: str = ""
    # The end of a connection counts where nothing else did that was tried over it.
    is_end: bool = False


@dataclass(frozen=True)
class Limit:
    """So many failures in so many seconds shut a source out for so long."""

    failures: int
    window: int
    duration: int


@dataclass
class State:
    """What one run leaves to the next."""

    cursor: str | None = None
    # By kind and source: the time and the connection of each failure.
    failures: dict[str, dict[str, list[tuple[float, str]]]] = field(default_factory=dict)
    accepted: dict[str, float] = field(default_factory=dict)

    @classmethod
    def load(cls, path: Path) -> State:
        if not path.exists():
            return cls()
        saved = json.loads(path.read_text())
        failures = {
            kind: {source: list(map(tuple, seen)) for source, seen in sources.items()}
            for kind, sources in saved["failures"].items()
        }
        return cls(cursor=saved["cursor"], failures=failures, accepted=saved["accepted"])

    def save(self, path: Path) -> None:
        """Mostly nothing has happened, and then nothing is written."""
        text = json.dumps({"cursor": self.cursor, "failures": self.failures, "accepted": self.accepted})
        if path.exists() and path.read_text() == text:
            return
        fresh = path.with_suffix(".new")
        fresh.write_text(text)
        fresh.replace(path)


def source_of(text: str) -> str | None:
    """Who a failure counts for: an IPv4 address, or an IPv6 client's whole /64, written as its first address."""
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((int(address) >> 64 << 64, 64)).network_address)
    return str(address)


def event(identifier: str, message: str, at: float) -> Event | None:
    """What a line means; None where it is no login and no failure of one."""
    if identifier == "selfhost_login":
        return _event("login", LOGIN_FAILED.match(message), at)
    return (
        _event("ssh", SSH_GUESS.match(message), at)
        or _event("ssh", SSH_ENDED.match(message), at, is_end=True)
        or _event("accepted", SSH_ACCEPTED.match(message), at)
    )


def _event(kind: str, found: re.Match[str] | None, at: float, *, is_end: bool = False) -> Event | None:
    source = source_of(found["source"]) if found else None
    if found is None or source is None:
        return None
    return Event(kind, source, at, found.groupdict().get("connection", ""), is_end)


def is_trusted(source: str, trusted: Iterable[str]) -> bool:
    """Whether a source is, or in the case of a /64 has in it, one of those that are never banned."""
    address = ipaddress.ip_address(source)
    if address.is_loopback:
        return True
    own = ipaddress.ip_network(f"{source}/64" if address.version == 6 else source)
    networks = (ipaddress.ip_network(text) for text in trusted)
    return any(network.version == own.version and network.overlaps(own) for network in networks)


def judge(
    state: State, events: Iterable[Event], limits: Mapping[str, Limit], trusted: Iterable[str], now: float
) -> list[tuple[str, str]]:
    """Count the events into the state, and say who is to be banned for what."""
    trusted = list(trusted)
    banned: dict[tuple[str, str], None] = {}
    for each in events:
        if each.kind == "accepted":
            state.accepted[each.source] = each.at
            state.failures.get("ssh", {}).pop(each.source, None)
            continue
        limit = limits.get(each.kind)
        if limit is None or (each.kind, each.source) in banned or is_trusted(each.source, trusted):
            continue
        seen = state.failures.setdefault(each.kind, {}).setdefault(each.source, [])
        if not (each.is_end and any(connection == each.connection for _at, connection in seen)):
            seen.append((each.at, each.connection))
        seen[:] = [entry for entry in seen if each.at - entry[0] < limit.window]
        if len(seen) >= limit.failures:
            banned[each.kind, each.source] = None
            del state.failures[each.kind][each.source]
    _forget(state, limits, now)
    return [(kind, source) for kind, source in banned if source not in state.accepted]


def _forget(state: State, limits: Mapping[str, Limit], now: float) -> None:
    """Drop what no longer counts, and the longest quiet sources where there are too many."""
    state.accepted = _latest({source: at for source, at in state.accepted.items() if 0 <= now - at < ACCEPTED_FOR})
    for kind in list(state.failures):
        if kind not in limits:
            del state.failures[kind]
            continue
        last = {source: seen[-1][0] for source, seen in state.failures[kind].items() if seen}
        kept = _latest({source: at for source, at in last.items() if 0 <= now - at < limits[kind].window})
        state.failures[kind] = {source: state.failures[kind][source] for source in kept}


def _latest(times: dict[str, float]) -> dict[str, float]:
    if len(times) <= MAX_SOURCES:
        return times
    return dict(sorted(times.items(), key=lambda item: item[1])[-MAX_SOURCES:])


def parse(lines: Iterable[str], state: State) -> Iterator[Event]:
    """Events of the journal's JSON lines; the state's cursor follows."""
    for line in lines:
        entry = json.loads(line)
        state.cursor = entry["__CURSOR"]
        message = entry.get("MESSAGE")
        if isinstance(message, list):  # bytes that are no UTF-8
            message = bytes(message).decode(errors="replace")
        if not isinstance(message, str):  # too long for the journal's JSON: none of ours is
            continue
        found = event(str(entry.get("SYSLOG_IDENTIFIER")), message, int(entry["__REALTIME_TIMESTAMP"]) / 1e6)
        if found:
            yield found


def journal(state: State, since: float) -> Iterator[str]:
    """Lines of sshd and of nginx's logins, from the last one read on; at most MAX_ENTRIES.

    What identifies the sender is journald's own word (fields with an underscore): other users' programs cannot speak for sshd.
    """
    start = f"--after-cursor={state.cursor}" if state.cursor else f"--since=@{since:.0f}"
    command = [JOURNALCTL, "--quiet", "--no-pager", "--output=json", "--output-fields=MESSAGE,SYSLOG_IDENTIFIER", start]
    command += ["_UID=0", "SYSLOG_IDENTIFIER=sshd", "+", "_UID=0", "SYSLOG_IDENTIFIER=sshd-session"]
    command += ["+", "_SYSTEMD_UNIT=nginx.service", "SYSLOG_IDENTIFIER=selfhost_login"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        for number, line in enumerate(process.stdout or (), 1):
            yield line
            if number == MAX_ENTRIES:
                process.terminate()
                return
    if process.returncode != 0:
        raise SystemExit(f"journalctl ended with {process.returncode}")


def set_of(kind: str, source: str) -> str:
    return f"{kind}_v{ipaddress.ip_address(source).version}"


def additions(bans: Iterable[tuple[str, str]], limits: Mapping[str, Limit]) -> str:
    """The text for `nft -f` that bans: all of them or, where nft refuses one, none."""
    return "".join(
        f"add element inet {TABLE} {set_of(kind, source)} {{ {source} timeout {limits[kind].duration}s }}\n"
        for kind, source in bans
    )


def nft(*arguments: str, text: str | None = None) -> str:
    done = subprocess.run([NFT, *arguments], input=text, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SystemExit(f"nft {' '.join(arguments)}: {done.stderr.strip()}")
    return done.stdout


def watch() -> None:
    settings = json.loads(SETTINGS.read_text())
    limits = {kind: Limit(**limit) for kind, limit in settings["limits"].items()}
    state = State.load(STATE)
    now = time.time()
    lines = journal(state, now - max(limit.window for limit in limits.values()))
    bans = judge(state, parse(lines, state), limits, settings["trusted"], time.time())
    if bans:
        nft("-f", "-", text=additions(bans, limits))
        for kind, source in bans:
            # Priority of a notice: the unit lets no lesser lines into the journal.
            print(f"<5>banned {source} for {limits[kind].duration} s: {limits[kind].failures} failures ({kind})")
    # Only now: what nft refused is judged again by the next run.
    state.save(STATE)


def banned() -> Iterator[tuple[str, str, int]]:
    """The set, the source and the seconds that are left of every ban."""
    for item in json.loads(nft("--json", "list", "table", "inet", TABLE))["nftables"]:
        for element in item.get("set", {}).get("elem", []):
            inner: dict[str, Any] = element["elem"]
            yield item["set"]["name"], inner["val"], inner["expires"]


def show() -> None:
    for name, source, left in banned():
        kind, _sep, version = name.rpartition("_")
        print(f"{kind}\t{source}{'/64' if version == 'v6' else ''}\t{left} s left")


def lift(text: str) -> None:
    source = source_of(text.partition("/")[0])
    if source is None:
        raise SystemExit(f"{text} is no address")
    found = [name for name, other, _left in banned() if other == source]
    if not found:
        raise SystemExit(f"{source} is not banned")
    nft("-f", "-", text="".join(f"delete element inet {TABLE} {name} {{ {source} }}\n" for name in found))


def main() -> None:
    parser = argparse.ArgumentParser(prog="selfhost-bans", description="Sources that are shut out after failed logins.")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("watch", help="read the journal since the last time, and ban (run by a timer)")
    commands.add_parser("list", help="who is banned, and for how long still")
    commands.add_parser("lift", help="let a source in again").add_argument("address")
    given = parser.parse_args()
    if given.command == "lift":
        lift(given.address)
    else:
        {"watch": watch, "list": show}[given.command]()


if __name__ == "__main__":
    main()
