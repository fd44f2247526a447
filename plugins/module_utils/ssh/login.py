# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Whether a configuration of sshd lets a user in with a key, from where the user came: judged before it is live.

What cannot be seen in a configuration (another address to listen on, a firewall, keys that the client does not offer
in time) is left to the fresh connection that has to confirm the change.
"""

from __future__ import annotations

import fnmatch
import ipaddress
import os
import pwd
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from grp import getgrgid
from pathlib import Path

from ansible_collections.selfhost.fleet.plugins.module_utils.commands import CommandResult
from ansible_collections.selfhost.fleet.plugins.module_utils.ssh import keys
from ansible_collections.selfhost.fleet.plugins.module_utils.ssh.way_in import WayIn
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import Difference
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.validate import Sandbox

Settings = dict[str, list[str]]


@dataclass(frozen=True)
class Account:
    """The user as the host knows it."""

    name: str
    uid: int
    home: Path
    groups: tuple[str, ...]

    @classmethod
    def of(cls, name: str) -> Account:
        entry = pwd.getpwnam(name)
        groups = tuple(getgrgid(gid).gr_name for gid in os.getgrouplist(name, entry.pw_gid))
        return cls(name, entry.pw_uid, Path(entry.pw_dir), groups)


def parse(effective: str) -> Settings:
    """What `sshd -T` prints: a keyword in small letters, and its value; some keywords stand on several lines."""
    settings: Settings = {}
    for line in effective.splitlines():
        keyword, _space, value = line.partition(" ")
        settings.setdefault(keyword, []).append(value)
    return settings


def objections(settings: Settings, account: Account, address: str) -> list[str]:
    """Why the user would not get in again; nothing where sshd itself stands in nobody's way."""
    found = []
    if account.uid == 0 and _value(settings, "permitrootlogin") in ("no", "forced-commands-only"):
        found.append(
            f"PermitRootLogin {_value(settings, 'permitrootlogin')}: this run came in as {account.name}. Come in as a "
            "user who may use sudo (fleet_admins makes such users), and run again"
        )
    if _value(settings, "pubkeyauthentication") == "no":
        found.append("PubkeyAuthentication no: nobody could come in with a key. Take it out")
    methods = _value(settings, "authenticationmethods") or "any"
    if methods != "any" and not any(set(one.split(",")) == {"publickey"} for one in methods.split()):
        found.append(f"AuthenticationMethods {methods}: a key alone no longer suffices. Let one of them be publickey")
    if _value(settings, "maxsessions") == "0":
        found.append("MaxSessions 0: no command could be run. Take it out")
    return [*found, *_shut_out(settings, account, address), *_without_key(settings, account)]


def _value(settings: Settings, keyword: str) -> str:
    return settings.get(keyword, [""])[0]


def _shut_out(settings: Settings, account: Account, address: str) -> Iterable[str]:
    """In the order in which sshd asks: users denied, users allowed, groups denied, groups allowed."""
    came = f"{account.name} from {address}"
    if denied := _names(account.name, address, settings.get("denyusers", ())):
        yield f"DenyUsers {denied}: shuts out {came}, as whom this run came in. Take the pattern out"
    allowed = settings.get("allowusers", [])
    if allowed and not _names(account.name, address, allowed):
        yield f"AllowUsers {' '.join(allowed)}: shuts out {came}, as whom this run came in. Add {account.name}"
    if denied := _group(account.groups, settings.get("denygroups", ())):
        yield f"DenyGroups {denied}: {account.name}, as whom this run came in, is in that group. Take it out"
    allowed = settings.get("allowgroups", [])
    if allowed and not _group(account.groups, allowed):
        yield (
            f"AllowGroups {' '.join(allowed)}: {account.name}, as whom this run came in, is in none of them but in "
            f"{', '.join(account.groups)}. Add one of these"
        )


def _names(user: str, address: str, patterns: Sequence[str]) -> str:
    """The first of USER or USER@HOST that names the user, or nothing."""
    for pattern in patterns:
        name, at, hosts = pattern.rpartition("@")
        if not at:
            name, hosts = pattern, "*"
        if fnmatch.fnmatchcase(user, name) and _from(address, hosts):
            return pattern
    return ""


def _from(address: str, patterns: str) -> bool:
    """sshd's list of addresses, networks and wildcards; one that is negated has the last word.

    Names of hosts count as no match: sshd knows the client's only with UseDNS.
    """
    matched = False
    for pattern in patterns.split(","):
        negated = pattern.startswith("!")
        if _is_at(address, pattern.removeprefix("!")):
            if negated:
                return False
            matched = True
    return matched


def _is_at(address: str, pattern: str) -> bool:
    try:
        source, network = ipaddress.ip_address(address), ipaddress.ip_network(pattern, strict=False)
    except ValueError:
        return fnmatch.fnmatchcase(address, pattern)
    return source.version == network.version and source in network


def _group(groups: Sequence[str], patterns: Sequence[str]) -> str:
    return next((pattern for pattern in patterns if any(fnmatch.fnmatchcase(group, pattern) for group in groups)), "")


def _without_key(settings: Settings, account: Account) -> Iterable[str]:
    """Keys that come from a command or by certificate cannot be looked at; the fresh connection tells."""
    if any(_value(settings, name) not in ("", "none") for name in ("authorizedkeyscommand", "trustedusercakeys")):
        return
    files = [_expand(name, account) for name in _value(settings, "authorizedkeysfile").split() if name != "none"]
    found = [key for path in files for line in _lines(path) if (key := keys.parse(line))]
    where = " or ".join(str(path) for path in files) or "no file (AuthorizedKeysFile none)"
    if not found:
        yield (
            f"{account.name}, as whom this run came in, has no key in {where}, and so could not come in without a "
            "password. Put a public key there (ssh-copy-id), or list the user with it in fleet_admins"
        )
        return
    accepted = set(_value(settings, "pubkeyacceptedalgorithms").split(","))
    least = int(_value(settings, "requiredrsasize") or 0)
    usable = [key for key in found if _usable(key, accepted, least)]
    if not usable:
        kinds = ", ".join(sorted({f"{key.kind} of {key.bits} bits" if key.bits else key.kind for key in found}))
        yield (
            f"PubkeyAcceptedAlgorithms and RequiredRSASize {least}: none of the keys of {account.name} in {where} "
            f"would be accepted ({kinds}). Add a key of the kind ssh-ed25519"
        )


def _usable(key: keys.Key, accepted: set[str], least: int) -> bool:
    if key.authority:
        return True
    return bool(accepted & set(key.algorithms)) and (not key.bits or key.bits >= least)


def _expand(name: str, account: Account) -> Path:
    tokens = {"%": "%", "h": str(account.home), "u": account.name, "U": str(account.uid)}
    return account.home / re.sub("%([%huU])", lambda found: tokens[found.group(1)], name)


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(errors="replace").splitlines()
    except OSError:
        return []


class LoginSandbox:
    """A sandbox that has one more validator: the user that this run came in as has to get in again."""

    def __init__(self, inner: Sandbox, way_in: WayIn) -> None:
        self._inner = inner
        self._way_in = way_in

    def validate(
        self, difference: Difference, commands: Sequence[Sequence[str]], timeout: float
    ) -> list[CommandResult]:
        came = self._way_in
        spec = f"user={came.user},host={came.address},addr={came.address},laddr={came.host_address},lport={came.port}"
        results = self._inner.validate(difference, [*commands, ("sshd", "-T", "-C", spec)], timeout)
        if not all(result.ok for result in results):
            return results
        asked = results.pop()
        try:
            account = Account.of(came.user)
        except KeyError:
            refused = [f"{came.user or 'the user'}, as whom this run came in, is no user of this host any more"]
        else:
            refused = objections(parse(asked.stdout), account, came.address)
        return [*results, CommandResult(asked.argv, 1 if refused else 0, stderr="\n".join(refused))]
