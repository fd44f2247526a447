#!/usr/bin/python
# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E402  (Ansible wants the documentation before the imports)

from __future__ import annotations

DOCUMENTATION = r"""
module: probe
short_description: Waits until a service answers as it should
version_added: 0.1.0
description:
  - Asks over HTTP, TCP or WebSocket, from the host that it runs on, until the answer is right or the time is over.
  - Fails with what was asked, how many tries were made over how long, and the last answer.
  - With O(unit) a right answer counts only while that unit is active and, where the port is this host's, while no other
    unit holds it, so that a former process is not taken for the new one; a series of crashes ends the probe at once with
    the unit's journal.
  - Proxies named in the environment are not used.
options:
  kind:
    description: What is spoken.
    type: str
    choices: [http, tcp, websocket]
    required: true
  url:
    description:
      - Whom to ask, C(http[s]://host[:port]/path), C(tcp://host:port) or C(ws[s]://host[:port]/path).
      - A user or password in it is refused.
    type: str
    required: true
  status:
    description: The HTTP statuses that are right. Redirects are not followed; list C(301) where one is expected.
    type: list
    elements: int
    default: [200]
  body_pattern:
    description: A regular expression (Python) that is searched for in the first MiB of the body.
    type: str
  send:
    description: A text that is sent once the WebSocket is open.
    type: str
  message_pattern:
    description:
      - A regular expression (Python) that the first message from the server must contain.
      - Without it an opened WebSocket is enough.
    type: str
  headers:
    description:
      - Headers to send, as a mapping. For C(Host) there is O(host).
      - They are seen in logs; put no secret into them.
    type: dict
    default: {}
  host:
    description: The name sent as C(Host) and SNI and expected in the certificate, where it is not the one in O(url).
    type: str
  connect_to:
    description: The address to connect to instead of the one in O(url), C(host) or C(host:port).
    type: str
  ca_file:
    description: Certificates (PEM) that are trusted instead of the system's.
    type: path
  verify:
    description: Whether the server's certificate and name are checked.
    type: bool
    default: true
  timeout:
    description:
      - Seconds for one try as a whole, once connected; and for connecting.
      - A name's look-up is not limited by it.
    type: float
    default: 5
  interval:
    description: Seconds between two tries.
    type: float
    default: 0.5
  deadline:
    description:
      - Seconds after which no further try begins. The last try begins at this time and may take O(timeout) more.
      - With V(0) there is only one try.
    type: float
    default: 60
  successes:
    description: How many right answers in a row are needed.
    type: int
    default: 1
  failures:
    description:
      - After how many wrong answers in a row it ends before O(deadline), for what has to be up already. V(0) for none.
    type: int
    default: 0
  unit:
    description:
      - A systemd unit that is watched meanwhile. The probe ends at once when it has failed, does not exist, was
        restarted by systemd three times or more since the probe began, or is stopped and nothing starts it.
      - One or two crashes are left to systemd.
    type: str
extends_documentation_fragment: [selfhost.fleet.attributes]
attributes:
  check_mode:
    support: partial
    details: Asks once and does not fail, as what earlier tasks would have started does not run. See RV(ok).
  diff_mode:
    support: none
    details: Nothing is changed.
  idempotent:
    support: full
author:
  - The selfhost.fleet authors (@selfhost)
"""

EXAMPLES = r"""
- name: Wait for the new slot
  selfhost.fleet.probe:
    kind: http
    url: http://127.0.0.1:8082/health
    deadline: 180
    successes: 3
    unit: fluxbase-server@green.service

- name: Ask this edge for the site, whatever DNS says
  selfhost.fleet.probe:
    kind: http
    url: https://api.example.com/health
    connect_to: 127.0.0.1
    ca_file: /etc/selfhost/tls/api.example.com/ca.pem
    body_pattern: '"status":\s*"ok"'

- name: A WebSocket through the edge
  selfhost.fleet.probe:
    kind: websocket
    url: wss://api.example.com/realtime
    send: '{"type": "ping"}'
    message_pattern: pong
"""

RETURN = r"""
ok:
  description: Whether it answered as it should.
  returned: always
  type: bool
msg:
  description: What was asked, how often over how long, the last answer; on failure with a unit, its journal.
  returned: always
  type: str
tries:
  description: How many tries were made.
  returned: always
  type: int
elapsed:
  description: Seconds from the first try to the end.
  returned: always
  type: float
last_answer:
  description: The last answer in words, at most 200 characters of its body.
  returned: always
  type: str
status:
  description: The HTTP status of the last answer, null where there was none.
  returned: always
  type: int
unit_state:
  description: The state of O(unit) at the end, null without one.
  returned: always
  type: str
journal:
  description: The last 15 lines of the unit's journal, of this invocation.
  returned: always (empty unless the probe failed and O(unit) is given)
  type: list
  elements: str
"""

from dataclasses import replace
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.fleet.plugins.module_utils.probe import ProbeSpec, ProbeSpecError, probe

ARGUMENTS: dict[str, Any] = {
    "kind": {"type": "str", "choices": ["http", "tcp", "websocket"], "required": True},
    "url": {"type": "str", "required": True},
    "status": {"type": "list", "elements": "int", "default": [200]},
    "body_pattern": {"type": "str"},
    "send": {"type": "str"},
    "message_pattern": {"type": "str"},
    "headers": {"type": "dict", "default": {}},
    "host": {"type": "str"},
    "connect_to": {"type": "str"},
    "ca_file": {"type": "path"},
    "verify": {"type": "bool", "default": True},
    "timeout": {"type": "float", "default": 5.0},
    "interval": {"type": "float", "default": 0.5},
    "deadline": {"type": "float", "default": 60.0},
    "successes": {"type": "int", "default": 1},
    "failures": {"type": "int", "default": 0},
    "unit": {"type": "str"},
}


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    try:
        spec = ProbeSpec.from_mapping(module.params)
    except ProbeSpecError as error:
        module.fail_json(msg=str(error))
    if module.check_mode:
        spec = replace(spec, deadline=0.0, successes=1)
    result = probe(spec)
    if not result.ok and not module.check_mode:
        module.fail_json(msg=result.message, changed=False, **result.as_result())
    module.exit_json(msg=result.message, changed=False, **result.as_result())


if __name__ == "__main__":
    main()
