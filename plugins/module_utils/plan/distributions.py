# GNU General Public License v3.0+ (see LICENSE)
"""What differs by distribution: the package names and versions of Debian's releases."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class Distribution:
    name: str
    postgres: int
    # Extensions that need a package of their own; a None means that there is no package for this release.
    extension_packages: dict[str, str | None] = field(default_factory=dict)


DISTRIBUTIONS = {
    "debian-12": Distribution("Debian 12", 15, {"vector": None}),
    "debian-13": Distribution("Debian 13", 17, {"vector": "postgresql-17-pgvector"}),
}

# Debian's names of architectures, and the kernel's, which many a publisher has in the names of files.
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}

# Part of PostgreSQL's own contrib, in the server package of both releases.
CONTRIB = frozenset(
    [
        "adminpack",
        "amcheck",
        "bloom",
        "btree_gin",
        "btree_gist",
        "citext",
        "cube",
        "dblink",
        "earthdistance",
        "fuzzystrmatch",
        "hstore",
        "intarray",
        "isn",
        "lo",
        "ltree",
        "pageinspect",
        "pg_buffercache",
        "pg_freespacemap",
        "pg_prewarm",
        "pg_stat_statements",
        "pg_trgm",
        "pg_visibility",
        "pg_walinspect",
        "pgcrypto",
        "pgrowlocks",
        "pgstattuple",
        "plpgsql",
        "postgres_fdw",
        "seg",
        "sslinfo",
        "tablefunc",
        "tcn",
        "tsm_system_rows",
        "tsm_system_time",
        "unaccent",
        "uuid-ossp",
        "xml2",
    ]
)

ROLE_PACKAGES: dict[str, tuple[str, ...]] = {
    "baseline": ("ca-certificates", "python3"),
    "users": ("passwd", "procps", "sudo"),
    "ssh": ("openssh-server",),
    "hardening": (),  # by item: hardening.ITEMS
    "firewall": ("nftables",),
    "bans": ("nftables", "python3"),
    "certificate": ("openssl",),
    "postgres": ("postgresql-{postgres}", "python3-psycopg"),
    "pooler": ("pgbouncer", "iproute2"),
    "service": (),
    "edge": ("nginx", "openssl"),
    "acme": ("certbot",),
}


def packages(distribution: Distribution, roles: list[str], extensions: list[str]) -> list[str]:
    """Every package that the roles of a host need, for one transaction."""
    names = {name.format(postgres=distribution.postgres) for role in roles for name in ROLE_PACKAGES[role]}
    names |= {package for extension in extensions if (package := distribution.extension_packages.get(extension))}
    return sorted(names)
