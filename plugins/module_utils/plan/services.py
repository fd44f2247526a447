# GNU General Public License v3.0+ (see LICENSE)
"""From the inventory's words to services with their contracts, hosts, releases and settings; what is wrong is found here."""

from __future__ import annotations

import ipaddress
import json
import re
from collections.abc import Iterable

from . import overrides, placeholders, releases, secrets
from .definitions import Definitions, contract
from .findings import Findings
from .model import SLOTS, Data, Inventory, Service

DOMAIN = re.compile(r"(?=.{1,253}\Z)(?!-)([a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z][a-z0-9-]{0,61}[a-z0-9]\Z")


def resolve(inventory: Inventory, definitions: Definitions, findings: Findings) -> list[Service]:
    """Every service that can be understood; everything else is a finding."""
    services = []
    for name, wanted in inventory.services.items():
        service = _service(name, wanted, inventory, definitions, findings)
        if service is not None:
            services.append(service)
    _check_domains(inventory, services, findings)
    releases.check_shared(services, findings)
    _check_databases(services, findings)
    return services


def _service(
    name: str, wanted: Data, inventory: Inventory, definitions: Definitions, findings: Findings
) -> Service | None:
    definition = definitions.load(name, findings)
    group = str(wanted.get("hosts", name))
    hosts = tuple(inventory.members(group))
    if not hosts:
        known = ", ".join(
            sorted(
                group for group, members in inventory.groups.items() if members and group not in ("all", "ungrouped")
            )
        )
        findings.add(
            f"fleet_services.{name}.hosts",
            f"the group {group} has no hosts" if "hosts" in wanted else f"is missing, and no group {group} has hosts",
            f"Put a host into it, or name one of: {known}",
        )
    if definition is None or "version" not in wanted:
        return None
    version = str(wanted["version"])
    applicable = contract(definition, version)
    if applicable is None:
        ranges = "; ".join(entry["versions"] for entry in definition["contracts"])
        findings.add(
            f"fleet_services.{name}.version",
            f"no contract of {name} covers {version}",
            f"Choose a version in one of: {ranges}",
        )
        return None
    service = Service(name, version, wanted, applicable, hosts, inventory.live.get(name, {}))
    secrets.check(service, findings)
    releases.check(service, findings)
    _check_companions(service, findings)
    _check_ports_known(service, findings)
    _check_listeners(service, findings)
    _check_order(service, findings)
    placeholders.check(service, findings)
    overrides.check(service, findings)
    _check_several_hosts(service, findings)
    _check_egress(service, findings)
    _check_database_secret(service, findings)
    return service


def _check_domains(inventory: Inventory, services: list[Service], findings: Findings) -> None:
    """The form of every name, even of services that are wrong otherwise; and that one is there where it is needed."""
    for service in services:
        if service.contract.get("routes") and not service.wanted.get("domain"):
            findings.add(
                f"{service.variable}.domain",
                "is missing",
                "Set the name under which users reach it, such as api.example.com",
            )
    taken: dict[str, str] = {}
    for name, wanted in inventory.services.items():
        aliases = wanted.get("aliases")
        for domain in [wanted.get("domain"), *(aliases if isinstance(aliases, list) else [])]:
            variable = f"fleet_services.{name}.domain"
            if domain is None:
                continue
            if not DOMAIN.match(str(domain)):
                findings.add(
                    variable, f"{domain!r} is no domain name", "Write it in lower case and without https:// or a path"
                )
            elif domain in taken:
                findings.add(
                    variable, f"{domain} belongs to {taken[domain]} already", "Give each service a name of its own"
                )
            taken.setdefault(str(domain), name)


def settings(service: Service, component: str) -> Data:
    """Environment of a component before placeholders are filled in, the inventory's over the definition's."""
    merged = {**service.components[component].get("settings", {}), **service.wanted.get("settings", {})}
    return {name: text(value) for name, value in merged.items() if value is not None}


def text(value: object) -> str:
    """A setting as the environment has it: true and false in small letters."""
    return str(value).lower() if isinstance(value, bool) else str(value)


def companions(service: Service, component: str) -> Data:
    """Companions that a component needs with its settings."""
    environment = settings(service, component)
    declared: Data = service.components[component].get("companions", {})
    return {
        name: companion
        for name, companion in declared.items()
        if not _switched_off(companion.get("unless", {}), environment)
    }


def unused_ports(service: Service, component: str) -> list[str]:
    """Ports that a component does not listen on with its settings."""
    environment = settings(service, component)
    declared: Data = service.components[component].get("ports_unless", {})
    return sorted(name for name, unless in declared.items() if _switched_off(unless, environment))


def _switched_off(unless: Data, environment: Data) -> bool:
    return any(environment.get(key, "").lower() == value for key, value in unless.items())


def _check_companions(service: Service, findings: Findings) -> None:
    given = service.wanted.get("companions", {})
    for component, declared in service.components.items():
        for name, companion in companions(service, component).items():
            if name not in given:
                switches = " or ".join(
                    f'settings.{key}: "{value}"' for key, value in companion.get("unless", {}).items()
                )
                findings.add(
                    f"{service.variable}.companions.{name}",
                    f"is missing ({companion.get('description', 'needed on PATH')})",
                    "Set its version and checksum" + (f", or {switches}" if switches else ""),
                )
                continue
            variable = f"{service.variable}.companions.{name}"
            checksum = given[name].get("checksum")
            releases.check_checksums(service, variable, checksum, given[name], companion, findings)
        for name in given:
            if name not in declared.get("companions", {}):
                findings.add(
                    f"{service.variable}.companions.{name}",
                    f"is no companion of {service.name} {service.version}",
                    "Take it out",
                )


def _check_ports_known(service: Service, findings: Findings) -> None:
    for component, ports in service.wanted.get("ports", {}).items():
        if component not in service.components:
            findings.add(
                f"{service.variable}.ports.{component}",
                "is no component",
                f"Known are: {', '.join(service.components)}",
            )
            continue
        declared = service.components[component].get("ports", {})
        for name, slots in ports.items():
            variable = f"{service.variable}.ports.{component}.{name}"
            if name not in declared:
                findings.add(variable, f"is no port of {component}", f"Known are: {', '.join(declared) or 'none'}")
            for slot in slots:
                if slot not in SLOTS:
                    findings.add(f"{variable}.{slot}", "is no slot", f"Known are: {', '.join(SLOTS)}")


def _check_listeners(service: Service, findings: Findings) -> None:
    """Each component is asked at a port, whether it is up, and nginx sends requests to the port `http`."""
    here = f"services/{service.name}.yml"
    for name, component in service.components.items():
        port = component.get("probe", {}).get("port", "http")
        if port not in service.ports(name):
            findings.add(
                f"{here}.components.{name}.probe.port",
                f"is {port}, and {name} has no such port",
                f"Add it to the component's ports{_or_one_of(service.ports(name))}",
            )
    serving = [name for name in service.components if "http" in service.ports(name)]
    for number, route in enumerate(service.contract.get("routes", [])):
        component = route.get("component", next(iter(service.components), None))
        if route["kind"] == "closed" or component in serving:
            continue
        if component in service.components:
            problem = f"{route['path']} is answered by {component}, which has no port called http"
            remedy = f"Call the port http at which {component} takes requests{_or_one_of(serving, 'name as component')}"
        else:
            problem = f"{route['path']} is answered by {component}, which is no component"
            remedy = f"Name one that is there{_or_one_of(serving)}"
        findings.add(f"{here}.routes.{number}.component", problem, remedy)


def _check_order(service: Service, findings: Findings) -> None:
    """The first route that matches counts, so a closed one behind a broader one would be open. "/" counts last wherever it stands."""
    above: list[str] = []
    for number, route in enumerate(service.contract.get("routes", [])):
        path = route["path"].lower().rstrip("/")
        for earlier in above:
            if path == earlier or (earlier and path.startswith(f"{earlier}/")):
                findings.add(
                    f"services/{service.name}.yml.routes.{number}.path",
                    f"{route['path']} is never reached: {earlier or '/'} above it takes its requests",
                    "Put the longer path above the shorter one, and each path once",
                )
                break
        above.append(path)


def _or_one_of(names: Iterable[str], verb: str = "take") -> str:
    words = ", ".join(names)
    return f", or {verb} one of: {words}" if words else ""


def _check_databases(services: list[Service], findings: Findings) -> None:
    """Two services in one database, or as one role, would have each other's tables, and the password of whoever came last."""
    for key in ("name", "user"):
        owners: dict[str, Service] = {}
        for service in services:
            if service.database:
                owner = owners.setdefault(service.database[key], service)
                if owner is not service:
                    findings.add(
                        f"services/{service.name}.yml.database.{key}",
                        f"is {service.database[key]}, and that is {owner.name}'s already",
                        f"Give each service its own; {service.name.replace('-', '_')} is the default",
                    )


def _check_several_hosts(service: Service, findings: Findings) -> None:
    """Defaults that suit one host and lose data or do work twice on several: the inventory has to say what it wants."""
    if len(service.hosts) < 2:
        return
    for component in service.components.values():
        for name, rule in component.get("several_hosts", {}).items():
            if name not in service.wanted.get("settings", {}):
                findings.add(
                    f"{service.variable}.settings.{name}",
                    f"is missing, and {service.name} runs on {len(service.hosts)} hosts: {rule['reason']}",
                    f"Set it to {json.dumps(rule['value'])}, or to what suits this fleet",
                )


def _check_egress(service: Service, findings: Findings) -> None:
    for number, address in enumerate(service.wanted.get("egress", [])):
        if address == "any":
            continue
        try:
            ipaddress.ip_network(str(address), strict=True)
        except ValueError as error:
            findings.add(
                f"{service.variable}.egress.{number}",
                f"{error}",
                "Write an address, a network such as 203.0.113.0/24, or any",
            )


def _check_database_secret(service: Service, findings: Findings) -> None:
    """Roles, databases and pools are made with this secret: without it a run would fail in the middle."""
    if service.database and service.database["password"] not in (service.contract.get("secrets") or {}):
        findings.add(
            f"services/{service.name}.yml.secrets.{service.database['password']}",
            "is missing: the password of its database role",
            "Add it to the definition's secrets, or name another one as database.password",
        )
