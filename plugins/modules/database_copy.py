#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""A copy of a database and the way back to it: see module_utils/rollout/database_copy.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: database_copy
short_description: Copy a database before a migration, and put it back
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Dumps a database of the host's cluster into a file, for root alone, with its size and checksum beside it.
  - Puts such a copy back without an end to what is there. It is unpacked beside the database while that serves. Then the two change their names, for
    which connections to both are ended, and what had the name is kept under another one.
options:
  database:
    description: The database.
    type: str
    required: true
  state:
    description:
      - V(made) makes the copy at O(path); one that is there is kept as it is. Refused where the disk has not as much room as the database takes.
      - V(unpacked) checks the copy and unpacks it into a database beside; unless there is O(aside), as V(swapped) leaves it.
      - V(swapped) gives that the name, and calls what had it O(aside).
      - V(swapped_back) undoes V(swapped).
      - V(forgotten) drops what V(unpacked) has made.
    type: str
    choices: [made, unpacked, swapped, swapped_back, forgotten]
    required: true
  path:
    description: File of the copy. Required for O(state=made) and O(state=unpacked).
    type: path
  aside:
    description: What the present database is called afterwards. Required for O(state=unpacked), O(state=swapped) and O(state=swapped_back).
    type: str
  about:
    description: What to write beside the copy, as whose it is.
    type: dict
    default: {}
  keep:
    description: How many copies of the folder are kept, the newest.
    type: int
    default: 3
  timeout:
    description: Seconds for each dump and each statement.
    type: float
    default: 7200
extends_documentation_fragment:
  - selfhost.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - Does nothing.
  diff_mode:
    support: none
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Copy the database before a migration
  selfhost.fleet.database_copy:
    database: fluxbase
    state: made
    path: /var/backups/selfhost/fluxbase/20261121-145000-2026.3.6.dump

- name: Unpack it beside the database
  selfhost.fleet.database_copy:
    database: fluxbase
    state: unpacked
    path: /var/backups/selfhost/fluxbase/20261121-145000-2026.3.6.dump

- name: Have it in place of the database
  selfhost.fleet.database_copy:
    {database: fluxbase, state: swapped, aside: fluxbase_until_20261122}
"""

RETURN = r"""
copy:
  description: The copy, with O(state=made) and O(state=unpacked).
  returned: success
  type: dict
  contains:
    path: {description: "Its file.", type: str}
    database: {description: "Of what it is a copy.", type: str}
    size: {description: "Bytes of the file.", type: int}
    database_size: {description: "Bytes of the database when it was copied.", type: int}
    checksum: {description: "C(sha256:) and 64 digits.", type: str}
    seconds: {description: "That it took.", type: float}
    about: {description: "As given.", type: dict}
"""

import os  # noqa: E402
from dataclasses import asdict  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.database_copy import (  # noqa: E402
    DatabaseCopy,
    DatabaseCopyError,
)

ARGUMENTS = {
    "database": {"type": "str", "required": True},
    "state": {"type": "str", "choices": ["made", "unpacked", "swapped", "swapped_back", "forgotten"], "required": True},
    "path": {"type": "path"},
    "aside": {"type": "str"},
    "about": {"type": "dict", "default": {}},
    "keep": {"type": "int", "default": 3},
    "timeout": {"type": "float", "default": 7200},
}
NEEDED = [
    ("state", "made", ["path"]),
    ("state", "unpacked", ["path", "aside"]),
    ("state", "swapped", ["aside"]),
    ("state", "swapped_back", ["aside"]),
]


def converge(given: dict[str, Any], database: DatabaseCopy) -> dict[str, Any]:
    match given["state"]:
        case "made":
            copy, changed = database.make(Path(given["path"]), given["about"], keep=given["keep"])
            return {"changed": changed, "copy": asdict(copy)}
        case "unpacked":
            copy, changed = database.unpack(Path(given["path"]), given["aside"])
            return {"changed": changed, "copy": asdict(copy)}
        case "swapped":
            return {"changed": database.swap(given["aside"])}
        case "swapped_back":
            return {"changed": database.swap_back(given["aside"])}
        case _:
            return {"changed": database.forget()}


def main() -> None:
    os.umask(0o022)
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=NEEDED, supports_check_mode=True)
    if module.check_mode:
        module.exit_json(changed=False)
    given = module.params
    try:
        result = converge(given, DatabaseCopy(given["database"], SystemRunner(timeout=60), timeout=given["timeout"]))
    except DatabaseCopyError as error:
        module.fail_json(msg=str(error))
    module.exit_json(**result)


if __name__ == "__main__":
    main()
