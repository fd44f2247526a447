# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What a cluster is, and what it shall be."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

ATTRIBUTES = ("SUPERUSER", "CREATEDB", "CREATEROLE", "INHERIT", "LOGIN", "REPLICATION", "BYPASSRLS")
UNLIMITED = -1


class ClusterError(Exception):
    """What cannot be had, in words for the operator."""


# --- the cluster as it is


@dataclass(frozen=True)
class ActualRole:
    attributes: frozenset[str]
    connection_limit: int = UNLIMITED
    verifier: str | None = field(default=None, repr=False)
    settings: Mapping[str, str] = field(default_factory=dict)
    member_of: frozenset[str] = frozenset()


@dataclass(frozen=True)
class ActualDatabase:
    owner: str
    encoding: str
    locale: str
    settings: Mapping[str, str] = field(default_factory=dict)
    # Privileges by grantee; "" is PUBLIC. The owner's own are left out.
    privileges: Mapping[str, frozenset[str]] = field(default_factory=dict)
    extensions: Mapping[str, str] = field(default_factory=dict)
    # Privileges by schema, then by grantee.
    schemas: Mapping[str, Mapping[str, frozenset[str]]] = field(default_factory=dict)


@dataclass(frozen=True)
class ActualSetting:
    value: str
    unit: str | None = None
    kind: str = "string"
    source: str = "default"
    pending_restart: bool = False
    error: str | None = None


@dataclass(frozen=True)
class Cluster:
    version: int
    roles: Mapping[str, ActualRole] = field(default_factory=dict)
    databases: Mapping[str, ActualDatabase] = field(default_factory=dict)
    settings: Mapping[str, ActualSetting] = field(default_factory=dict)
    data_checksums: bool | None = None
    # In bytes; asked for only where there are no checksums.
    size: int | None = None
    # None where there is no server to ask.
    available_extensions: frozenset[str] | None = None


EMPTY = Cluster(version=0)


# --- the cluster as it shall be; None means: left as it is


@dataclass(frozen=True)
class Role:
    name: str
    present: bool = True
    attributes: frozenset[str] = frozenset({"INHERIT"})
    verifier: str | None = field(default=None, repr=False)
    connection_limit: int = UNLIMITED
    member_of: frozenset[str] | None = None
    settings: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Database:
    name: str
    present: bool = True
    owner: str = "postgres"
    encoding: str = "UTF8"
    locale: str | None = None
    extensions: tuple[str, ...] = ()
    settings: Mapping[str, str] | None = None
    connect: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Grant:
    database: str
    role: str
    privileges: frozenset[str]
    schema: str | None = None


@dataclass(frozen=True)
class Desired:
    roles: tuple[Role, ...] = ()
    databases: tuple[Database, ...] = ()
    grants: tuple[Grant, ...] = ()
    settings: Mapping[str, str] = field(default_factory=dict)
