# GNU General Public License v3.0+ (see LICENSE)
"""What is wrong with the gates that an inventory adds to a rollout; found here, and not when users are on the new version already."""

from __future__ import annotations

from collections.abc import Iterable
from urllib.parse import urlsplit

from ..rollout.own_gates import PLACEHOLDER, PORTS, WORDS
from .findings import Findings
from .model import Data, Service


def check(services: Iterable[Service], findings: Findings) -> None:
    for service in services:
        names: set[str] = set()
        for number, gate in enumerate(service.wanted.get("rollout", {}).get("gates", [])):
            variable = f"{service.variable}.rollout.gates.{number}"
            if gate.get("name") in names:
                findings.add(f"{variable}.name", f"{gate['name']} is the name of another gate", "Give each its own")
            names.add(gate.get("name", ""))
            _check(service, variable, gate, findings)


def _check(service: Service, variable: str, gate: Data, findings: Findings) -> None:
    kinds = [kind for kind in ("command", "prometheus") if kind in gate]
    if len(kinds) != 1:
        problem = "has both a command and a query of Prometheus" if kinds else "has neither command nor prometheus"
        findings.add(
            variable, problem, "Give each gate one of them: command, a list of words, or prometheus with url and query"
        )
        return
    if kinds == ["command"]:
        _check_command(variable, gate, findings)
        return
    for key in ("where", "user"):
        if key in gate:
            findings.add(
                f"{variable}.{key}", "is for a command; Prometheus is asked from the controller", "Take it out"
            )
    _check_prometheus(service, f"{variable}.prometheus", gate["prometheus"], findings)


def _check_command(variable: str, gate: Data, findings: Findings) -> None:
    program = gate["command"][0]
    if gate.get("where", "host") == "controller":
        if "user" in gate:
            findings.add(
                f"{variable}.user", "is for a command on a host; on the controller it runs as you", "Take it out"
            )
    elif not program.startswith("/"):
        findings.add(
            f"{variable}.command.0",
            f"{program} is to run on the host, and is no path from its root",
            f"Write where it lies there, such as /usr/local/bin/{program.rpartition('/')[2]}, or set where: controller",
        )


def _check_prometheus(service: Service, variable: str, asked: Data, findings: Findings) -> None:
    # Never quoted: a password may stand in it.
    try:
        url = urlsplit(asked.get("url", "http://missing.is.said.already"))
        plain = url.scheme in ("http", "https") and bool(url.hostname) and not (url.query or url.fragment)
    except ValueError:
        url, plain = urlsplit(""), False
    if url.username or url.password:
        findings.add(
            f"{variable}.url",
            "has a login in it, which logs would show",
            "Put the login into ~/.netrc on the controller",
        )
    elif not plain:
        findings.add(
            f"{variable}.url",
            "is no address of a server",
            "Write it as http://monitor.example.com:9090, without /api/v1",
        )
    below, above = asked.get("below"), asked.get("above")
    if below is None and above is None:
        findings.add(variable, "has no bound, so that every value would be right", "Set below, above or both")
    elif below is not None and above is not None and above >= below:
        findings.add(
            f"{variable}.above",
            f"is {above:g}, and nothing is above that and below {below:g}",
            "Set it lower than below",
        )
    ports = {name for component in service.components for name in service.ports(component)}
    known = [word for word in WORDS if word not in PORTS or word in ports]
    for word in PLACEHOLDER.findall(asked.get("query", "")):
        if word not in known:
            findings.add(
                f"{variable}.query",
                f"{{{word}}} stands for nothing",
                f"Known are: {', '.join(f'{{{each}}}' for each in known)}",
            )
