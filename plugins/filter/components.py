# GNU General Public License v3.0+ (see LICENSE)
"""Filters of the roles `baseline` and `service`: from a component of the plan to the arguments of the modules that put it in place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.fleet.plugins.module_utils.packages import versions_of
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import SLOTS
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.sets import slot_set

Data = dict[str, Any]
SECRET = re.compile(r"\{secret\.([A-Z][A-Z0-9_]*)\}")


def component_releases(component: Data) -> list[Data]:
    """Arguments of `release` for a component and its companions. Which one runs is for `component_links`, when all else takes effect."""
    release = component["release"]
    # dpkg has replaced the former version of a package: there is nothing for a link to go back to.
    links = {component["slot"]: release["version"]} if _packaged(component) else {}
    own = {**release, "root": component["root"], "links": links}
    others = [
        {**companion, "root": companion_root(component, companion), "links": {}}
        for companion in component["companions"]
    ]
    return [*others, own]


def component_links(component: Data) -> list[Data]:
    """Arguments of `config_set`: which releases its slot runs."""
    links = {} if _packaged(component) else {f"{component['root']}/{component['slot']}": component["version"]}
    links |= {companion_path(component, companion): companion["version"] for companion in component["companions"]}
    return [{"path": path, "link": f"releases/{version}"} for path, version in links.items()]


def _packaged(component: Data) -> bool:
    return bool(component["release"].get("package"))


def as_installed(components: list[Data], results: list[Data]) -> list[Data]:
    """Components with the version that is on the host: of a package only dpkg knows which revision of Debian's it is."""
    found = {(result["item"]["root"], result["item"]["version"]): result["version"] for result in results}
    return [{**entry, "version": found[entry["root"], entry["release"]["version"]]} for entry in components]


def package_files(packaged: list[Data]) -> list[Data]:
    """Arguments of `config_set` for packages that services run: the version that apt may take, and their own units masked."""
    files: list[Data] = []
    for entry in packaged:
        if entry["version"]:
            path = f"/etc/apt/preferences.d/50-selfhost-fleet-{entry['package']}.pref"
            files.append({"path": path, "content": _preferences(entry["package"], entry["version"])})
        # To systemd an empty file is a mask, like a link to /dev/null.
        files += [{"path": f"/etc/systemd/system/{unit}", "content": ""} for unit in entry["units"]]
    return files


def _preferences(package: str, version: str) -> str:
    return (
        f"# Managed by selfhost.fleet: the version of {package} that the inventory names, in any revision of Debian's.\n"
        f"Package: {package}\nPin: version /{versions_of(version)}/\nPin-Priority: 990\n\n"
        f"Package: {package}\nPin: version *\nPin-Priority: -1\n"
    )


def package_units(packaged: list[Data]) -> list[Data]:
    """Arguments of `config_set`: what ran before the package was a service's is stopped."""
    return [
        {"name": unit, "on_change": "none", "enabled": False, "state": "stopped"}
        for entry in packaged
        for unit in entry["units"]
    ]


def package_versions(packaged: list[Data]) -> dict[str, str]:
    """Arguments of `packages`: the versions that are asked for."""
    return {entry["package"]: entry["version"] for entry in packaged if entry["version"]}


def companion_root(component: Data, companion: Data) -> str:
    return f"/opt/{component['service']}/companions/{companion['name']}"


def companion_path(component: Data, companion: Data) -> str:
    """The folder that a slot finds a companion in: components of a service share its releases, and not which one they use."""
    return f"{companion_root(component, companion)}/{component['component']}@{component['slot']}"


def component_user_files(components: list[Data]) -> list[Data]:
    """Arguments of `config_set`: the system users and the folders that they may write to; and a link to the configuration of the slot that serves.

    For people and their tools: each slot sees its own file at that path (`BindReadOnlyPaths=` in its unit).
    """
    files: dict[str, Data] = {}
    for component in components:
        for kind, template in (("sysusers", "sysusers.conf.j2"), ("tmpfiles", "tmpfiles.conf.j2")):
            path = f"/etc/{kind}.d/{component['unit']}.conf"
            files[path] = {"path": path, "template": template, "vars": {"component": component}}
        if component["config"]:
            path = component["config"]["path"]
            files[path] = {"path": path, "link": config_path(component, component["serving"])}
    return list(files.values())


def environment_path(component: Data) -> str:
    return f"/etc/{component['service']}/{component['component']}.{component['slot']}.env"


def config_path(component: Data, slot: str = "") -> str:
    """Where a slot's configuration file lies. The program sees it at the path that it looks for it at."""
    suffix = PurePosixPath(component["config"]["path"]).suffix
    return f"/etc/{component['service']}/{component['component']}.{slot or component['slot']}{suffix}"


def component_files(component: Data) -> list[Data]:
    """Arguments of `config_set`: unit, environment and configuration file of a slot."""
    variables = {"component": component}
    files: list[Data] = [
        {"path": f"/etc/systemd/system/{unit_name(component)}", "template": "unit.service.j2", "vars": variables},
        {
            "path": environment_path(component),
            "template": "environment.j2",
            "vars": variables,
            "mode": "0600",
            "secret": True,
        },
    ]
    if component["config"]:
        files.append(
            {
                "path": config_path(component),
                "template": "config.j2",
                "vars": variables,
                "owner": "root",
                "group": component["user"],
                "mode": "0640",
                "secret": True,
            }
        )
    note = component_note(component)
    path = f"/etc/selfhost/services/slots/{component['unit']}@{component['slot']}.json"
    return [*files, {"path": path, "content": _note_text(note)}, *component_links(component)]


def component_note(component: Data) -> Data:
    """What the host remembers of a component, for `playbooks/status.yml` and the next plan."""
    return {key: component[key] for key in ("service", "component", "unit", "version", "slot", "probe")}


def note_files(notes: list[Data]) -> list[Data]:
    """Arguments of `config_set`: components that serve."""
    return [{"path": f"/etc/selfhost/services/{note['unit']}.json", "content": _note_text(note)} for note in notes]


def _note_text(note: Data) -> str:
    return json.dumps(note, indent=2, sort_keys=True) + "\n"


def component_programs(component: Data) -> list[str]:
    return [f"{component['root']}/releases/{component['version']}/{component['release']['executable']}"]


def unit_name(component: Data) -> str:
    return f"{component['unit']}@{component['slot']}.service"


def component_units(component: Data, enabled: bool = True) -> list[Data]:
    """Arguments of `config_set`: a slot runs. One that stands in does not come back with the host: the slot that serves does."""
    if component.get("staged"):
        return []
    return [{"name": unit_name(component), "on_change": "restart", "enabled": enabled, "state": "started"}]


def idle_units(components: list[Data], standins: list[Data]) -> list[Data]:
    """Arguments of `config_set`: slots of these components that run no more."""
    up = {unit_name(entry) for entry in [*components, *standins]}
    names = [unit_name({**component, "slot": slot}) for component in components for slot in SLOTS]
    return [
        {"name": name, "on_change": "none", "enabled": False, "state": "stopped"} for name in names if name not in up
    ]


def component_probes(component: Data) -> list[Data]:
    """Arguments of `probe`."""
    probe = component["probe"]
    return [
        {
            "kind": probe["kind"],
            "url": probe["url"],
            "status": probe["status"],
            "deadline": probe["start_timeout"],
            "unit": unit_name(component),
        }
    ]


def component_port_probes(component: Data) -> list[Data]:
    """The same for its other ports: a program may only log that it could not have one of them, and go on without."""
    probe = component["probe"]
    return [
        {
            "kind": "tcp",
            "url": f"tcp://{_in_url(component['listen'])}:{number}",
            "deadline": probe["start_timeout"],
            "unit": unit_name(component),
        }
        for name, number in component["ports"].items()
        if name not in component["unused_ports"] and number != urlsplit(probe["url"]).port
    ]


def _in_url(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def reveal(text: str, services: Data, service: str) -> str:
    """`{secret.NAME}` replaced by the secret's value: only ever used where a file is rendered."""
    secrets = services[service].get("secrets", {})

    def value(match: re.Match[str]) -> str:
        if match[1] not in secrets:
            raise AnsibleFilterError(f"fleet_services.{service}.secrets.{match[1]} is missing")
        return str(secrets[match[1]])

    return SECRET.sub(value, text)


def systemd_quote(value: str) -> str:
    """A value as systemd's EnvironmentFile reads it back unchanged."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("$", "\\$").replace("`", "\\`")
    return f'"{escaped}"'


def systemd_command(words: list[str]) -> str:
    """A command as ExecStart has it; `$` and `%` are the plan's, which knows those that are meant."""
    return " ".join(_systemd_word(word) for word in words)


def _systemd_word(word: str) -> str:
    if word and not re.search(r"[\s\"'\\;]", word):
        return word
    escaped = word.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def config_text(config: Data) -> str:
    """A configuration file in its format."""
    if config["format"] == "json":
        return json.dumps(config["content"], indent=2, sort_keys=True) + "\n"
    return str(yaml.safe_dump(json.loads(json.dumps(config["content"])), sort_keys=True, default_flow_style=False))


class FilterModule:
    """Filters by name."""

    def filters(self) -> dict[str, Callable[..., Any]]:
        return {
            "as_installed": as_installed,
            "package_files": package_files,
            "package_units": package_units,
            "package_versions": package_versions,
            "component_releases": component_releases,
            "component_user_files": component_user_files,
            "component_files": component_files,
            "component_note": component_note,
            "note_files": note_files,
            "component_set": slot_set,
            "idle_units": idle_units,
            "config_path": config_path,
            "environment_path": environment_path,
            "companion_path": companion_path,
            "component_programs": component_programs,
            "component_unit": unit_name,
            "component_units": component_units,
            "component_probes": component_probes,
            "component_port_probes": component_port_probes,
            "reveal": reveal,
            "systemd_quote": systemd_quote,
            "systemd_command": systemd_command,
            "config_text": config_text,
        }
