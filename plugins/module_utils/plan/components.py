# GNU General Public License v3.0+ (see LICENSE)
"""What the role `service` is told of a component in a slot of a host: release, environment, configuration, unit."""

from __future__ import annotations

from . import releases
from .definitions import merge
from .distributions import MACHINES
from .model import Data, Host, Service
from .network import LOOPBACK, POOLER_PORT, Topology, in_url
from .releases import fill
from .services import companions, settings, unused_ports


def _values(topology: Topology, service: Service, component: str, host: Host, slot: str) -> Data:
    values: Data = {
        "domain": service.domains[0] if service.domains else "",
        "version": service.version,
        "architecture": host.architecture,
        "machine": MACHINES[host.architecture],
        "host": host.name,
        "listen": in_url(topology.listen(host)),
        "slot": slot,
    }
    values |= {f"port.{name}": slots[slot] for name, slots in service.ports(component).items() if slot in slots}
    if service.database:
        values |= {f"database.{key}": service.database[key] for key in ("name", "user", "connections")}
        values |= {"database.host": LOOPBACK, "database.port": POOLER_PORT}
    return values


def component(topology: Topology, service: Service, name: str, host: Host, slot: str | None = None) -> Data:
    """One entry of a slice's `components`; of another slot than the one that serves, one of its `standins`.

    A slot is whole: nothing of what it reads is read by the other one (docs/decisions/0005-slots.md).
    """
    declared = service.components[name]
    slot = slot or service.slot_on(host)
    values = _values(topology, service, name, host, slot)
    environment, secret = _environment(service, name, values)
    hardening = dict(declared.get("hardening", {}))
    needed = companions(service, name)
    for companion in needed.values():
        hardening |= companion.get("hardening", {})
    given = service.wanted.get("companions", {})
    release = declared.get("release", {})
    kind = releases.kind_of(release)
    unit = f"{service.name}-{name}"
    return {
        "service": service.name,
        "component": name,
        "unit": unit,
        "user": declared.get("user", service.name),
        "version": service.version,
        "slot": slot,
        "serving": slot,
        "ports": {port: numbers[slot] for port, numbers in service.ports(name).items() if slot in numbers},
        "unused_ports": unused_ports(service, name),
        "listen": topology.listen(host),
        "root": f"/opt/{service.name}/{name}",
        "release": kind.describe(release, service.wanted.get("release", {}), service.version, values),
        "strategies": list(kind.strategies),
        "companions": [
            {"name": key, **releases.ARCHIVE.describe(companion, given[key], given[key]["version"], values)}
            for key, companion in needed.items()
        ],
        "environment": environment,
        "secrets": secret,
        "config": _config(service, declared, values),
        "state": declared.get("state", []),
        "command": [argument(word, values) for word in declared.get("command", ["{executable}"])],
        "migrate": [argument(word, values) for word in declared["migrate"]] if declared.get("migrate") else None,
        "stop_timeout": declared.get("stop_timeout", 90),
        "after_database_restart": declared.get("after_database_restart", "nothing"),
        "memory_max": service.wanted.get("memory_max", declared.get("memory_max")),
        "hardening": hardening,
        "network": _network(topology, service, name, host),
        "after": _after(topology, service, host),
        "probe": _probe(topology, host, declared.get("probe", {}), values),
    }


def sources(topology: Topology, service: Service, host: Host) -> list[str]:
    """Where a host has the programs of a service from: addresses, or files on the controller."""
    given = service.wanted.get("companions", {})
    found = []
    for name, declared in service.components.items():
        values = _values(topology, service, name, host, service.slot_on(host))
        release = declared.get("release", {})
        wanted = service.wanted.get("release", {})
        programs = [releases.kind_of(release).describe(release, wanted, service.version, values)]
        programs += [
            releases.ARCHIVE.describe(companion, given[key], given[key]["version"], values)
            for key, companion in companions(service, name).items()
        ]
        found += [program["source"] for program in programs if program.get("source")]
    return found


def _after(topology: Topology, service: Service, host: Host) -> list[str]:
    """Units that it needs. A service without a database does not wait for one, nor start again when one comes."""
    if not service.database:
        return []
    return ["pgbouncer.service", *(["postgresql.service"] if host == topology.database else [])]


def _environment(service: Service, name: str, values: Data) -> tuple[Data, Data]:
    """Variables, and those of them that hold a secret."""
    plain: Data = {}
    secret = {
        key: f"{{secret.{key}}}"
        for key, rule in (service.contract.get("secrets") or {}).items()
        if rule.get("environment", True) and key in (service.wanted.get("secrets") or {})
    }
    for key, raw in settings(service, name).items():
        (secret if "{secret." in raw else plain)[key] = fill(raw, values)
    return plain, secret


def argument(word: str, values: Data) -> str:
    """A word of a command as systemd's ExecStart has it."""
    return fill(word.replace("$", "$$").replace("%", "%%"), values)


def _config(service: Service, declared: Data, values: Data) -> Data | None:
    config = declared.get("config")
    if not config:
        return None
    content = merge(config["content"], service.wanted.get("config", {}))
    return {**config, "content": _fill_all(content, values)}


def _fill_all(node: object, values: Data) -> object:
    if isinstance(node, dict):
        return {key: _fill_all(value, values) for key, value in node.items()}
    if isinstance(node, list):
        return [_fill_all(value, values) for value in node]
    return fill(node, values) if isinstance(node, str) else node


def _network(topology: Topology, service: Service, name: str, host: Host) -> list[str]:
    """Addresses that the component may exchange packets with: itself, who asks it, and what the inventory allows."""
    found = ["localhost"]
    if topology.listen(host) != LOOPBACK:
        # Its own too: for systemd a packet from the host to its own address is not localhost's.
        found += [host.address, *(edge.address for edge in topology.edges)]
    if "metrics" in service.ports(name):
        found += [monitor.address for monitor in topology.monitors if monitor != host]
    found += [str(address) for address in service.wanted.get("egress", [])]
    return list(dict.fromkeys(found))


def _probe(topology: Topology, host: Host, declared: Data, values: Data) -> Data:
    kind = declared.get("kind", "http")
    scheme = {"http": "http", "websocket": "ws", "tcp": "tcp"}[kind]
    port = values.get(f"port.{declared.get('port', 'http')}", 0)
    return {
        "kind": kind,
        "url": f"{scheme}://{in_url(topology.listen(host))}:{port}{declared.get('path', '/') if kind != 'tcp' else ''}",
        "status": declared.get("status", [200]),
        "start_timeout": declared.get("start_timeout", 60),
    }
