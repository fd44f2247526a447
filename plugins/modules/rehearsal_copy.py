#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""A copy of a database for a rehearsal on another host: see module_utils/rollout/rehearsal/database.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rehearsal_copy
short_description: Have a copy of a database for a rehearsal on another host
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Makes a PostgreSQL of its own from the host's cluster, with its roles and one database, in a network that has nothing else in it. A door leads to it from
    a port of the host, through TLS with the cluster's own certificate; none leads out.
  - Nothing of it is left once it is V(absent). If nobody comes to say so, it ends by itself.
options:
  state:
    description: V(compared) tells what has become of one that is V(present).
    type: str
    choices: [present, compared, absent]
    default: present
  database:
    description: The database that is copied.
    type: str
  version:
    description: Of PostgreSQL.
    type: int
  port:
    description: Of the door. Who may come to it is the firewall's to say.
    type: int
  attributes:
    description: What a role is to have of V(SUPERUSER), V(CREATEDB), V(CREATEROLE), V(LOGIN), V(REPLICATION) and V(BYPASSRLS), by its name.
    type: dict
    default: {}
  extensions:
    description: Extensions that the new release finds in its database. Those that are missing are added, to the copy alone.
    type: list
    elements: str
    default: []
  copy:
    description: As in M(selfhost.fleet.rehearsal).
    type: str
    choices: [auto, full, schema]
    default: auto
  full_up_to:
    description: Bytes.
    type: int
    default: 1073741824
  fingerprint:
    description: What V(present) returned, for V(compared).
    type: str
  lifetime:
    description: Seconds after which it ends by itself.
    type: float
    default: 3600
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
- name: Copy the database for a rehearsal on another host
  selfhost.fleet.rehearsal_copy:
    database: fluxbase
    version: 17
    port: 5431
    attributes: {fluxbase: [LOGIN, CREATEROLE, BYPASSRLS]}
    extensions: [pg_trgm, vector]
  register: copy

- name: See what the release has changed
  selfhost.fleet.rehearsal_copy:
    state: compared
    database: fluxbase
    version: 17
    port: 5431
    fingerprint: "{{ copy.fingerprint }}"
"""

RETURN = r"""
copied:
  description: C(full) or C(schema).
  returned: when it is made
  type: str
size:
  description: Bytes of the real database.
  returned: when it is made
  type: int
fingerprint:
  description: Of the copy's schema, and of the rows that keep track of migrations.
  returned: when it is made or compared
  type: str
migrates:
  description: Whether that is another one than was given.
  returned: when it is compared
  type: bool
locks:
  description: Seconds for which a table could not be read, by its name.
  returned: when it is compared
  type: dict
"""

import os  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.database import Copy  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.lock import RehearsalError, alone  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.rehearsal.place import Place  # noqa: E402

ARGUMENTS = {
    "state": {"type": "str", "choices": ["present", "compared", "absent"], "default": "present"},
    "database": {"type": "str"},
    "version": {"type": "int"},
    "port": {"type": "int"},
    "attributes": {"type": "dict", "default": {}},
    "extensions": {"type": "list", "elements": "str", "default": []},
    "copy": {"type": "str", "choices": ["auto", "full", "schema"], "default": "auto"},
    "full_up_to": {"type": "int", "default": 1073741824},
    "fingerprint": {"type": "str"},
    "lifetime": {"type": "float", "default": 3600},
    "timeout": {"type": "float", "default": 1800},
}


def main() -> None:
    # PostgreSQL has to come in: what is made here does not depend on the operator's umask.
    os.umask(0o022)
    needed = ["database", "version", "port"]
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "present", needed), ("state", "compared", [*needed, "fingerprint"])],
        supports_check_mode=True,
    )
    given = module.params
    if module.check_mode:
        module.exit_json(changed=False)
    place = Place(runner=SystemRunner(timeout=60), timeout=given["timeout"])
    work = {"present": _make, "compared": _compare, "absent": _take_away}[given["state"]]
    try:
        with alone(given["timeout"]):
            found = work(place, given)
    except RehearsalError as error:
        module.fail_json(msg=f"The rehearsal could not take place, and nothing was changed: {error}")
    module.exit_json(changed=False, **found)


def _copy(place: Place, given: dict[str, Any]) -> Copy:
    return Copy(place, **{name: given[name] for name in ("database", "version", "port", "attributes", "extensions")})


def _make(place: Place, given: dict[str, Any]) -> dict[str, Any]:
    place.clear()
    copy = _copy(place, given)
    copy.decide(given["copy"], given["full_up_to"])
    try:
        with copy.room():
            copy.make(given["lifetime"])
            fingerprint = copy.fingerprint()
            copy.open_door(given["lifetime"])
    except RehearsalError:
        place.clear()
        raise
    return {"copied": copy.copied, "size": copy.size, "fingerprint": fingerprint}


def _compare(place: Place, given: dict[str, Any]) -> dict[str, Any]:
    copy = _copy(place, given)
    with copy.room():
        now = copy.fingerprint()
    return {"fingerprint": now, "migrates": now != given["fingerprint"], "locks": copy.was_shut()}


def _take_away(place: Place, _given: dict[str, Any]) -> dict[str, Any]:
    place.clear()
    return {}


if __name__ == "__main__":
    main()
