# GNU General Public License v3.0+ (see LICENSE)
"""Settings of the inventory that would contradict the plan, or that do nothing as their names have a slip of the pen."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator

from .findings import Findings
from .model import Service
from .placeholders import leaves
from .secrets import rules_of

# Firewall, probe, edge and pools go by these; what the program is told has to be the same.
COMPUTED = re.compile(r"\{((?:port|database)\.[A-Za-z0-9_]+|listen)\}")
# How alike two names are after their common prefix, from 0 to 1: METRICS_PROT is METRICS_PORT, MAX_CONNECTIONS is another one than MAX_CONNECTIONS_PER_IP.
ALIKE = 0.88


def check(service: Service, findings: Findings) -> None:
    """A setting that the plan computes is not the inventory's to set, unless it has the same placeholders in it."""
    for component, variable, computed, text in _overridden(service):
        lacking = [word for word in dict.fromkeys(COMPUTED.findall(computed)) if f"{{{word}}}" not in text]
        if lacking:
            words = " and ".join(f"{{{word}}}" for word in lacking)
            instead = [remedy for word in lacking if (remedy := _instead(service, component, word))]
            findings.add(
                variable,
                f"takes the place of what the plan computes from {words}, by which everything around {service.name} goes",
                "; ".join(["Take it out", *(instead or ["nothing has to be set instead"])]),
            )
    for name in service.wanted.get("settings", {}):
        if name in rules_of(service):
            findings.add(
                f"{service.variable}.settings.{name}",
                "is a secret, and settings are shown",
                f"Move it to {service.variable}.secrets.{name}",
            )


def near_misses(service: Service) -> list[str]:
    """Notes on settings that are called nearly as one that the definition names. Only nearly: most settings it does not name."""
    known = {*rules_of(service)}
    for component in service.components.values():
        known |= {*component.get("settings", {}), *component.get("several_hosts", {})}
        known |= {name for each in component.get("companions", {}).values() for name in each.get("unless", {})}
    return [
        f"{service.variable}.settings.{name} is no setting that the definition of {service.name} names, and {alike[0]} is: "
        f"if that was meant, mend it"
        for name in service.wanted.get("settings", {})
        if name not in known and (alike := _alike(name, known))
    ]


def _alike(name: str, known: set[str]) -> list[str]:
    prefix = name.partition("_")[0] + "_"
    rests = [each.removeprefix(prefix) for each in sorted(known) if each.startswith(prefix)]
    return [prefix + rest for rest in difflib.get_close_matches(name.removeprefix(prefix), rests, 1, ALIKE)]


def _overridden(service: Service) -> Iterator[tuple[str, str, str, str]]:
    """Component, variable, the definition's text and the inventory's, for all that both have."""
    for name, component in service.components.items():
        content = (component.get("config") or {}).get("content", {})
        for key, own, wanted in (
            ("settings", component.get("settings", {}), service.wanted.get("settings", {})),
            ("config", content, service.wanted.get("config", {})),
        ):
            given = {path: str(value) for path, value in _values(wanted, f"{service.variable}.{key}")}
            for path, text in leaves(own, f"{service.variable}.{key}"):
                # A whole branch may be replaced by something else.
                covering = next((over for over in given if path == over or path.startswith(f"{over}.")), None)
                if covering is not None:
                    yield name, covering, text, given[covering]


def _values(node: object, path: str) -> Iterator[tuple[str, object]]:
    """As the merge sees it: mappings go on key by key, anything else is a whole."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from _values(value, f"{path}.{key}")
    else:
        yield path, node


def _instead(service: Service, component: str, word: str) -> str | None:
    kind, _dot, name = word.partition(".")
    if kind == "port":
        return f"the port is set by {service.variable}.ports.{component}.{name}.blue and .green"
    if word == "database.connections":
        return f"their number is set by {service.variable}.database.connections"
    return None
