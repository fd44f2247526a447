# GNU General Public License v3.0+ (see LICENSE)
"""Which certificates a host has, who issues them, and what public authorities ask for in return."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from .findings import Findings
from .model import Data, Host, Service
from .network import Topology

PROVIDED = ("certificate", "key")
TLS = "/etc/selfhost/tls"
SERVERS = {
    "production": "https://acme-v02.api.letsencrypt.org/directory",
    "staging": "https://acme-staging-v02.api.letsencrypt.org/directory",
}
# No public authority certifies names that nobody can own (RFC 2606, RFC 6762, RFC 8375 and ICANN's `internal`).
UNOWNED = ("test", "example", "invalid", "localhost", "local", "internal", "home.arpa", "lan")


def certificates(topology: Topology, host: Host) -> list[Data]:
    """Every certificate of a host's slice."""
    found = [_site(topology, service) for service in served(topology, host)]
    if host == topology.database:
        names = sorted({"localhost", host.name, *([] if _is_address(host.address) else [host.address])})
        addresses = sorted({"127.0.0.1", *([host.address] if _is_address(host.address) else [])})
        found.append(_internal("postgres", names, addresses, "postgresql.service"))
    elif topology.pooled(host):
        # Its authority's certificate is what the pooler checks PostgreSQL by.
        found.append(_internal("pooler", [host.name], [], "pgbouncer.service"))
    return found


def acme(topology: Topology, host: Host) -> Data | None:
    """How a host speaks with a public authority; None where none of its certificates comes from one."""
    public = [entry for entry in certificates(topology, host) if entry["mode"] == "acme"]
    if not public:
        return None
    wanted = _wanted(topology)
    return {
        "server": _server(wanted),
        "email": wanted.get("email", ""),
        "ca_file": wanted.get("ca_file", ""),
        "certificates": [{key: entry[key] for key in ("name", "domains", "directory")} for entry in public],
    }


def mode(topology: Topology, service: Service) -> str:
    """Who issues a service's certificate, in one word."""
    return str(service.wanted.get("certificate", {}).get("mode") or _wanted(topology).get("mode", "local_ca"))


def stapling(topology: Topology, service: Service) -> bool:
    """Whether the authority may answer for its certificates by OCSP. Let's Encrypt ended that in 2025, and the fleet's own never did."""
    own = mode(topology, service)
    return own == "provided" or (own == "acme" and _server(_wanted(topology)) not in SERVERS.values())


def served(topology: Topology, host: Host) -> list[Service]:
    """Services that a host shows to their users."""
    return [service for service in topology.services if service.domains] if host in topology.edges else []


def check(topology: Topology, findings: Findings) -> None:
    """What is provided is there; and what would make a public authority refuse, as far as the inventory tells."""
    wanted = _wanted(topology)
    for service in topology.services:
        if service.domains and mode(topology, service) == "provided":
            for part in PROVIDED:
                if not service.wanted.get("certificate", {}).get(part):
                    findings.add(
                        f"{service.variable}.certificate.{part}",
                        "is missing, and the mode is provided",
                        "Name a file on the controller, or the variable of a vault that has its text",
                    )
    users = [service for service in topology.services if service.domains and mode(topology, service) == "acme"]
    if not users:
        return
    ca_file = str(wanted.get("ca_file") or "")
    if ca_file and not (Path(ca_file).expanduser().is_absolute() and Path(ca_file).expanduser().is_file()):
        findings.add(
            "fleet_certificates.ca_file",
            f"{ca_file} is no file on the controller",
            "Write the absolute path of the PEM file with the authority's own certificate",
        )
    if len(topology.edges) > 1:
        # The authority asks whichever edge the name leads it to, and only one of them knows the answer.
        findings.add(
            "fleet_certificates.mode",
            f"acme works with one edge, and there are {len(topology.edges)}: {', '.join(h.name for h in topology.edges)}",
            "Use provided or local_ca, or take all but one host out of the group edge",
        )
    if _server(wanted) not in SERVERS.values():
        return
    for service in users:
        for domain in service.domains:
            if any(domain.endswith(f".{ending}") for ending in UNOWNED):
                findings.add(
                    f"{service.variable}.domain",
                    f"no public authority gives a certificate for {domain}",
                    f"Use a domain of your own, or set {service.variable}.certificate.mode to local_ca",
                )


def _site(topology: Topology, service: Service) -> Data:
    name = service.domains[0]
    entry: Data = {
        "name": name,
        "domains": service.domains,
        "addresses": [],
        "mode": mode(topology, service),
        "directory": f"{TLS}/{name}",
        "owner": "root",
        "group": "root",
        "reload": ["nginx.service"],
    }
    if entry["mode"] == "provided":
        # Either may be the text itself, from a vault: the plan is shown and cached, and refers to it as to any secret.
        entry["provided"] = {part: {"service": service.name, "name": part} for part in PROVIDED}
    return entry


def _internal(name: str, domains: list[str], addresses: list[str], unit: str) -> Data:
    return {
        "name": name,
        "domains": domains,
        "addresses": addresses,
        "mode": "local_ca",
        "directory": f"{TLS}/{name}",
        "owner": "postgres",
        "group": "postgres",
        "reload": [unit],
    }


def _wanted(topology: Topology) -> Data:
    return dict(topology.inventory.variables.get("fleet_certificates") or {})


def _server(wanted: Data) -> str:
    given = str(wanted.get("server") or "production")
    return SERVERS.get(given, given)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True
