"""Inventories and definitions for the tests of the plan."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ansible_collections.selfhost.fleet.plugins.module_utils.plan.compute import Plan, compute
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.definitions import Definitions
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.findings import Finding
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import Host, Inventory

ROOT = Path(__file__).resolve().parents[3]
SERVICES = ROOT / "services"
CHECKSUM = "sha256:" + "ab" * 32

JWT = "hT9kQ2vLx7RmB4nWcY8sZp3JfGdA6eUoKiXrVtNbMqEwSaDyHuCj5gP1lF0zOqRs"
SECRETS = {
    "FLUXBASE_AUTH_JWT_SECRET": JWT,
    "FLUXBASE_ENCRYPTION_KEY": "Zk3mT8qLw5RxB2nVcY7sJp4HfGdA9eUo",
    "FLUXBASE_DATABASE_PASSWORD": "b7f3e91c5a2d84f06e1b9c3d7a5f2e8041c6",
}


def fluxbase(**changes: Any) -> dict[str, Any]:
    """A good service entry, with changes; a change to None takes a key out."""
    entry: dict[str, Any] = {
        "version": "2026.3.6",
        "domain": "api.example.com",
        "hosts": "app",
        "release": {"checksum": CHECKSUM},
        "settings": {"FLUXBASE_JOBS_ENABLED": "false"},
        "secrets": dict(SECRETS),
    }
    entry.update(changes)
    return {key: value for key, value in entry.items() if value is not None}


SEVERAL_HOSTS = {
    "FLUXBASE_SCALING_BACKEND": "postgres",
    "FLUXBASE_SCALING_ENABLE_SCHEDULER_LEADER_ELECTION": "true",
    "FLUXBASE_STORAGE_PROVIDER": "s3",
}


def one_host(**variables: Any) -> Inventory:
    host = Host("web1", "192.0.2.1", os=variables.pop("os", "debian-13"))
    groups = {group: ["web1"] for group in ("all", "edge", "postgres", "app")}
    groups |= variables.pop("groups", {})
    return Inventory({"web1": host}, groups, {"fleet_services": {"fluxbase": fluxbase()}, **variables})


def three_tiers(**variables: Any) -> Inventory:
    """2 edges, 3 application hosts, 3 database hosts, 1 monitor."""
    groups = {
        "edge": ["edge1", "edge2"],
        "app": ["app1", "app2", "app3"],
        "postgres": ["db1", "db2", "db3"],
        "monitor": ["monitor1"],
    }
    names = [name for members in groups.values() for name in members]
    own = variables.pop("own_addresses", {})
    pattern = variables.pop("addresses", "192.0.2.{}")
    hosts = {name: Host(name, own.get(name, pattern.format(number))) for number, name in enumerate(names, 11)}
    settings = {"FLUXBASE_JOBS_ENABLED": "false", **SEVERAL_HOSTS}
    services = {"fluxbase": fluxbase(settings=settings)}
    wanted = {"fleet_services": services, "fleet_postgres": {"max_connections": 200}, **variables}
    return Inventory(hosts, {"all": names, **groups}, wanted)


def plan(
    inventory: Inventory,
    *folders: Path,
    undefined: Sequence[Finding] = (),
    rotate: str | None = None,
    live: Mapping[str, Mapping[str, str]] | None = None,
) -> Plan:
    schema = json.loads((SERVICES / "schema" / "inventory.schema.json").read_text())
    return compute(
        dataclasses.replace(inventory, live=live or {}),
        Definitions([SERVICES, *folders], SERVICES / "schema" / "definition.schema.json"),
        schema,
        undefined,
        rotate=rotate,
    )
