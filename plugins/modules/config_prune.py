#!/usr/bin/python
# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What a host no longer has: see module_utils/transaction/prune.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_prune
short_description: Takes away the sets of configuration that a host no longer has
version_added: 0.1.0
description:
  - M(selfhost.fleet.config_set) removes what is no longer listed in a set. A host that left a group is not asked for
    the set at all any more; this module takes such sets away.
  - Every set that is recorded on the host in C(/var/lib/selfhost/config) and is not in O(keep) goes, each as a
    transaction of its own. If one cannot be taken away it is brought back as it was, and the task fails; those before
    it are gone, those after it are untouched.
  - Units that the set ran are stopped and disabled first, those whose files go with the set as well as those of the
    distribution, such as C(nginx.service). Packages stay installed.
  - A unit that another set manages too is not stopped. Neither is one that the host or the way to it needs, such as
    C(ssh.service), C(systemd-journald.service) or a target. They reload or restart, as the set that goes had it, if
    files went.
  - The files of the set are removed, with the folders that it made and that are empty then, and C(daemon-reload) runs
    where files of units are among them. A file that another set manages too stays.
  - What is not configuration stays. Releases below C(/opt), the data of services, their system users, and certificates
    are not touched.
  - The set V(postgres) is never taken away. Its unit holds data that may exist nowhere else, and a host leaves a group
    by a slip in the inventory as easily as by design. Stopped, the database is an outage of all that depends on it; set
    up on another host, it is an empty one. So it runs on as it was configured, RV(protected) names it, and every run
    warns and says how to retire it by hand once its data has moved and the copy has been proven.
options:
  keep:
    description: Names of the sets that stay. With an empty list, all go.
    type: list
    elements: str
    required: true
  among:
    description:
      - Only sets of these names are looked at; others on the host belong to somebody else and are left alone. All of the
        host where it is omitted. C(*) stands for any part of a name.
      - They go in the reverse of this order. Without it the order is that of the alphabet.
    type: list
    elements: str
  timeout:
    description:
      - Seconds for each command, such as the stop of the units of a set, and to wait for another transaction.
      - It has to be longer than the longest C(TimeoutStopSec) of the units.
    type: float
    default: 900
author:
  - The selfhost.fleet authors (@selfhost)
seealso:
  - module: selfhost.fleet.config_set
extends_documentation_fragment:
  - selfhost.fleet.attributes
attributes:
  check_mode:
    support: full
  diff_mode:
    support: full
    details:
      - The content of secret files is masked.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Take away what this host no longer has, and leave the sets of others alone
  selfhost.fleet.config_prune:
    keep: [baseline, firewall, service]
    among: [baseline, firewall, pooler, service, edge]
"""

RETURN = r"""
pruned:
  description: Sets that were, or in check mode would be, taken away, in this order.
  type: list
  elements: str
  returned: always
  sample: [edge, pooler]
protected:
  description: Sets that are not in O(keep) and stay all the same, because of their data.
  type: list
  elements: str
  returned: always
removed_files:
  description: Files and folders that were, or in check mode would be, removed.
  type: list
  elements: str
  returned: always
units:
  description: Units that were acted on, with what was done in order.
  type: dict
  returned: always
  sample: {nginx.service: [stop, disable]}
recovered:
  description: Sets whose interrupted run was undone first.
  type: list
  elements: str
  returned: always
set:
  description: The set that could not be taken away.
  type: str
  returned: when one could not be taken away
phase:
  description: Where it failed, one of recover, compare, swap and apply.
  type: str
  returned: failure
rolled_back:
  description: Whether the former state of that set is back. False too where nothing of it had been touched yet.
  type: bool
  returned: failure
unit:
  description: The unit that failed.
  type: str
  returned: when a unit failed
"""

from dataclasses import asdict  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import TransactionError  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.prune import Prune  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.signals import Ended, watch_signals  # noqa: E402

ARGUMENTS: dict[str, Any] = {
    "keep": {"type": "list", "elements": "str", "required": True},
    "among": {"type": "list", "elements": "str"},
    "timeout": {"type": "float", "default": 900},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    timeout = module.params["timeout"]
    prune = Prune(
        keep=module.params["keep"],
        among=module.params["among"],
        runner=SystemRunner(timeout=timeout),
        timeout=timeout,
    )
    watch_signals()
    try:
        prune.run(check=module.check_mode)
    except TransactionError as error:
        facts = {"phase": error.phase, "rolled_back": False, **error.facts}
        module.fail_json(msg=str(error), **(_result(module, prune) | facts))
    except Ended as error:
        facts = {"phase": "apply", "rolled_back": True}
        module.fail_json(msg=f"{error}; what was begun has been undone", **(_result(module, prune) | facts))
    module.exit_json(**_result(module, prune))


def _result(module: AnsibleModule, prune: Prune) -> dict[str, Any]:
    result = asdict(prune.outcome)
    for warning in result.pop("warnings"):
        module.warn(warning)
    return result


if __name__ == "__main__":
    main()
