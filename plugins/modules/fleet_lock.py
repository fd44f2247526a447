#!/usr/bin/python
# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The lock on the fleet: see module_utils/rollout/lock.py. The controller's half is plugins/action/fleet_lock.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: fleet_lock
short_description: One operator at a time
version_added: 0.1.0
description:
  - Holds C(/var/lib/selfhost/fleet.lock) on every host of the play, for the run of Ansible that asks for it. While one run holds it, no other gets it.
  - It fails where another run holds the lock, and says whose that is, since when and for what.
  - A lock that was left by a run of the same controller whose process lives no more is taken over with a warning. The same controller is the same
    machine by its machine-id and its name, and the same container. That of another controller is taken over by name alone, with O(takeover).
  - Of two runs that begin at the same moment each may get some hosts. Let both release what they got, and fail.
options:
  state:
    description:
      - V(held) takes the lock, or finds that this run has it already.
      - V(released) lets go of it. Where there is none, or another run's, nothing is done; the latter is warned of.
    type: str
    choices: [held, released]
    default: held
  what:
    description: What the run does, for whoever has to wait. Required for O(state=held). No secrets, as everybody may read it who meets the lock.
    type: str
  takeover:
    description: The operator whose run is dead and whose lock is taken over, exactly as the failure names him.
    type: str
  operator:
    description: Who runs this. By default the user of the controller, as user@host; the action plugin says it.
    type: str
  token:
    description: Which run this is. The action plugin says it.
    type: str
  controller:
    description: Where the run is, so that the same controller can see whether it lives. The action plugin says it.
    type: dict
    default: {}
    suboptions:
      machine:
        description: A digest of the machine-id; empty where there is none.
        type: str
      host:
        description: Name of the machine.
        type: str
      boot:
        description: Which boot of the machine.
        type: str
      namespace:
        description: Which namespace of processes.
        type: str
      pid:
        description: The process that lives as long as the run.
        type: int
      started:
        description: When that process started, in ticks since the boot.
        type: str
  ended:
    description: Token of a run that lives no more. The action plugin says it.
    type: str
author:
  - The selfhost.fleet authors (@selfhost)
seealso:
  - module: selfhost.fleet.rollout_record
extends_documentation_fragment:
  - selfhost.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - Takes no lock, and fails where the run itself would.
  diff_mode:
    support: none
    details:
      - What changes is in RV(holder) and RV(taken_over).
  idempotent:
    support: full
    details:
      - Within one run of Ansible.
"""

EXAMPLES = r"""
- name: Work on the fleet alone
  block:
    - name: Lock the fleet
      selfhost.fleet.fleet_lock:
        what: upgrade of fluxbase to 2026.3.6
        takeover: "{{ lock_takeover | default(omit) }}"
      register: lock

    - name: Show who works
      ansible.builtin.debug:
        var: lock.operator
  always:
    - name: Let others work
      selfhost.fleet.fleet_lock:
        state: released
"""

RETURN = r"""
holder:
  description:
    - Whose the lock is afterwards, also where the module fails because of it; null where nobody holds it.
    - In check mode, whose it would be.
  returned: always, but for failures of another kind
  type: dict
  contains:
    operator: {description: "Who runs it.", type: str, sample: ada@bridge}
    what: {description: "What for.", type: str, sample: upgrade of fluxbase to 2026.3.6}
    since: {description: "Since when, in UTC by the host's clock.", type: str, sample: "2026-11-21T14:50:00.000Z"}
    token: {description: "Which run it is.", type: str}
    controller: {description: "Where the run is.", type: dict}
taken_over:
  description: Whose lock was taken over, in the form of RV(holder); else null.
  returned: success
  type: dict
operator:
  description: Who runs this, for M(selfhost.fleet.rollout_record).
  returned: success
  type: str
  sample: ada@bridge
"""

import os  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.files import RolloutError  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.lock import FleetLock, Outcome  # noqa: E402

ARGUMENTS = {
    "state": {"type": "str", "choices": ["held", "released"], "default": "held"},
    "what": {"type": "str"},
    "takeover": {"type": "str"},
    "operator": {"type": "str"},
    "token": {"type": "str", "no_log": False},
    "controller": {
        "type": "dict",
        "default": {},
        "options": {
            "machine": {"type": "str"},
            "host": {"type": "str"},
            "boot": {"type": "str"},
            "namespace": {"type": "str"},
            "pid": {"type": "int"},
            "started": {"type": "str"},
        },
    },
    "ended": {"type": "str"},
}


def converge(module: AnsibleModule, lock: FleetLock) -> Outcome:
    params = module.params
    if params["state"] == "released":
        outcome = lock.release(token=params["token"], dry_run=module.check_mode)
        if outcome.holder:
            module.warn(f"The lock on the fleet is not this run's, and stays: it is held by {outcome.holder.words()}.")
        return outcome
    outcome = lock.hold(
        **{name: params[name] for name in ("token", "operator", "what", "controller", "takeover", "ended")},
        dry_run=module.check_mode,
    )
    if outcome.former:
        gone = outcome.former.token == params["ended"]
        why = "the process of that run lives no more" if gone else "its operator was named for that"
        module.warn(f"The lock on the fleet is taken over, as {why}. It was held by {outcome.former.words()}.")
    return outcome


def main() -> None:
    # The folder of the lock may be read; it does not depend on the operator's umask.
    os.umask(0o022)
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        required_if=[("state", "held", ["what", "operator", "token"]), ("state", "released", ["token"])],
        supports_check_mode=True,
    )
    try:
        outcome = converge(module, FleetLock(Path("/")))
    except RolloutError as error:
        module.fail_json(msg=str(error), **error.facts)
    module.exit_json(**outcome.as_result(), operator=module.params["operator"])


if __name__ == "__main__":
    main()
