# GNU General Public License v3.0+ (see LICENSE)
"""One host's part of the plan, put together from all else."""

from __future__ import annotations

from typing import Any

from . import budget, certificates, distributions, hardening, releases
from .certificates import TLS
from .components import component
from .firewall import bans, firewall
from .model import Data, Host, Service
from .network import POOLER_PORT, POSTGRES_PORT, Topology
from .sets import sets

ROLES = (
    "baseline",
    "users",
    "ssh",
    "hardening",
    "firewall",
    "bans",
    "certificate",
    "postgres",
    "pooler",
    "service",
    "edge",
    "acme",
)


def slice_of(topology: Topology, host: Host) -> Data:
    """What `docs/plan.md` describes."""
    services = topology.on(host)
    pooled = topology.pooled(host)
    databases = [service for service in topology.services if service.database] if host == topology.database else []
    is_edge = host in topology.edges
    banned = bans(topology, host)
    acme = certificates.acme(topology, host)
    present = {
        "baseline": True,
        "hardening": True,
        "users": True,
        "ssh": True,
        "firewall": True,
        "bans": banned is not None,
        "certificate": is_edge or host == topology.database or bool(pooled),
        "postgres": host == topology.database,
        "pooler": bool(pooled),
        "service": bool(services),
        "edge": is_edge,
        "acme": acme is not None,
    }
    roles = [role for role in ROLES if present[role]]
    extensions = sorted({extension for service in databases for extension in (service.database or {})["extensions"]})
    distribution = distributions.DISTRIBUTIONS[host.os]
    components = [component(topology, service, name, host) for service in services for name in service.components]
    return {
        "name": host.name,
        "address": host.address,
        "os": host.os,
        "roles": roles,
        "sets": sets(roles, hardening.active(host), [entry["unit"] for entry in components]),
        "packages": sorted(
            {
                *distributions.packages(distribution, roles, extensions),
                *hardening.packages(host),
                *releases.packages(services),
            }
        ),
        "packaged": releases.packaged(services),
        "hardening": hardening.hardening(topology.inventory, host),
        "admins": topology.inventory.variables.get("fleet_admins") or [],
        "firewall": firewall(topology, host),
        "bans": banned,
        "acme": acme,
        "certificates": certificates.certificates(topology, host),
        "postgres": _postgres(topology, host, distribution.postgres, databases) if present["postgres"] else None,
        "pooler": _pooler(topology, host, pooled) if pooled else None,
        "components": components,
        # Slots that run beside those: during a rotation or a rollout.
        "standins": [],
        "edge": {"sites": [site(topology, service, host) for service in topology.services if service.domains]}
        if is_edge
        else None,
    }


def _secret(service: Service) -> Data:
    return {"service": service.name, "name": (service.database or {})["password"]}


def _postgres(topology: Topology, host: Host, version: int, services: list[Service]) -> Data:
    wanted = topology.inventory.variables.get("fleet_postgres") or {}
    remote = [client for client in topology.pooler_hosts if client != host]
    hba: list[Data] = []
    roles: list[Data] = []
    databases: list[Data] = []
    for service in services:
        need: dict[str, Any] = service.database or {}
        roles.append({"name": need["user"], "attributes": need["attributes"], "secret": _secret(service)})
        databases.append({"name": need["name"], "owner": need["user"], "extensions": need["extensions"]})
        addresses = ["127.0.0.1/32"] if host in service.hosts else []
        addresses += [
            f"{client.address}/{128 if ':' in client.address else 32}" for client in service.hosts if client != host
        ]
        hba += [
            {
                "type": "hostssl",
                "database": need["name"],
                "user": need["user"],
                "address": address,
                "method": "scram-sha-256",
            }
            for address in addresses
        ]
    return {
        "version": version,
        "port": POSTGRES_PORT,
        "listen": ["127.0.0.1", *([host.address] if remote else [])],
        "max_connections": budget.max_connections(topology.inventory),
        "settings": wanted.get("settings", {}),
        "roles": roles,
        "databases": databases,
        "hba": hba,
        "certificate": f"{TLS}/postgres",
    }


def _pooler(topology: Topology, host: Host, services: list[Service]) -> Data:
    database = topology.database
    sizes = {(share.service, share.host): share.size for share in budget.shares(topology.services)}
    pools = []
    for service in services:
        need: dict[str, Any] = service.database or {}
        pools.append(
            {
                "name": need["name"],
                "database": need["name"],
                "user": need["user"],
                "host": "127.0.0.1" if database in (None, host) else database.address if database else "",
                "port": POSTGRES_PORT,
                "tls": True,
                "ca": f"{TLS}/{'postgres' if database == host else 'pooler'}/ca.pem",
                "mode": need["pooling"],
                "size": sizes[service.name, host.name],
                "secret": _secret(service),
            }
        )
    return {
        "listen": "127.0.0.1",
        "port": POOLER_PORT,
        "max_client_conn": 2 * sum(pool["size"] for pool in pools),
        "pools": pools,
    }


def site(topology: Topology, service: Service, edge: Host) -> Data:
    """A service as an edge shows it to its users."""
    first = next(iter(service.components))
    routes: list[Data] = []
    limits: dict[str, Data] = {}
    for route in service.contract.get("routes", []):
        entry = {"match": "prefix", "timeout": 60, "body_limit": None, "login": None, "reason": "", **route}
        upstream = entry.pop("component", first)
        entry["upstream"] = _upstream_name(service, upstream)
        if "limit" in route:
            name = _upstream_name(service, "all" if route["path"] == "/" else route["path"].strip("/"))
            limits[name] = {"name": name, "rate": route["limit"]["rate"]}
            entry["limit"] = {"name": name, "burst": route["limit"].get("burst", 0)}
        else:
            entry["limit"] = None
        routes.append(entry)
    return {
        "name": service.name,
        "domains": service.domains,
        "certificate": f"{TLS}/{service.domains[0]}",
        "acme": certificates.mode(topology, service) == "acme",
        "stapling": certificates.stapling(topology, service),
        "upstreams": [
            {
                "name": _upstream_name(service, name),
                "keepalive": 32,
                "servers": [
                    {
                        "address": topology.upstream(host, edge),
                        "port": service.ports(name)["http"][service.slot_on(host)],
                        "host": host.name,
                    }
                    for host in service.hosts
                ],
            }
            for name in service.components
            if "http" in service.ports(name)
        ],
        "body_limit": service.contract.get("body_limit", "10m"),
        "connections_per_client": service.contract.get("connections_per_client", 100),
        "headers": service.contract.get("headers", {}),
        "limits": list(limits.values()),
        "routes": routes,
    }


def _upstream_name(service: Service, part: str) -> str:
    return "".join(char if char.isalnum() else "_" for char in f"{service.name}_{part}")
