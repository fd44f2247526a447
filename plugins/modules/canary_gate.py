#!/usr/bin/python
# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E402  (Ansible wants the documentation before the imports)

from __future__ import annotations

DOCUMENTATION = r"""
module: canary_gate
short_description: Compares how a new release and the old one answer, by the edge's own access log
version_added: 0.1.0
description:
  - Runs on an edge, reads its access log for O(duration), and fails as soon as it is evident that the new release has more
    errors or a slower 95th percentile (p95) than the old one. No monitoring is needed.
  - An error is a status of 500 or more from the upstream, no answer of it included. Where nginx then asked another one, that
    one's answer is counted too. A client that has gone (499) is no error.
  - The p95 is of the upstream's response time (the whole answer). Errors, WebSockets, and routes of the kinds C(streaming)
    and C(websocket) have no part in it. Where the client has gone, the time until then is taken.
  - A difference fails the release if it is larger than a limit (O(error_margin); O(latency_factor) and O(latency_floor)) and
    not chance (O(significance), by Fisher's exact test). With few requests only a large difference is evident.
  - A request is in the log when it has ended. What hangs is seen when nginx gives it up (the route's C(timeout)) or its
    client does.
  - What is answered with 4xx is no error here. That a release answers at all, and rightly, is for M(selfhost.fleet.probe).
options:
  log:
    description:
      - The access log, in the JSON format of the role edge. Where it has been rotated since O(since), C(.1) is read too; what
        is compressed is not.
      - The log is not read from its beginning, however large it is.
    type: path
    default: /var/log/nginx/access.log
  since:
    description:
      - Requests that ended at this time or later count. Seconds since the epoch, by the clock of this host.
      - The log has whole seconds. Of those that ended in the same second as a time with a fraction none is counted.
      - Without it, from now on.
    type: float
  old:
    description:
      - Where the old release listens, C(host:port); IPv6 in brackets. They are counted together.
      - A name is looked up on this host; the log has addresses.
    type: list
    elements: str
    required: true
  new:
    description: Where the new release listens, as in O(old).
    type: list
    elements: str
    required: true
  duration:
    description:
      - Seconds to observe for. Only a failure ends it earlier.
      - With V(0) it looks once, at what is in the log since O(since).
    type: float
    default: 300.0
  interval:
    description:
      - Seconds between two looks, V(0.1) at least.
      - The more looks, the more evidence an early failure needs, as O(significance) is shared among them.
    type: float
    default: 5.0
  min_requests:
    description:
      - How many requests of each side it takes to pass. With fewer the outcome is C(undecided).
      - A failure that is evident needs no number.
    type: int
    default: 100
  undecided_is:
    description: What it means that there were too few requests by the end of O(duration).
    type: str
    choices: [fail, pass]
    default: fail
  significance:
    description:
      - The chance, at most, that a release that is no worse than the old one fails. It holds for one call of this module with
        all its looks and for errors and latency together; several calls, or edges, have it each.
      - Half of it is for the last look and the other half for all looks before.
    type: float
    default: 0.01
  error_margin:
    description: Percentage points by which the new release's share of errors may be higher.
    type: float
    default: 1.0
  latency_factor:
    description: How many times the old release's p95 the new one's may be. It fails if it is beyond this and O(latency_floor).
    type: float
    default: 1.5
  latency_floor:
    description: Milliseconds by which the new release's p95 may be slower, whatever the factor.
    type: float
    default: 50.0
extends_documentation_fragment: [selfhost.fleet.attributes]
attributes:
  check_mode:
    support: partial
    details: Looks once and does not fail, as no traffic was moved. See RV(outcome).
  diff_mode:
    support: none
    details: Nothing is changed.
  idempotent:
    support: full
author:
  - The selfhost.fleet authors (@selfhost)
"""

EXAMPLES = r"""
- name: Watch the new release for ten minutes
  selfhost.fleet.canary_gate:
    old: [192.0.2.11:8081, 192.0.2.12:8081]
    new: [192.0.2.11:8082]
    duration: 600

- name: Look once at what the share of traffic of before has shown, and take little traffic for no fault
  selfhost.fleet.canary_gate:
    since: "{{ moved_at }}"
    old: ["[2001:db8::11]:8081"]
    new: ["[2001:db8::11]:8082"]
    duration: 0
    undecided_is: pass
    error_margin: 0.5
"""

RETURN = r"""
outcome:
  description: V(pass), V(fail), or V(undecided) where there were too few requests, whatever O(undecided_is) makes of it.
  returned: when the log could be read, also on failure
  type: str
msg:
  description: The verdict for an operator, with the numbers of both sides.
  returned: always
  type: str
reasons:
  description: What failed, V(errors) and V(latency); empty otherwise.
  returned: when the log could be read, also on failure
  type: list
  elements: str
old:
  description:
    - What the old release's side has answered. All but RV(old.p95_ms) can be added up over edges.
    - Where V(beyond) of the new side is more than 5 % of its V(timed), its p95 is too slow. By V(above) and V(timed) of both
      sides Fisher's test says whether that is chance.
  returned: when the log could be read, also on failure
  type: dict
  contains:
    requests:
      description: Requests that were sent there, those included that another upstream then answered.
      type: int
    errors:
      description: How many of them were errors.
      type: int
    timed:
      description: How many of them have a part in the p95.
      type: int
    above:
      description: How many of V(timed) took longer than the old side's p95.
      type: int
    beyond:
      description: How many of V(timed) took longer than RV(latency_limit_ms).
      type: int
    p95_ms:
      description: The 95th percentile in milliseconds, null where there were none.
      type: int
  sample: {requests: 4021, errors: 3, timed: 3950, above: 188, beyond: 4, p95_ms: 84}
new:
  description: The same of the new release's side.
  returned: when the log could be read, also on failure
  type: dict
  sample: {requests: 212, errors: 0, timed: 208, above: 11, beyond: 0, p95_ms: 85}
latency_limit_ms:
  description: How slow the new side's p95 may be, in milliseconds; null where the old side has none.
  returned: when the log could be read, also on failure
  type: float
looks:
  description: How often the log was looked at.
  returned: when the log could be read, also on failure
  type: int
elapsed:
  description: Seconds from the first look to the last.
  returned: when the log could be read, also on failure
  type: float
damaged_lines:
  description: Lines that were passed over, as they are not of the edge's format. A few may be there after a crash.
  returned: when the log could be read, also on failure
  type: int
"""

import time
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.access_log import AccessLog, AccessLogError
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.canary import FAIL, UNDECIDED, Limits, LimitsError
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.gate import GateError, observe, upstreams

ARGUMENTS: dict[str, Any] = {
    "log": {"type": "path", "default": "/var/log/nginx/access.log"},
    "since": {"type": "float"},
    "old": {"type": "list", "elements": "str", "required": True},
    "new": {"type": "list", "elements": "str", "required": True},
    "duration": {"type": "float", "default": 300.0},
    "interval": {"type": "float", "default": 5.0},
    "min_requests": {"type": "int", "default": 100},
    "undecided_is": {"type": "str", "choices": ["fail", "pass"], "default": "fail"},
    "significance": {"type": "float", "default": 0.01},
    "error_margin": {"type": "float", "default": 1.0},
    "latency_factor": {"type": "float", "default": 1.5},
    "latency_floor": {"type": "float", "default": 50.0},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    options = module.params
    since = time.time() if options["since"] is None else options["since"]
    try:
        with AccessLog(Path(options["log"]), since) as log:
            observation = observe(
                log,
                upstreams("old", options["old"]),
                upstreams("new", options["new"]),
                Limits.from_mapping(options),
                duration=0.0 if module.check_mode else options["duration"],
                interval=options["interval"],
            )
    except (AccessLogError, GateError, LimitsError) as error:
        module.fail_json(msg=str(error))
    outcome, words = observation.verdict.outcome, observation.words
    failed = outcome == FAIL
    if outcome == UNDECIDED:
        failed = options["undecided_is"] == FAIL
        words += f" That counts as {options['undecided_is']} (undecided_is)."
    if failed and not module.check_mode:
        module.fail_json(msg=words, changed=False, **observation.as_result())
    module.exit_json(msg=words, changed=False, **observation.as_result())


if __name__ == "__main__":
    main()
