#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""Owners and modes of packages' files, as overrides that dpkg knows of."""

from __future__ import annotations

DOCUMENTATION = r"""
module: file_permissions
short_description: Override owners and modes of packages' files, so that upgrades keep them
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Takes every override of this collection on the host in one call, with C(dpkg-statoverride). A mode that is only set comes back with the next upgrade
    of the package; an override stays.
  - An override that is no longer listed is taken away, and the file has its former owner, group and mode again. One that its package
    brought only after the override keeps what it has, as dpkg does not note what it would have been.
  - An override of somebody else at the same path is left alone, with a warning.
  - A path that does not exist is overridden all the same, and so holds when a package brings it.
options:
  overrides:
    description: All overrides that this collection is to make on the host.
    type: list
    elements: dict
    required: true
    suboptions:
      path:
        description: Path as its package has it. On Debian 12 that is C(/bin/su), not C(/usr/bin/su).
        type: str
        required: true
      owner:
        description: Name of the owner.
        type: str
        default: root
      group:
        description: Name of the group.
        type: str
        default: root
      mode:
        description: Mode, in octal and in quotes.
        type: str
        required: true
extends_documentation_fragment:
  - selfhost.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Let only administrators try to become another user
  selfhost.fleet.file_permissions:
    overrides:
      - {path: /usr/bin/su, group: sudo, mode: "4750"}
"""

RETURN = r"""
paths:
  description: Paths whose override was, or in check mode would be, made, changed or taken away.
  returned: success
  type: list
  elements: str
"""

import os  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.permissions import (  # noqa: E402
    Overrides,
    PermissionsError,
    wanted,
)


def main() -> None:
    # Daemons have to read what is made here: it does not depend on the operator's umask.
    os.umask(0o022)
    override = {
        "path": {"type": "str", "required": True},
        "owner": {"type": "str", "default": "root"},
        "group": {"type": "str", "default": "root"},
        "mode": {"type": "str", "required": True},
    }
    module = AnsibleModule(
        argument_spec={
            "overrides": {"type": "list", "elements": "dict", "required": True, "options": override},
        },
        supports_check_mode=True,
    )
    try:
        outcome = Overrides(SystemRunner()).apply(wanted(module.params["overrides"]), check=module.check_mode)
    except PermissionsError as error:
        module.fail_json(msg=str(error))
    for left in outcome.left:
        module.warn(f"The override of {left} is not of this collection and was left alone")
    diff = {
        side: "".join(f"{path}: {rights or 'as its package has it'}\n" for path, rights in sorted(rows.items()))
        for side, rows in (("before", outcome.before), ("after", outcome.after))
    }
    diff |= {"before_header": "overrides of permissions", "after_header": "overrides of permissions"}
    module.exit_json(changed=outcome.changed, paths=sorted(outcome.after), diff=diff)


if __name__ == "__main__":
    main()
