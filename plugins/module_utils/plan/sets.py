# GNU General Public License v3.0+ (see LICENSE)
"""The sets of configuration that the roles put on a host, by name: what is expected there, and so what may go."""

from __future__ import annotations

from collections.abc import Collection

from .model import Data

# In the order of site.yml: a set is taken away before those that it builds on. The names are those of config_set in the roles.
SETS = {
    "baseline": ("baseline", "time"),
    "users": ("admins",),
    "ssh": ("ssh",),
    "firewall": ("firewall",),
    "bans": ("bans",),
    "certificate": (),
    "postgres": ("postgres",),
    "pooler": ("pooler",),
    "service": ("service-users", "service"),
    "edge": ("edge",),
    "acme": ("acme",),
}


def sets(roles: Collection[str]) -> Data:
    """Arguments of `config_prune`. Sets that no role of the collection makes are not `among` them: they are the user's own."""
    return {
        "keep": [name for role, names in SETS.items() if role in roles for name in names],
        "among": [name for names in SETS.values() for name in names],
    }
