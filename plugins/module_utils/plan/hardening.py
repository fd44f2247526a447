# GNU General Public License v3.0+ (see LICENSE)
"""What is hardened on a host beside its services, item by item, and when it may reboot."""

from __future__ import annotations

from .findings import Findings
from .model import Data, Host, Inventory

# Items with the packages that they need. What each one does, and why, is in docs/hardening.md.
ITEMS: dict[str, tuple[str, ...]] = {
    "apparmor": ("apparmor",),
    "audit": (),  # auditd: only the host itself knows whether its kernel lets it be used
    "banner": (),
    "checksums": ("debsums",),
    "core_dumps": (),
    "idle": (),
    "integrity": ("aide",),
    "journal": (),
    "kernel": (),
    "modules": (),
    "passwords": ("libpam-passwdqc",),
    "permissions": (),
    "sudo": ("sudo",),
    "time": ("systemd-timesyncd",),
    "tmp": (),
    "umask": (),
    "updates": ("needrestart", "unattended-upgrades"),
}
# Items that are a set of config_set of their own, which goes when the item is switched off.
ITEM_SETS = {"audit": "hardening-audit", "time": "time"}
# Minutes between a host's unattended upgrade and the reboot that it may ask for.
LEAD = 60
DAY = 24 * 60


def active(host: Host) -> list[str]:
    """Every item, but those that the inventory switches off on this host."""
    return [item for item in ITEMS if host.hardening.get(item, True)]


def packages(host: Host) -> list[str]:
    return [package for item in active(host) for package in ITEMS[item]]


def check(inventory: Inventory, findings: Findings) -> None:
    for host in inventory.hosts.values():
        where = f"hosts.{host.name}.fleet_hardening"
        for item, wanted in host.hardening.items():
            if item not in ITEMS:
                findings.add(f"{where}.{item}", "is no item of the hardening", f"Choose from: {', '.join(ITEMS)}")
            elif not isinstance(wanted, bool):
                findings.add(f"{where}.{item}", f"is {wanted!r}", "Write true or false")


def hardening(inventory: Inventory, host: Host) -> Data:
    """A host's part of the plan. The hosts' reboots are spread evenly over the fleet's window, in the order of their names."""
    window = {"start": "03:00", "minutes": 120, **(inventory.variables.get("fleet_reboot_window") or {})}
    hours, minutes = map(int, window["start"].split(":"))
    names = sorted(inventory.hosts)
    reboot = hours * 60 + minutes + window["minutes"] * names.index(host.name) // len(names)
    return {"active": active(host), "upgrade_at": _clock(reboot - LEAD), "reboot_at": _clock(reboot)}


def _clock(minute: int) -> str:
    return f"{minute % DAY // 60:02d}:{minute % 60:02d}"
