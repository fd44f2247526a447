#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""Waits until the requests of a slot have ended."""

from __future__ import annotations

DOCUMENTATION = r"""
module: drain
short_description: Wait until nobody is connected to some ports any more
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - For a slot from which the edges have taken the traffic. What was asked of it before is answered before it stops.
  - WebSockets stay for as long as their clients do. They are left when the time is over, and end with the slot.
options:
  ports:
    description: Ports on this host.
    type: list
    elements: int
    required: true
  edge:
    description: Whether nginx of this host is waited for, too, until no worker from before its last reload is left.
    type: bool
    default: false
  timeout:
    description: Seconds to wait at most. That some are left then is no failure.
    type: float
    default: 30.0
  quiet:
    description: Seconds for which nobody has to be connected.
    type: float
    default: 1.0
attributes:
  check_mode:
    description: Waits in no mode but the ordinary one; changes nothing in any.
    support: full
  diff_mode:
    description: Has nothing to compare.
    support: none
"""

EXAMPLES = r"""
- name: Wait for the last requests of the slot
  selfhost.fleet.drain:
    ports: [8081]
"""

RETURN = r"""
left:
  description: Connections that were left when the time was over.
  returned: always
  type: int
workers:
  description: Old workers of nginx that were left then.
  returned: always
  type: int
"""

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.drain import Left, drain, old_workers  # noqa: E402


def main() -> None:
    module = AnsibleModule(
        argument_spec={
            "ports": {"type": "list", "elements": "int", "required": True},
            "edge": {"type": "bool", "default": False},
            "timeout": {"type": "float", "default": 30.0},
            "quiet": {"type": "float", "default": 1.0},
        },
        supports_check_mode=True,
    )
    ports, timeout, quiet = (module.params[name] for name in ("ports", "timeout", "quiet"))
    left = Left(0, 0)
    if not module.check_mode:
        options = {"workers": old_workers} if module.params["edge"] else {}
        left = drain(set(ports), timeout=timeout, quiet=quiet, **options)
    module.exit_json(changed=False, left=left.connections, workers=left.workers)


if __name__ == "__main__":
    main()
