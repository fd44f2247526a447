# GNU General Public License v3.0+ (see LICENSE)
"""Filters of the roles `baseline` and `service`: from a component of the plan to the arguments of the modules that put it in place."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import yaml
from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.fleet.plugins.module_utils.packages import versions_of

Data = dict[str, Any]
SECRET = re.compile(r"\{secret\.([A-Z][A-Z0-9_]*)\}")


def component_releases(component: Data) -> list[Data]:
    """Arguments of `release` for a component and its companions. Which one runs is for `component_links`, when all else takes effect."""
    release = component["release"]
    # dpkg has replaced the former version of a package: there is nothing for a link to go back to.
    links = dict.fromkeys(running(component), release["version"]) if _packaged(component) else {}
    own = {**release, "root": component["root"], "links": links}
    others = [
        {**companion, "root": companion_root(component, companion), "links": {}}
        for companion in component["companions"]
    ]
    return [*others, own]


def component_links(components: list[Data]) -> list[Data]:
    """Arguments of `config_set`: which release each slot runs. Components of a service share its companions."""
    links: dict[str, str] = {}
    for component in components:
        if not _packaged(component):
            links |= {f"{component['root']}/{slot}": component["version"] for slot in running(component)}
        links |= _companion_links(component)
    return [{"path": path, "link": f"releases/{version}"} for path, version in links.items()]


def _packaged(component: Data) -> bool:
    return bool(component["release"].get("package"))


def _companion_links(component: Data) -> dict[str, str]:
    return {
        f"{companion_root(component, companion)}/current": companion["version"] for companion in component["companions"]
    }


def as_installed(components: list[Data], results: list[Data]) -> list[Data]:
    """Components with the version that is on the host: of a package only dpkg knows which revision of Debian's it is."""
    found = {result["item"]["root"]: result["version"] for result in results}
    return [{**component, "version": found[component["root"]]} for component in components]


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


def running(component: Data) -> list[str]:
    """The slots that run: the plan's own, and during a detour the one that stands in for it."""
    standin = component["standin"]
    return [component["slot"], *([standin["slot"]] if standin else [])]


def companion_root(component: Data, companion: Data) -> str:
    return f"/opt/{component['service']}/companions/{companion['name']}"


def component_user_files(component: Data) -> list[Data]:
    """Arguments of `config_set`: the system user and the folders that it may write to."""
    variables = {"component": component}
    return [
        {"path": f"/etc/sysusers.d/{component['unit']}.conf", "template": "sysusers.conf.j2", "vars": variables},
        {"path": f"/etc/tmpfiles.d/{component['unit']}.conf", "template": "tmpfiles.conf.j2", "vars": variables},
    ]


def component_files(component: Data) -> list[Data]:
    """Arguments of `config_set`: unit, environment, configuration file, and the note that status reads."""
    folder, name, unit = f"/etc/{component['service']}", component["component"], component["unit"]
    variables = {"component": component}
    files: list[Data] = [
        {"path": f"/etc/systemd/system/{unit}@.service", "template": "unit.service.j2", "vars": variables},
        {
            "path": f"{folder}/{name}.env",
            "template": "component.env.j2",
            "vars": variables,
            "mode": "0600",
            "secret": True,
        },
        {
            "path": f"/etc/selfhost/services/{unit}.json",
            "content": json.dumps(component_note(component), indent=2, sort_keys=True) + "\n",
        },
    ]
    for slot in component["slot_environment"]:
        standin = component["standin"] if component["standin"] and component["standin"]["slot"] == slot else None
        files.append(
            {
                "path": f"{folder}/{name}.{slot}.env",
                "template": "slot.env.j2",
                "vars": {**variables, "slot": slot, "runs": slot in running(component), "standin": standin},
                "mode": "0600",
                "secret": standin is not None,
            }
        )
    if component["config"]:
        files.append(
            {
                "path": component["config"]["path"],
                "template": "config.j2",
                "vars": variables,
                "owner": "root",
                "group": component["user"],
                "mode": "0640",
                "secret": True,
            }
        )
    return files


def component_note(component: Data) -> Data:
    """What the host remembers of a component, for `playbooks/status.yml`."""
    return {key: component[key] for key in ("service", "component", "unit", "version", "slot", "probe")}


def component_programs(component: Data) -> list[str]:
    return [f"{component['root']}/releases/{component['version']}/{component['release']['executable']}"]


def unit_name(component: Data, slot: str) -> str:
    return f"{component['unit']}@{slot}.service"


def component_units(component: Data) -> list[Data]:
    """Arguments of `config_set`: what runs, and last the slot that does not; each starts again for what it reads alone."""
    slots = running(component)
    units: list[Data] = [
        {
            "name": unit_name(component, slot),
            "on_change": "restart",
            "enabled": slot == component["slot"],
            "state": "started",
            "files": _read_by(component, slot),
        }
        for slot in slots
    ]
    idle = [slot for slot in component["slot_environment"] if slot not in slots]
    return [
        *units,
        *(
            {"name": unit_name(component, slot), "on_change": "none", "enabled": False, "state": "stopped"}
            for slot in idle
        ),
    ]


def _read_by(component: Data, slot: str) -> list[str]:
    """Paths whose change a slot has to start again for; the stand-in stays as it is while the slot at home changes."""
    folder, name = f"/etc/{component['service']}", component["component"]
    own = [f"{folder}/{name}.{slot}.env", f"{component['root']}/{slot}"]
    if slot != component["slot"]:
        return own
    config = component["config"]
    return [*own, f"{folder}/{name}.env", *([config["path"]] if config else []), *_companion_links(component)]


def component_probes(component: Data) -> list[Data]:
    """Arguments of `probe` for each slot that runs."""
    return [
        {
            "kind": probe["kind"],
            "url": probe["url"],
            "status": probe["status"],
            "deadline": probe["start_timeout"],
            "unit": unit_name(component, slot),
        }
        for slot, probe in _probes(component)
    ]


def component_port_probes(component: Data) -> list[Data]:
    """The same for its other ports: a program may only log that it could not have one of them, and go on without."""
    return [
        {
            "kind": "tcp",
            "url": f"tcp://{_in_url(component['listen'])}:{number}",
            "deadline": probe["start_timeout"],
            "unit": unit_name(component, slot),
        }
        for slot, probe in _probes(component)
        for name, number in component["slots"][slot].items()
        if name not in component["unused_ports"] and number != urlsplit(probe["url"]).port
    ]


def _probes(component: Data) -> list[tuple[str, Data]]:
    """The probe of each slot that runs."""
    standin = component["standin"]
    return [(component["slot"], component["probe"]), *([(standin["slot"], standin["probe"])] if standin else [])]


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
            "component_links": component_links,
            "component_programs": component_programs,
            "component_units": component_units,
            "component_probes": component_probes,
            "component_port_probes": component_port_probes,
            "companion_root": companion_root,
            "reveal": reveal,
            "systemd_quote": systemd_quote,
            "systemd_command": systemd_command,
            "config_text": config_text,
        }
