# GNU General Public License v3.0+ (see LICENSE)
"""The sets of configuration that the roles put on a host, by name: what is expected there, and so what may go."""

from __future__ import annotations

from collections.abc import Collection

from . import hardening
from .model import SLOTS, Data

# In the order of site.yml, as names or patterns: a set is taken away before those that it builds on. The names are those of config_set in the roles.
SETS = {
    "baseline": ("baseline", "time"),
    "users": ("admins",),
    "ssh": ("ssh",),
    "hardening": ("hardening", "hardening-audit"),
    "firewall": ("firewall",),
    "bans": ("bans",),
    "certificate": (),
    "postgres": ("postgres",),
    "pooler": ("pooler",),
    "service": ("service-users", *(f"*@{slot}" for slot in SLOTS), "service"),
    "edge": ("edge",),
    "acme": ("acme",),
}


def slot_set(component: Data) -> str:
    """The set of what one slot reads, an entry of `components` or `standins`; named like its unit."""
    return f"{component['unit']}@{component['slot']}"


def sets(roles: Collection[str], items: Collection[str], units: Collection[str]) -> Data:
    """Arguments of `config_prune`, by a host's roles, its items of the hardening, and the units of its components.

    Of a component both slots stay: the idle one has what a rollback starts. Sets that no role of the collection makes
    are not `among` them: they are the user's own.
    """
    off = {name for item, name in hardening.ITEM_SETS.items() if item not in items}
    own = [f"{unit}@{slot}" for unit in units for slot in SLOTS]
    named = [name for role, names in SETS.items() if role in roles for name in names]
    return {
        "keep": [*(name for name in named if name not in off and "*" not in name), *own],
        "among": [name for names in SETS.values() for name in names],
    }
