# GNU General Public License v3.0+ (see LICENSE)
"""The sets of configuration that the roles put on a host, by name: what is expected there, and so what may go."""

from __future__ import annotations

from collections.abc import Collection

from . import hardening
from .model import Data

# In the order of site.yml: a set is taken away before those that it builds on. The names are those of config_set in the roles.
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
    "service": ("service-users", "service"),
    "edge": ("edge",),
    "acme": ("acme",),
}


def sets(roles: Collection[str], items: Collection[str]) -> Data:
    """Arguments of `config_prune`, by a host's roles and its items of the hardening.

    Sets that no role of the collection makes are not `among` them: they are the user's own.
    """
    off = {name for item, name in hardening.ITEM_SETS.items() if item not in items}
    return {
        "keep": [name for role, names in SETS.items() if role in roles for name in names if name not in off],
        "among": [name for names in SETS.values() for name in names],
    }
