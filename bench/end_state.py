"""The end state of a host that our site.yml made, as variables for the playbook of stock modules."""

from __future__ import annotations

import base64
import json
import shlex
from pathlib import Path
from typing import Any

from fleetbed.host import Host

SLOT = "fluxbase-server@blue"
SETS = (
    *("baseline", "time", "hardening", "ssh", "firewall", "bans"),
    *("postgres", "pooler", "service-users", SLOT, "service", "edge"),
)
MANIFESTS = "/var/lib/selfhost/config"
NOTES = "/etc/selfhost/services/"
FIREWALL = "/etc/selfhost/firewall.nft"


def read(host: Host, part: dict[str, Any], folder: Path) -> dict[str, Any]:
    """`part` is the host's slice of the plan. Templates are written below `folder`."""
    manifests = {name: json.loads(host.read(f"{MANIFESTS}/{name}.json")) for name in _recorded(host)}
    unknown = sorted(name for name, found in manifests.items() if found["files"] and name not in SETS)
    if unknown:
        raise SystemExit(f"bench/plain has no tasks for {', '.join(unknown)}: the comparison would not be honest")
    components = part["components"]
    return {
        "packages": part["packages"],
        "firewall": host.read(FIREWALL),
        "files": {
            name: [_file(host, entry, folder) for entry in found["files"] if not _left_out(entry)]
            for name, found in manifests.items()
        },
        "links": [
            {"path": entry["path"], "to": entry["link"]}
            for found in manifests.values()
            for entry in found["files"]
            if "link" in entry
        ],
        "permissions": _permissions(host),
        "certificates": part["certificates"],
        "ca_dir": str(folder / "plain-ca"),
        "postgres": {
            **{key: part["postgres"][key] for key in ("version", "port", "databases")},
            "roles": [{**role, "verifier": _verifier(host, role["name"])} for role in part["postgres"]["roles"]],
        },
        "releases": [_release(component) for component in components],
        "units": {
            "running": [f"{each['unit']}@{each['slot']}.service" for each in components],
        },
        "probes": [each["probe"]["url"] for each in components],
        "domains": [site["domains"][0] for site in part["edge"]["sites"]],
    }


def differences(ours: Host, plain: Host) -> list[str]:
    """Files that our host manages and that are not the same on the other one."""
    paths = [
        entry["path"]
        for name in _recorded(ours)
        for entry in json.loads(ours.read(f"{MANIFESTS}/{name}.json"))["files"]
        if not entry["path"].startswith(NOTES)
    ]
    # A file that is missing is a difference, and no reason to look at no other.
    command = f"set +e; stat -c '%n %a %U %G' {shlex.join(paths)}; sha256sum {shlex.join(paths)}"
    first, second = (set(host.root(command, check=False).stdout.splitlines()) for host in (ours, plain))
    return sorted(first ^ second)


def _recorded(host: Host) -> list[str]:
    return [Path(line).stem for line in host.root(f"ls {MANIFESTS}").stdout.split()]


def _permissions(host: Host) -> list[dict[str, str]]:
    """dpkg's overrides of what there is; those that packages made themselves are right already."""
    found = []
    for line in host.root("dpkg-statoverride --list").stdout.splitlines():
        owner, group, mode, path = line.split(maxsplit=3)
        if host.root(["test", "-e", path], check=False).returncode == 0:
            found.append({"path": path, "owner": owner, "group": group, "mode": mode.rjust(4, "0")})
    return found


def _file(host: Host, entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    content = base64.b64decode(host.root(["base64", entry["path"]]).stdout).decode()
    template = folder / "templates" / entry["path"].strip("/").replace("/", "_")
    template.parent.mkdir(exist_ok=True)
    template.write_text(f"{{% raw %}}{content}{{% endraw %}}\n")
    return {**{key: entry[key] for key in ("path", "owner", "group", "mode")}, "source": str(template)}


def _left_out(entry: dict[str, Any]) -> bool:
    """Links have tasks of their own; and nobody else writes down what runs in which slot."""
    return "link" in entry or entry["path"].startswith(NOTES)


def _verifier(host: Host, role: str) -> str:
    command = ["runuser", "-u", "postgres", "--", "psql", "-AtX", f"--set=role={role}"]
    return host.root(command, stdin="SELECT rolpassword FROM pg_authid WHERE rolname = :'role';").stdout.strip()


def _release(component: dict[str, Any]) -> dict[str, Any]:
    release = component["release"]
    wanted = ("version", "source", "checksum", "executable")
    return {
        **{key: release[key] for key in wanted},
        "root": component["root"],
        "version_option": release["version_command"][-1],
    }
