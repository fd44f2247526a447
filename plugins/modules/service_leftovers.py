#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""What a removed service leaves on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: service_leftovers
short_description: Remove what a service leaves on a host when its configuration is gone
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Removes the releases of a service, its certificates with their keys, and its system user. Run it when the sets of configuration are gone already; it
    fails while a unit of the service still runs.
  - Folders with data stay unless O(delete_data); RV(kept) says where they are and how they are deleted later. A user that owns such a folder stays too, as
    its number would be given to the next one that is made.
  - A folder that does not belong to the service's own user is never removed. Neither is what others have put beside its own.
  - The options follow from the fact C(fleet_removal) of M(selfhost.fleet.removal_plan).
options:
  name:
    description: Name of the service.
    type: str
    required: true
  components:
    description: Names of its components.
    type: list
    elements: str
    required: true
  users:
    description: System users that only it has.
    type: list
    elements: str
    default: []
  state:
    description: Folders with its data.
    type: list
    elements: path
    default: []
  certificates:
    description: Folders with certificates that only it has.
    type: list
    elements: path
    default: []
  delete_data:
    description: Whether O(state) goes too. It cannot be brought back.
    type: bool
    default: false
attributes:
  check_mode:
    description: Says what would be removed.
    support: full
  diff_mode:
    description: Lists what goes.
    support: full
"""

EXAMPLES = r"""
- name: Remove what is left of it
  selfhost.fleet.service_leftovers:
    name: fluxbase
    components: [server]
    users: [fluxbase]
    state: [/var/lib/fluxbase]
"""

RETURN = r"""
removed:
  description: What was, or would be, removed.
  returned: success
  type: list
  elements: str
kept:
  description: What stays, with the reason, and the command by which it is deleted later.
  returned: success
  type: list
  elements: dict
  sample:
    - {what: /var/lib/fluxbase, reason: data, command: rm -r /var/lib/fluxbase}
"""

from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.leftovers import (  # noqa: E402
    Leftovers,
    LeftoversError,
    Service,
)

ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "components": {"type": "list", "elements": "str", "required": True},
    "users": {"type": "list", "elements": "str", "default": []},
    "state": {"type": "list", "elements": "path", "default": []},
    "certificates": {"type": "list", "elements": "path", "default": []},
    "delete_data": {"type": "bool", "default": False},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    service = Service(**{key: options[key] for key in ("name", "components", "users", "state", "certificates")})
    try:
        outcome = Leftovers(SystemRunner()).remove(
            service, delete_data=options["delete_data"], dry_run=module.check_mode
        )
    except LeftoversError as error:
        module.fail_json(msg=str(error))
    before = "".join(f"{what}\n" for what in outcome.removed)
    diff = {"before": before, "after": "", "before_header": service.name, "after_header": service.name}
    module.exit_json(**outcome.as_result(), diff=diff)


if __name__ == "__main__":
    main()
