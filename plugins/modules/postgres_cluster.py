#!/usr/bin/python
# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

DOCUMENTATION = r"""
module: postgres_cluster
short_description: Roles, databases, extensions and grants of a PostgreSQL cluster, in one call
version_added: 0.1.0
description:
  - Reads what a PostgreSQL cluster holds, computes the difference to what is asked for, and makes up the difference.
  - Connects over the local socket with peer authentication. As root it takes the identity of O(login_user) for that.
  - What is not named is left alone; nothing is dropped because it was left out.
  - Statements are run in one transaction per database, except those that PostgreSQL allows in none, such as
    C(CREATE DATABASE).
  - In check mode on a host that has no server yet, an empty cluster is assumed and all that would be made is reported.
extends_documentation_fragment: [selfhost.fleet.attributes]
attributes:
  check_mode: {support: full}
  diff_mode: {support: full}
  idempotent: {support: full}
requirements:
  - psycopg 3 on the host (Debian's C(python3-psycopg))
  - PostgreSQL 14 or newer
options:
  port:
    description: The cluster's port, which is part of its socket's name.
    type: int
    default: 5432
  socket_directory:
    description: The folder of the cluster's socket.
    type: path
    default: /run/postgresql
  login_user:
    description: The superuser to connect as; also a system user of this name.
    type: str
    default: postgres
  data_directory:
    description:
      - Where the cluster's data is. With it, check mode tells a host without a cluster, where an empty one is assumed,
        from a cluster that does not answer, which is a failure.
    type: path
  roles:
    description: Roles of the cluster.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: The role's name., type: str, required: true}
      state: {description: V(absent) drops it., type: str, choices: [present, absent], default: present}
      attributes:
        description:
          - All that the role has of V(SUPERUSER), V(CREATEDB), V(CREATEROLE), V(LOGIN), V(REPLICATION) and
            V(BYPASSRLS). One that is not listed is taken away.
          - V(INHERIT) is always included, unless V(NOINHERIT) is listed.
        type: list
        elements: str
        default: []
      password_verifier:
        description:
          - A SCRAM-SHA-256 verifier, as the filter P(selfhost.fleet.scram_verifier#filter) makes it. Without it the
            password is left as it is.
        type: str
      connection_limit: {description: "How many connections the role may have; -1 is no limit.", type: int, default: -1}
      member_of:
        description: Roles that this one is a member of. Others are left, since services give themselves some.
        type: list
        elements: str
      settings:
        description:
          - All settings that hold for the role's sessions (C(ALTER ROLE ... SET)). Others are reset. Without this
            option, they are left.
          - A value may be a list, for settings such as C(search_path).
        type: dict
  databases:
    description: Databases of the cluster.
    type: list
    elements: dict
    default: []
    suboptions:
      name: {description: The database's name., type: str, required: true}
      state:
        description: V(absent) drops it with all that it holds, and fails while it has connections.
        type: str
        choices: [present, absent]
        default: present
      owner: {description: The role that owns it., type: str, default: postgres}
      encoding: {description: Its encoding; of a database that exists only compared., type: str, default: UTF8}
      locale:
        description:
          - Its locale. V(C.UTF-8) if it is made and none was given; of a database that exists only compared, if given.
        type: str
      extensions:
        description: Extensions in it, with those that they need. Others are left, and none is updated.
        type: list
        elements: str
        default: []
      settings:
        description:
          - All settings that hold for sessions in the database. Others are reset. Without the option, they are left.
        type: dict
      connect:
        description:
          - Roles that may connect, beside the owner. V(CONNECT) and V(TEMPORARY) are taken from C(PUBLIC), V(CONNECT)
            also from any other role in O(roles); those of roles that are not listed there are left.
        type: list
        elements: str
        default: []
  grants:
    description: Further privileges. Per entry, a role has exactly those that are listed.
    type: list
    elements: dict
    default: []
    suboptions:
      database: {description: The database., type: str, required: true}
      schema: {description: The schema in it; without it the database itself is meant., type: str}
      role: {description: The role., type: str, required: true}
      privileges:
        description: V(CREATE) and V(USAGE) of a schema, V(CREATE) and V(TEMPORARY) of a database. May be empty.
        type: list
        elements: str
        required: true
  settings:
    description:
      - What was written into C(postgresql.conf) or C(conf.d). The module changes none of it. It fails where a later
        file or C(ALTER SYSTEM) overrides it, or the server refuses it; in check mode it only reports that.
    type: dict
    default: {}
author:
  - The selfhost.fleet authors (@selfhost)
"""

EXAMPLES = r"""
- name: Have a role, its database and what that needs
  selfhost.fleet.postgres_cluster:
    roles:
      - name: fluxbase
        attributes: [LOGIN, CREATEROLE, BYPASSRLS]
        password_verifier: "{{ fluxbase_password | selfhost.fleet.scram_verifier('fluxbase') }}"
    databases:
      - name: fluxbase
        owner: fluxbase
        extensions: [uuid-ossp, pgcrypto, pg_trgm, vector]
    settings:
      shared_buffers: 2GB
"""

RETURN = r"""
statements:
  description: The statements that were run, or would be in check mode, with passwords masked.
  returned: success
  type: list
  elements: str
  sample: ["CREATE ROLE fluxbase LOGIN PASSWORD '********'"]
pending_restart:
  description: Settings that were changed in a file and hold only after a restart of the server.
  returned: success
  type: list
  elements: str
unmet_settings:
  description: What is wrong with O(settings); never anything but empty outside of check mode.
  returned: success
  type: list
  elements: str
server_version:
  description: PostgreSQL's major version; 0 where there is no server yet.
  returned: success
  type: int
data_checksums:
  description: Whether the cluster has data checksums; null where there is no server yet.
  returned: success
  type: bool
size:
  description: Bytes in all databases, where the cluster has no checksums; else null.
  returned: success
  type: int
"""

import os  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule, missing_required_lib  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.apply import bring_about, describe  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.desired import parse  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.model import ClusterError  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.session import Session  # noqa: E402

try:
    import psycopg
    import psycopg.sql

    PSYCOPG_ERROR: ImportError | None = None
except ImportError as error:
    PSYCOPG_ERROR = error

ROLE = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "attributes": {"type": "list", "elements": "str", "default": []},
    "password_verifier": {"type": "str", "no_log": True},
    "connection_limit": {"type": "int", "default": -1},
    "member_of": {"type": "list", "elements": "str"},
    "settings": {"type": "dict"},
}
DATABASE = {
    "name": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["present", "absent"], "default": "present"},
    "owner": {"type": "str", "default": "postgres"},
    "encoding": {"type": "str", "default": "UTF8"},
    "locale": {"type": "str"},
    "extensions": {"type": "list", "elements": "str", "default": []},
    "settings": {"type": "dict"},
    "connect": {"type": "list", "elements": "str", "default": []},
}
GRANT = {
    "database": {"type": "str", "required": True},
    "schema": {"type": "str"},
    "role": {"type": "str", "required": True},
    "privileges": {"type": "list", "elements": "str", "required": True},
}
ARGUMENTS: dict[str, Any] = {
    "port": {"type": "int", "default": 5432},
    "socket_directory": {"type": "path", "default": "/run/postgresql"},
    "login_user": {"type": "str", "default": "postgres"},
    "data_directory": {"type": "path"},
    "roles": {"type": "list", "elements": "dict", "default": [], "options": ROLE},
    "databases": {"type": "list", "elements": "dict", "default": [], "options": DATABASE},
    "grants": {"type": "list", "elements": "dict", "default": [], "options": GRANT},
    "settings": {"type": "dict", "default": {}},
}


def main() -> None:
    # Daemons have to read what is made here: it does not depend on the operator's umask.
    os.umask(0o022)
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    socket = Path(options["socket_directory"]) / f".s.PGSQL.{options['port']}"
    data = options["data_directory"]
    has_cluster = socket.exists() or (data is not None and (Path(data) / "PG_VERSION").exists())
    try:
        desired = parse(
            roles=options["roles"],
            databases=options["databases"],
            grants=options["grants"],
            settings=options["settings"],
        )
        if module.check_mode and (PSYCOPG_ERROR is not None or not has_cluster):
            module.exit_json(**describe(desired))
        if PSYCOPG_ERROR is not None:
            module.fail_json(
                msg=missing_required_lib("psycopg") + " Debian's package is python3-psycopg.", exception=PSYCOPG_ERROR
            )
        with Session(socket=socket.parent, port=options["port"], user=options["login_user"], driver=psycopg) as session:
            module.exit_json(**bring_about(session, desired, dry_run=module.check_mode))
    except ClusterError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
