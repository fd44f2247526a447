#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""Documentation of the action plugin of the same name: nothing here runs on a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: rollout_event
short_description: Tell the operator and a webhook what becomes of a rollout
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Returns what has happened, for the callback P(selfhost.fleet.rollout#callback), and sends the same as JSON to the webhook of the inventory,
    C(fleet_notify), where it has one.
  - It is sent by the controller, once, with 5 seconds for all of it. A webhook that does not take it is a warning and no failure.
options:
  event:
    description:
      - What has happened, as the filter C(rollout_news) makes it of a rollout. The fields are in C(docs/upgrades.md).
    type: dict
    required: true
  limits:
    description: How long and how often things are tried in this rollout, for the callback alone.
    type: dict
    default: {}
attributes:
  check_mode:
    description: There is no rollout to tell of in check mode; do not call it there.
    support: none
  diff_mode:
    description: Has nothing to compare.
    support: none
notes:
  - Run it once for all hosts with C(run_once).
"""

EXAMPLES = r"""
- name: Tell that it has ended
  selfhost.fleet.rollout_event:
    event: "{{ rollout | selfhost.fleet.rollout_news('done', rollout_begun, operator='ada@bridge') }}"
  run_once: true
"""

RETURN = r"""
rollout_event:
  description: What has happened, with the name of the fleet.
  returned: always
  type: dict
rollout_limits:
  description: What O(limits) says.
  returned: always
  type: dict
"""
