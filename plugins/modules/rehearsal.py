#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""A new release against a copy of the database: see module_utils/rollout/rehearsal/stage.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rehearsal
short_description: Try a new release against a copy of its database, and the old one on what that leaves
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Makes a PostgreSQL of its own from the host's cluster, with its roles and one database, in a network that has nothing else in it. The units of a
    service's idle slot run there until they are healthy or have failed. Then those of the slot that serves do, on the migrated copy, which tells whether
    going back would be safe.
  - Nothing that is tried can reach anything but the copy, and nothing of it is left, whatever happens. Folders of the service are empty ones.
  - Where the database is on another host, M(selfhost.fleet.rehearsal_copy) makes the copy there, and O(copy_port) leads to it.
options:
  database:
    description: The database that is copied.
    type: str
    required: true
  copy_port:
    description: Where the host of the database has the door to a copy; without it the copy is made on this host.
    type: int
  version:
    description: Of PostgreSQL, for a copy on this host.
    type: int
  port:
    description: Where the service finds its database, on 127.0.0.1.
    type: int
    required: true
  attributes:
    description: What a role is to have of V(SUPERUSER), V(CREATEDB), V(CREATEROLE), V(LOGIN), V(REPLICATION) and V(BYPASSRLS), by its name.
    type: dict
    default: {}
  extensions:
    description: Extensions that the new release finds in its database. Those that are missing are added, to the copy alone.
    type: list
    elements: str
    default: []
  parts:
    description: The components.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: For messages.
        type: str
        required: true
      new:
        description: The unit of the idle slot, whose files are in place already.
        type: str
        required: true
      old:
        description: The unit of the slot that serves.
        type: str
        required: true
      new_probe:
        description: C(url), C(status) and C(start_timeout) by which the new one is asked.
        type: dict
        required: true
      old_probe:
        description: The same of the old one.
        type: dict
        required: true
      state:
        description: Folders that it may write to.
        type: list
        elements: path
        default: []
  copy:
    description:
      - V(full) copies all rows, V(schema) those alone that keep track of migrations; V(auto) is V(full) for a database of up to O(full_up_to).
      - Without rows a migration is faster than it will be, and one that fails on somebody's row does not fail here.
    type: str
    choices: [auto, full, schema]
    default: auto
  full_up_to:
    description: Bytes.
    type: int
    default: 1073741824
  timeout:
    description: Seconds for each dump.
    type: float
    default: 1800
attributes:
  check_mode:
    description: Does nothing there.
    support: full
  diff_mode:
    description: Has nothing to compare; what it makes is gone when it ends.
    support: none
"""

EXAMPLES = r"""
- name: Try the release in the idle slot
  selfhost.fleet.rehearsal:
    database: fluxbase
    version: 17
    port: 6432
    attributes: {fluxbase: [LOGIN, CREATEROLE, BYPASSRLS]}
    extensions: [pg_trgm, vector]
    parts:
      - name: server
        new: fluxbase-server@green.service
        old: fluxbase-server@blue.service
        new_probe: {url: "http://127.0.0.1:8082/health", status: [200], start_timeout: 180}
        old_probe: {url: "http://127.0.0.1:8081/health", status: [200], start_timeout: 180}
        state: [/var/lib/fluxbase]
"""

RETURN = r"""
copied:
  description: C(full) or C(schema).
  returned: when the copy was made here
  type: str
size:
  description: Bytes of the real database.
  returned: when the copy was made here
  type: int
new:
  description: C(ok), C(seconds), C(words) and C(journal) of the new release.
  returned: when it took place
  type: dict
old:
  description: The same of the old release on the migrated copy; null where the new one failed.
  returned: when it took place
  type: dict
migrates:
  description: Whether the new release has changed the schema, or what keeps track of migrations.
  returned: when the copy was made here
  type: bool
locks:
  description: Seconds for which a table could not be read, by its name, while the new release started.
  returned: when the copy was made here
  type: dict
"""

import os  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.database import Copy  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.door import NETWORK, open_door  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.lock import RehearsalError, alone  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.place import Place  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.stage import (  # noqa: E402
    Part,
    Stage,
    rehearse,
    rehearse_away,
)

ARGUMENTS = {
    "database": {"type": "str", "required": True},
    "copy_port": {"type": "int"},
    "version": {"type": "int"},
    "port": {"type": "int", "required": True},
    "attributes": {"type": "dict", "default": {}},
    "extensions": {"type": "list", "elements": "str", "default": []},
    "parts": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "new": {"type": "str", "required": True},
            "old": {"type": "str", "required": True},
            "new_probe": {"type": "dict", "required": True},
            "old_probe": {"type": "dict", "required": True},
            "state": {"type": "list", "elements": "path", "default": []},
        },
    },
    "copy": {"type": "str", "choices": ["auto", "full", "schema"], "default": "auto"},
    "full_up_to": {"type": "int", "default": 1073741824},
    "timeout": {"type": "float", "default": 1800},
}


def main() -> None:
    # PostgreSQL has to come in: what is made here does not depend on the operator's umask.
    os.umask(0o022)
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_one_of=[("version", "copy_port")],
        mutually_exclusive=[("version", "copy_port")],
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode:
        module.exit_json(changed=False)
    place = Place(runner=SystemRunner(timeout=60), timeout=given["timeout"])
    try:
        with alone(given["timeout"]):
            found = _away(place, given) if given["copy_port"] else _here(place, given)
    except RehearsalError as error:
        module.fail_json(msg=f"The rehearsal could not take place, and nothing was changed: {error}")
    module.exit_json(changed=False, **found)


def _here(place: Place, given: dict[str, Any]) -> dict[str, Any]:
    place.clear()
    wanted = {name: given[name] for name in ("database", "version", "port", "attributes", "extensions")}
    copy = Copy(place, **wanted)
    copy.decide(given["copy"], given["full_up_to"])
    found = rehearse(Stage(place, shut=copy.shut), copy, [Part(**part) for part in given["parts"]])
    return {
        "copied": found.copied,
        "size": found.size,
        "new": found.new.as_data(),
        "old": found.old and found.old.as_data(),
        "migrates": found.migrates,
        "locks": found.locks,
    }


def _away(place: Place, given: dict[str, Any]) -> dict[str, Any]:
    place.clear()
    open_door(place, database=given["database"], port=given["port"], copy_port=given["copy_port"])
    new, old = rehearse_away(Stage(place, network=NETWORK), [Part(**part) for part in given["parts"]])
    return {"new": new.as_data(), "old": old and old.as_data()}


if __name__ == "__main__":
    main()
