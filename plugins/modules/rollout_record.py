#!/usr/bin/python
# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The ledger of rollouts on a host: see module_utils/rollout/ledger.py."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_record
short_description: Writes down on a host who moved a service to which version, when, and how it ended
version_added: 0.1.0
description:
  - Keeps a record of each rollout in C(/var/lib/selfhost/rollouts/<service>/<id>.json), for root alone, and the newest 50 of each service.
  - A record is on disk as a whole, or as it was before. One that cannot be read, after a power cut with a disk that lies, is reported in RV(damaged).
  - A record without an end is unfinished. Its rollout still goes on, or its run was killed.
options:
  state:
    description:
      - V(begun) opens a record. Where O(id) has one already, it goes on with that, and returns RV(resumes). What was recorded stays, and that the
        rollout was taken up again is recorded too, by whom and when.
      - V(taken) notes O(steps).
      - V(ended) notes how the rollout ended, and O(steps) before that.
      - V(read) returns what there is.
    type: str
    choices: [begun, taken, ended, read]
    required: true
  service:
    description: Name of the service. Required but for O(state=read), where all services are read without it.
    type: str
  id:
    description: Name of the rollout, of letters, digits and C(. _ + -). Required but for O(state=read).
    type: str
  operator:
    description: Who does it. Required for O(state=begun); M(selfhost.fleet.fleet_lock) returns it.
    type: str
  strategy:
    description: Schedule of the rollout. Required for O(state=begun).
    type: str
  from:
    description: What runs now, with O(state=begun). Without it, nothing does.
    type: dict
    suboptions:
      version:
        description: Its version.
        type: str
        required: true
      slot:
        description: Its slot.
        type: str
  to:
    description: What will run. Required for O(state=begun). A rollout that is taken up again must have the same version here.
    type: dict
    suboptions:
      version:
        description: Its version.
        type: str
        required: true
      slot:
        description: Its slot.
        type: str
  steps:
    description: Steps in their order. What is noted already is not noted again, so they may be all that there are by now.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Its name. One that is started again has another try.
        type: str
        required: true
      outcome:
        description: What it has come to.
        type: str
        choices: [started, done, failed]
        required: true
      seconds:
        description: How long it took. Without it, the time since it was started.
        type: float
      ago:
        description: How many seconds ago it came to that.
        type: float
        default: 0
      comment:
        description: What there is to say of it, as O(comment) is of the end.
        type: str
        default: ""
  outcome:
    description: How the rollout ended. Required for O(state=ended).
    type: str
    choices: [done, rolled_back, failed]
  comment:
    description: What there is to say of it. What looks like a password or a token is taken out, and only the last 2000 characters are kept.
    type: str
    default: ""
  way_back:
    description: With O(state=ended), whether the former version was seen to start on the database that this one leaves.
    type: bool
    default: false
  limit:
    description: How many records are returned with O(state=read); 0 for all.
    type: int
    default: 20
author:
  - The selfhost.fleet authors (@selfhost)
seealso:
  - module: selfhost.fleet.fleet_lock
extends_documentation_fragment:
  - selfhost.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - A step or an end whose record was not begun is one that would be written, since check mode has not begun it.
  diff_mode:
    support: none
    details:
      - What is recorded is in RV(record).
  idempotent:
    support: partial
    details:
      - Each O(state=begun) on a record that is there is recorded. All else changes nothing a second time.
"""

EXAMPLES = r"""
- name: Begin
  selfhost.fleet.rollout_record:
    state: begun
    service: fluxbase
    id: 20261121-1450-fluxbase-2026.3.6
    operator: ada@bridge
    strategy: rolling
    from: {version: 2026.3.5, slot: blue}
    to: {version: 2026.3.6, slot: green}

- name: The new release is about to be started
  selfhost.fleet.rollout_record:
    state: taken
    service: fluxbase
    id: 20261121-1450-fluxbase-2026.3.6
    steps: [{name: start, outcome: started}]

- name: The new release answers
  selfhost.fleet.rollout_record:
    state: taken
    service: fluxbase
    id: 20261121-1450-fluxbase-2026.3.6
    steps: [{name: start, outcome: done}, {name: gate, outcome: done, seconds: 4.2}]

- name: It did not go well
  selfhost.fleet.rollout_record:
    state: ended
    service: fluxbase
    id: 20261121-1450-fluxbase-2026.3.6
    outcome: rolled_back
    comment: the error rate rose to 3 %

- name: What was done lately
  selfhost.fleet.rollout_record:
    state: read
    service: fluxbase
    limit: 5
  register: ledger
"""

RETURN = r"""
record:
  description: The record as it is then; in check mode, as it would be. Null with O(state=read).
  returned: success
  type: dict
  sample:
    id: 20261121-1450-fluxbase-2026.3.6
    service: fluxbase
    operator: ada@bridge
    strategy: rolling
    from: {version: 2026.3.5, slot: blue}
    to: {version: 2026.3.6, slot: green}
    began: "2026-11-21T14:50:00.000Z"
    outcome: done
    ended: "2026-11-21T14:51:10.250Z"
    seconds: 70.25
    message: ""
    way_back: true
    steps:
      - {name: start, outcome: done, began: "2026-11-21T14:50:01.000Z", ended: "2026-11-21T14:50:08.500Z", seconds: 7.5, message: "", tries: 1}
    resumed: []
    former_ends: []
  contains:
    id: {description: "Name of the rollout.", type: str}
    service: {description: "Name of the service.", type: str}
    operator: {description: "Who began it.", type: str}
    strategy: {description: "Its schedule.", type: str}
    from: {description: "Version and slot before; null where there was none.", type: dict}
    to: {description: "Version and slot that it leads to.", type: dict}
    began: {description: "When it began, in UTC.", type: str}
    outcome: {description: "V(unfinished), V(done), V(rolled_back) or V(failed).", type: str}
    ended: {description: "When it ended, in UTC; null where it is unfinished.", type: str}
    seconds: {description: "From its beginning to its end.", type: float}
    message: {description: "What there is to say of its end.", type: str}
    way_back: {description: "Whether the former version was seen to start on the database that this one leaves.", type: bool}
    steps: {description: "Its steps, in the order in which they were first noted.", type: list, elements: dict}
    resumed: {description: "When it was taken up again, and by whom.", type: list, elements: dict}
    former_ends: {description: "How it had ended before it was taken up again.", type: list, elements: dict}
    format: {description: "Of the file; 1.", type: int}
resumes:
  description: Whether O(state=begun) has found a record of this rollout.
  returned: success
  type: bool
unfinished:
  description: Records of the service without an end, newest first, in the form of RV(record). With O(state=begun) the own one is among them.
  returned: success
  type: list
  elements: dict
damaged:
  description: Records of the service that cannot be read.
  returned: success
  type: list
  elements: dict
  sample:
    - {service: fluxbase, id: 20261121-1450-fluxbase-2026.3.6, path: /var/lib/selfhost/rollouts/fluxbase/20261121-1450-fluxbase-2026.3.6.json,
       problem: "Expecting value: line 1 column 1 (char 0)"}
records:
  description: Records, newest first, in the form of RV(record).
  returned: success, with O(state=read)
  type: list
  elements: dict
"""

import os  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.files import RolloutError  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.ledger import (  # noqa: E402
    OUTCOMES,
    STEP_OUTCOMES,
    Ledger,
)

PLACE = {"type": "dict", "options": {"version": {"type": "str", "required": True}, "slot": {"type": "str"}}}
STEP = {
    "name": {"type": "str", "required": True},
    "outcome": {"type": "str", "choices": list(STEP_OUTCOMES), "required": True},
    "seconds": {"type": "float"},
    "ago": {"type": "float", "default": 0},
    "comment": {"type": "str", "default": ""},
}
ARGUMENTS = {
    "state": {"type": "str", "choices": ["begun", "taken", "ended", "read"], "required": True},
    "service": {"type": "str"},
    "id": {"type": "str"},
    "operator": {"type": "str"},
    "strategy": {"type": "str"},
    "from": PLACE,
    "to": PLACE,
    "steps": {"type": "list", "elements": "dict", "options": STEP, "default": []},
    "outcome": {"type": "str", "choices": list(OUTCOMES)},
    "comment": {"type": "str", "default": ""},
    "way_back": {"type": "bool", "default": False},
    "limit": {"type": "int", "default": 20},
}
NEEDED = [
    ("state", "begun", ["service", "id", "operator", "strategy", "to"]),
    ("state", "taken", ["service", "id"]),
    ("state", "ended", ["service", "id", "outcome"]),
]


def converge(params: dict[str, Any], ledger: Ledger) -> dict[str, Any]:
    service, identifier = params["service"], params["id"]
    match params["state"]:
        case "begun":
            return ledger.begin(
                service,
                identifier,
                operator=params["operator"],
                strategy=params["strategy"],
                before=params["from"],
                after=params["to"],
            ).as_result()
        case "taken":
            return ledger.steps(service, identifier, params["steps"]).as_result()
        case "ended":
            return ledger.end(
                service,
                identifier,
                params["outcome"],
                params["comment"],
                way_back=params["way_back"],
                steps=params["steps"],
            ).as_result()
        case _:
            return ledger.read(service, limit=params["limit"])


def main() -> None:
    # The folder above the records may be read; it does not depend on the operator's umask.
    os.umask(0o022)
    module = AnsibleModule(argument_spec=ARGUMENTS, required_if=NEEDED, supports_check_mode=True)
    try:
        result = converge(module.params, Ledger(Path("/"), dry_run=module.check_mode))
    except RolloutError as error:
        module.fail_json(msg=str(error), **error.facts)
    module.exit_json(**result)


if __name__ == "__main__":
    main()
