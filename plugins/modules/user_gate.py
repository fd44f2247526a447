#!/usr/bin/python
# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E402  (Ansible wants the documentation before the imports)

from __future__ import annotations

DOCUMENTATION = r"""
module: user_gate
short_description: A gate of the user's own, a command or a query of Prometheus
version_added: 0.1.0
description:
  - What a new version has to pass beside the gates that every rollout has, from C(fleet_services.<service>.rollout.gates).
  - A command passes if it ends with 0 within O(timeout). No shell reads it. Whatever it has left running is ended with it.
  - A query passes if every value of its answer is within O(prometheus.below) and O(prometheus.above). No data, not a number (NaN) and no answer are asked
    again until O(timeout) is over, and are a failure then.
options:
  name:
    description: What it is called in messages.
    type: str
    required: true
  command:
    description: The program and its arguments. Either this or O(prometheus).
    type: list
    elements: str
  where:
    description:
      - Where O(command) runs.
      - V(host), on the host of the task, with nothing but O(environment), C(PATH), C(HOME) and C(LANG), in C(/).
      - V(controller), as whoever runs Ansible, with their environment, in the folder of the inventory.
    type: str
    choices: [host, controller]
    default: host
  user:
    description: Who runs O(command) on the host. On the controller it has no meaning.
    type: str
    default: nobody
  environment:
    description: Variables for O(command). They are seen in logs; put no secret into them.
    type: dict
    default: {}
  prometheus:
    description: A query of Prometheus, or of another program with its HTTP query API, asked from the controller.
    type: dict
    suboptions:
      url:
        description:
          - Of the server, as in C(http://monitor.example.com:9090).
          - Proxies named in the environment are not used. For a login there is C(~/.netrc).
        type: str
        required: true
      query:
        description: PromQL whose answer is a number or an instant vector.
        type: str
        required: true
      below:
        description: Every value has to be lower.
        type: float
      above:
        description: Every value has to be higher.
        type: float
  timeout:
    description: Seconds at most. A command that takes longer is ended, by SIGTERM and 2 seconds later by SIGKILL.
    type: float
    default: 60
extends_documentation_fragment: [selfhost.fleet.attributes]
attributes:
  check_mode:
    support: partial
    details: Neither runs nor asks anything.
  diff_mode:
    support: none
    details: The module itself changes nothing.
  idempotent:
    support: full
    details: As far as the command is.
author:
  - The selfhost.fleet authors (@selfhost)
"""

EXAMPLES = r"""
- name: A smoke test that lies on the host
  selfhost.fleet.user_gate:
    name: smoke
    command: [/usr/local/bin/smoke, --quick]
    environment: {FLEET_URL: "http://127.0.0.1:8082"}
    timeout: 120

- name: Errors that the service itself counts
  selfhost.fleet.user_gate:
    name: errors
    prometheus:
      url: http://monitor.example.com:9090
      query: sum(rate(http_errors_total{slot="green"}[1m])) / sum(rate(http_requests_total{slot="green"}[1m]))
      below: 0.01
"""

RETURN = r"""
msg:
  description: What it came to, for an operator; of a command that failed with its last 15 lines.
  returned: always
  type: str
code:
  description: The exit status of the command; 128 and the signal's number where a signal ended it, null where the time was over.
  returned: when a command was run
  type: int
lines:
  description: The last 15 lines of what the command wrote.
  returned: when a command was run
  type: list
  elements: str
seconds:
  description: How long the command took.
  returned: when a command was run
  type: float
values:
  description: What the query found, one value for each series.
  returned: when a query was made
  type: list
  elements: float
tries:
  description: How often Prometheus was asked.
  returned: when a query was made
  type: int
"""

from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.command import CommandError, of_a_host, run

PROMETHEUS = {
    "url": {"type": "str", "required": True},
    "query": {"type": "str", "required": True},
    "below": {"type": "float"},
    "above": {"type": "float"},
}
ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "command": {"type": "list", "elements": "str"},
    "where": {"type": "str", "choices": ["host", "controller"], "default": "host"},
    "user": {"type": "str", "default": "nobody"},
    "environment": {"type": "dict", "default": {}},
    "prometheus": {"type": "dict", "options": PROMETHEUS},
    "timeout": {"type": "float", "default": 60.0},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    if not options["command"] or options["where"] != "host":
        module.fail_json(
            msg="What runs on the controller is the action plugin's; call selfhost.fleet.user_gate by its full name."
        )
    if module.check_mode:
        module.exit_json(changed=False, msg=f"{options['name']}: not run in check mode")
    environment = {name: str(value) for name, value in options["environment"].items()}
    try:
        outcome = run(
            options["command"],
            environment=of_a_host(environment, options["user"]),
            timeout=options["timeout"],
            user=options["user"],
        )
    except CommandError as error:
        module.fail_json(msg=f"{options['name']}: {error}")
    result = {
        "changed": False,
        "msg": f"{options['name']}: {options['command'][0]} {outcome.words}",
        **outcome.as_result(),
    }
    if outcome.ok:
        module.exit_json(**result)
    module.fail_json(**result)


if __name__ == "__main__":
    main()
