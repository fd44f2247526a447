# GNU General Public License v3.0+ (see LICENSE)
"""Where a component's program comes from: one class per kind of release, with what is wrong with it and what the role is told.

A further kind is a class here with its key in KINDS, its key in the definition's schema, and its half on the host in `module_utils/release`.
"""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Protocol

from . import versions
from .distributions import DISTRIBUTIONS, ROLE_PACKAGES
from .distributions import packages as role_packages
from .findings import Findings
from .model import Data, Service

BY_ARCHITECTURE = re.compile(r"\{(architecture|machine)\}")
PLACEHOLDER = re.compile(r"\{([a-z_]+(?:\.[A-Za-z0-9_]+)?)\}")


def fill(text: str, values: Data) -> str:
    """Placeholders filled in; `{secret.*}` and unknown ones stay as they are."""
    return PLACEHOLDER.sub(lambda match: str(values.get(match[1], match[0])), text)


class Kind(Protocol):
    """`strategies`: the ways in which a rollout may take the component from one version to another."""

    strategies: tuple[str, ...]

    def check(self, service: Service, component: str, declared: Data, findings: Findings) -> None: ...

    def describe(self, declared: Data, wanted: Data, version: str, values: Data) -> Data:
        """The `release` of a slice. `declared` is the definition's, `wanted` the inventory's."""


class Archive:
    """A program, or an archive with it, from an address or the controller: every version lies beside the others."""

    strategies: tuple[str, ...] = ("rolling", "blue_green", "canary", "restart")

    def check(self, service: Service, component: str, declared: Data, findings: Findings) -> None:
        wanted = service.wanted.get("release", {})
        if service.version == versions.DISTRIBUTION:
            findings.add(
                f"{service.variable}.version",
                f"is {versions.DISTRIBUTION}, and {service.name} is no package of the distribution",
                "Name the version",
            )
        if not (wanted.get("source") or declared.get("address")):
            findings.add(
                f"{service.variable}.release.source",
                f"{service.name} {service.version} has no public address",
                "Name a file on the controller or an https address",
            )
        checksums = wanted.get("checksum") or declared.get("checksums", {}).get(service.version)
        if not checksums:
            findings.add(
                f"{service.variable}.release.checksum",
                "is missing",
                "Set it to sha256:<64 hexadecimal digits>; publishers put it beside the file as .sha256",
            )
        check_checksums(service, f"{service.variable}.release", checksums, wanted, declared, findings)
        if str(declared.get("executable", "")).startswith("/"):
            findings.add(
                f"{_variable(service, component)}.executable",
                f"is {declared['executable']}, and a release from an address or a file lies in a folder of its own",
                "Write the program's name alone; or, if Debian has it in a package, name that as release.package",
            )

    def describe(self, declared: Data, wanted: Data, version: str, values: Data) -> Data:
        mine = {**values, "version": version}
        given = wanted.get("source")
        member = wanted.get("member") if given else declared.get("member")
        checksums = wanted.get("checksum") or declared.get("checksums", {}).get(version, {})
        return {
            "version": version,
            "source": given or fill(declared.get("address", ""), mine),
            "checksum": checksums.get(values["architecture"], "") if isinstance(checksums, dict) else checksums,
            "member": fill(member, mine) if member else None,
            "executable": declared.get("executable", "program"),
            "version_command": declared.get("version_command", ["{executable}", "--version"]),
            "version_pattern": declared.get("version_pattern", "{version}"),
            "keep": declared.get("keep", 3),
        }


class Package:
    """A package of Debian's: dpkg has one version of it, which both slots run, so that a rollout can only start it again."""

    strategies: tuple[str, ...] = ("restart",)

    def check(self, service: Service, component: str, declared: Data, findings: Findings) -> None:
        package, variable = declared["package"], _variable(service, component)
        if superfluous := sorted(set(declared) - {"package", "executable", "units", "distributions"}):
            findings.add(
                variable,
                f"has package and {', '.join(superfluous)}, and a package comes from Debian's archive, which vouches for it",
                "Keep package, or what says where else the program comes from",
            )
        for key in service.wanted.get("release", {}):
            findings.add(
                f"{service.variable}.release.{key}",
                f"is of no use: {service.name} is Debian's package {package}",
                "Take it out",
            )
        if not program(declared).startswith("/"):
            findings.add(
                f"{variable}.executable",
                f"is {program(declared)}, and the program of a package is named by its whole path",
                f"Write it as /usr/bin/{program(declared)}",
            )
        if package in _of_roles():
            findings.add(
                f"{variable}.package",
                f"{package} is installed and run by a role of this collection, and its unit would be masked",
                "Take another program, or another package that has it",
            )
        lacking = [host for host in service.hosts if host.os not in declared.get("distributions", [host.os])]
        for host in lacking:
            findings.add(
                f"hosts.{host.name}.fleet_os",
                f"{host.os} has no package {package}, which {service.name} is",
                f"Run it on a host with {' or '.join(declared['distributions'])}: see {service.variable}.hosts",
            )

    def describe(self, declared: Data, wanted: Data, version: str, values: Data) -> Data:  # noqa: ARG002 (Kind's)
        path = program(declared)
        return {
            "version": version,
            "package": declared["package"],
            "program": path,
            "executable": PurePosixPath(path).name,
            "units": declared.get("units", [f"{declared['package']}.service"]),
            "keep": 1,
        }


ARCHIVE, PACKAGE = Archive(), Package()
KINDS: dict[str, Kind] = {"package": PACKAGE}


def kind_of(declared: Data) -> Kind:
    """By the key that only one kind has; most releases are files."""
    return next((kind for key, kind in KINDS.items() if key in declared), ARCHIVE)


def program(declared: Data) -> str:
    """The path of a package's program."""
    return str(declared.get("executable", f"/usr/bin/{declared['package']}"))


def check_checksums(
    service: Service, variable: str, checksums: Data | str | None, wanted: Data, declared: Data, findings: Findings
) -> None:
    """Every host has the checksum of the file that is for its architecture."""
    first = {host.architecture: host for host in reversed(service.hosts)}
    if isinstance(checksums, dict):
        for architecture in sorted(set(first) - set(checksums)):
            findings.add(
                f"{variable}.checksum.{architecture}",
                f"is missing, and {first[architecture].name} is of that architecture",
                f"Add it, or run {service.name} on hosts with {' or '.join(sorted(checksums))}: see {service.variable}.hosts",
            )
    elif (
        checksums
        and len(first) > 1
        and not wanted.get("source")
        and BY_ARCHITECTURE.search(declared.get("address", ""))
    ):
        findings.add(
            f"{variable}.checksum",
            f"is of one file, and there is one for each of {', '.join(sorted(first))}",
            f"Write it by architecture: {{{', '.join(f'{name}: sha256:...' for name in sorted(first))}}}",
        )


def check(service: Service, findings: Findings) -> None:
    """What is wrong with the releases of a service's components."""
    for component, declared in service.components.items():
        release = declared.get("release", {})
        kind_of(release).check(service, component, release, findings)


def check_shared(services: list[Service], findings: Findings) -> None:
    """A host has one version of a package, whichever services run it."""
    first: dict[tuple[str, str], Service] = {}
    for service in services:
        for entry in packaged([service]):
            for host in service.hosts:
                other = first.setdefault((host.name, entry["package"]), service)
                if other.version != service.version:
                    findings.add(
                        f"{service.variable}.version",
                        f"is {service.version}, and {other.name} wants {entry['package']} {other.version} on {host.name}, "
                        "which can have one version of a package",
                        "Give both the same version, or run them on different hosts",
                    )


def packaged(services: list[Service]) -> list[Data]:
    """What the role `baseline` is told of packages that services run: which version may come, whose units may not."""
    found: dict[str, Data] = {}
    for service in services:
        for component in service.components.values():
            release = component.get("release", {})
            if "package" in release:
                entry = PACKAGE.describe(release, {}, service.version, {})
                pinned = None if service.version == versions.DISTRIBUTION else service.version
                units = {*entry["units"], *found.get(entry["package"], {"units": []})["units"]}
                found[entry["package"]] = {
                    "package": entry["package"],
                    "version": pinned,
                    "units": sorted(units),
                }
    return [found[name] for name in sorted(found)]


def packages(services: list[Service]) -> list[str]:
    """Every package that the components of services are, or need beside."""
    beside = {
        name
        for service in services
        for component in service.components.values()
        for name in component.get("packages", [])
    }
    return sorted(beside | {entry["package"] for entry in packaged(services)})


def _variable(service: Service, component: str) -> str:
    return f"services/{service.name}.yml.components.{component}.release"


def _of_roles() -> set[str]:
    return {
        name for distribution in DISTRIBUTIONS.values() for name in role_packages(distribution, list(ROLE_PACKAGES), [])
    }
