#!/usr/bin/python
# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The people who may come in and become root."""

from __future__ import annotations

DOCUMENTATION = r"""
module: admins
short_description: Makes people admins of a host, and shuts out those who no longer are
version_added: 0.1.0
description:
  - Makes an account for each admin where there is none, puts the keys into C(/etc/ssh/fleet_admins.d/<name>), which is
    root's, and the rule of C(sudo) into C(/etc/sudoers.d/50-selfhost-fleet). Keys and rules are one transaction, as
    those of M(selfhost.fleet.config_set), and C(visudo -c) has to accept it.
  - C(sshd) has to look for keys there; the role C(ssh) tells it so.
  - Who is an admin is remembered by the group C(fleet-admins). A member that is no longer listed is shut out. The keys and
    the rule go, and so do keys of the admin's own in C(~/.ssh); the account is locked and expires; its processes are ended.
    Its home stays.
  - Fails before anything is changed where the user that the run came in as would be shut out.
options:
  admins:
    description: All admins of the host.
    type: list
    elements: dict
    required: true
    suboptions:
      name:
        description: Name of the account. One that is there already is taken over, unless it is the system's.
        type: str
        required: true
      keys:
        description: Public keys, each one line of a C(.pub) file. They replace those that were listed before.
        type: list
        elements: str
        required: true
      sudo:
        description:
          - Whether C(sudo) asks for the password of the account. A new account has none; with V(password) it cannot use
            C(sudo) before another admin has given it one by C(passwd).
        type: str
        choices: [nopasswd, password]
        default: password
author:
  - The selfhost.fleet authors (@selfhost)
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
- name: Two admins
  selfhost.fleet.admins:
    admins:
      - name: alice
        keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl alice"]
        sudo: nopasswd
      - name: bob
        keys: ["ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJl3dIeudNqd0DPMRD6OIh65tjkxFNOtGGcWB2gCgPhk bob"]
"""

RETURN = r"""
accounts:
  description: Commands that changed, or in check mode would change, accounts.
  type: list
  elements: str
  returned: success
changed_files:
  description: Files and folders that were, or in check mode would be, written.
  type: list
  elements: str
  returned: success
removed_files:
  description: Files and folders that were, or in check mode would be, removed.
  type: list
  elements: str
  returned: success
"""

import os  # noqa: E402
from dataclasses import asdict  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.admins.host import Admins  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.admins.model import AdminsError, parse  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.ssh.way_in import way_in  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.engine import Transaction  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import SetSpec, TransactionError  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.validate import NamespaceSandbox  # noqa: E402

ARGUMENTS: dict[str, Any] = {
    "admins": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "name": {"type": "str", "required": True},
            "keys": {"type": "list", "elements": "str", "required": True, "no_log": False},
            "sudo": {"type": "str", "choices": ["nopasswd", "password"], "default": "password"},
        },
    },
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    runner = SystemRunner()

    def transaction(spec: SetSpec) -> Transaction:
        return Transaction(spec, runner=runner, sandbox=NamespaceSandbox(runner), prober=lambda _options: (True, ""))

    came = way_in(Path("/proc"), os.getpid())
    try:
        outcome = Admins(runner, transaction).converge(
            parse(module.params["admins"]), connected_as=came.user if came else None, check=module.check_mode
        )
    except (AdminsError, TransactionError) as error:
        module.fail_json(msg=str(error))
    result = asdict(outcome)
    for warning in result.pop("warnings"):
        module.warn(warning)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
