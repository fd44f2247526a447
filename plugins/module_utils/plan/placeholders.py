# GNU General Public License v3.0+ (see LICENSE)
"""Placeholders in the words of a definition or of the inventory: those that nothing would fill in are found here, and not by the program."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator

from .findings import Findings
from .model import Service
from .secrets import rules_of

PLAIN = ("domain", "version", "architecture", "machine", "host", "slot", "listen")
DATABASE = ("host", "port", "name", "user", "connections")
WITH_NAME = ("port", "database", "secret")
OF_RELEASES = ("version", "architecture", "machine")
# Anything in braces that begins as a placeholder of ours does; a program may have others of its own.
SUSPECT = re.compile(r"\{([a-z]+)((?:\.[^{}\s]*)?)\}")


def check(service: Service, findings: Findings) -> None:
    """Commands, settings and the configuration file of every component."""
    for name in service.components:
        _check_commands(service, name, findings)
        _check_settings(service, name, findings)
        _check_addresses(service, name, findings)


def leaves(node: object, path: str) -> Iterator[tuple[str, str]]:
    """Every text in a tree, with its path."""
    if isinstance(node, dict):
        for key, value in node.items():
            yield from leaves(value, f"{path}.{key}")
    elif isinstance(node, list):
        for number, value in enumerate(node):
            yield from leaves(value, f"{path}.{number}")
    elif isinstance(node, str):
        yield path, node


def _check_commands(service: Service, component: str, findings: Findings) -> None:
    declared = service.components[component]
    for key in ("command", "migrate"):
        for word in declared.get(key) or []:
            if "{secret." in word:
                findings.add(
                    f"{_definition(service, component)}.{key}",
                    "has a secret, and every user of the host sees the arguments of its processes",
                    "Pass it by settings, or in config",
                )
            else:
                variable = f"{_definition(service, component)}.{key}"
                _check_text(service, component, variable, word, {*PLAIN, "executable"}, findings)


def _check_settings(service: Service, component: str, findings: Findings) -> None:
    """The inventory's own words by the inventory's variable, all others by the definition's."""
    declared = service.components[component]
    here = _definition(service, component)
    given = service.wanted.get("settings", {})
    own = {key: value for key, value in declared.get("settings", {}).items() if key not in given}
    for path, text in [*leaves(own, f"{here}.settings"), *leaves(given, f"{service.variable}.settings")]:
        _check_text(service, component, path, text, PLAIN, findings)
    content = (declared.get("config") or {}).get("content", {})
    for root, node in (
        (f"{here}.config.content", content),
        (f"{service.variable}.config", service.wanted.get("config", {})),
    ):
        for path, text in leaves(node, root):
            _check_text(service, component, path, text, PLAIN, findings)


def _check_addresses(service: Service, component: str, findings: Findings) -> None:
    """Where its programs come from; that is known before any slot is."""
    declared, here = service.components[component], _definition(service, component)
    programs = {"release": declared.get("release", {})}
    programs |= {f"companions.{name}": program for name, program in declared.get("companions", {}).items()}
    for path, program in programs.items():
        for key in ("address", "member"):
            for match in SUSPECT.finditer(program.get(key) or ""):
                if match[1] + match[2] not in OF_RELEASES:
                    findings.add(
                        f"{here}.{path}.{key}",
                        f"has {match[0]}, which nothing fills in there",
                        f"Take one of: {_braces(OF_RELEASES)}",
                    )


def _check_text(
    service: Service, component: str, variable: str, text: str, plain: Collection[str], findings: Findings
) -> None:
    for match in SUSPECT.finditer(text):
        word, name = match[1], match[2].removeprefix(".")
        dotted = bool(match[2])
        if word in plain and not dotted:
            continue
        known = _names(service, component)
        if dotted and word in known:
            if name not in known[word]:
                findings.add(
                    variable,
                    f"has {match[0]}, and there is no such {_kind(word)}" + _of(service, component, word),
                    f"Take one of: {_braces(f'{word}.{each}' for each in known[word]) or 'none, there is none'}",
                )
            elif word == "secret" and name not in (service.wanted.get("secrets") or {}):
                findings.add(
                    f"{service.variable}.secrets.{name}",
                    f"is missing, and {variable} has it",
                    "Set it, or take it out there",
                )
        elif _meant(word, dotted):
            findings.add(
                variable,
                f"has {match[0]}, which nothing fills in there",
                f"Take one of: {_braces([*plain, *(f'{each}.<name>' for each in WITH_NAME)])}",
            )


def _names(service: Service, component: str) -> dict[str, list[str]]:
    return {
        "port": list(service.ports(component)),
        "database": list(DATABASE) if service.database else [],
        "secret": sorted(rules_of(service)),
    }


def _meant(word: str, dotted: bool) -> bool:
    """Whether what begins with a word in braces was to be one of ours, such as {ports.http}."""
    return word in (*PLAIN, *WITH_NAME, "executable") or (dotted and word.rstrip("s") in WITH_NAME)


def _kind(word: str) -> str:
    return {"port": "port", "database": "word of a database", "secret": "secret"}[word]


def _of(service: Service, component: str, word: str) -> str:
    return f" of {component}" if word == "port" else f" of {service.name} {service.version}"


def _braces(words: Collection[str] | Iterator[str]) -> str:
    return ", ".join(f"{{{word}}}" for word in words)


def _definition(service: Service, component: str) -> str:
    return f"services/{service.name}.yml.components.{component}"
