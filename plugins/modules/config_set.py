#!/usr/bin/python
# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The host's half of selfhost.fleet.config_set."""

from __future__ import annotations

DOCUMENTATION = r"""
module: config_set
short_description: Makes a set of configuration files take effect as a whole, proven, or not at all
version_added: 0.1.0
description:
  - Templates are rendered on the controller and sent in one call. On the host the set is compared, its candidate is
    validated in a private mount namespace where it is seen in place, swapped in atomically, applied and probed.
  - On any failure the former bytes, modes, owners and running state come back, and the task fails with the words of
    the validator, the unit or the probe.
  - A run that was killed in the middle is undone by the next run of any set on that host, before anything else.
  - A file that the set managed before and that is no longer listed is removed. If it is a unit's file, the unit is
    stopped and disabled first.
  - What a set manages is written down in C(/var/lib/selfhost/config/<name>.json), without the content.
  - A set that a host is no longer to have at all is taken away by M(selfhost.fleet.config_prune).
  - Folders that are missing above a listed path are made with mode C(0755), and removed once nothing of the set needs
    them and they are empty.
  - A link in the place of a managed file is replaced, never followed. A link can be managed itself, as O(files[].link).
  - Commands are lists of arguments. There is no shell. Secrets do not belong into them.
options:
  name:
    description: Name of the set. Everything that takes effect together is one set.
    type: str
    required: true
  files:
    description: The files of the set.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path on the host.
        type: str
        required: true
      template:
        description:
          - A template on the controller, looked up as M(ansible.builtin.template) does. The options of Jinja are the
            same as there, C(trim_blocks) is on.
          - Exactly one of O(files[].template), O(files[].content), O(files[].secret_content) and O(files[].link) is needed.
        type: str
      vars:
        description: Variables for this template alone.
        type: dict
        default: {}
      content:
        description: The content itself. With O(files[].secret=true) it is treated as O(files[].secret_content).
        type: str
      secret_content:
        description: The content itself, in no log, diff or message.
        type: str
      link:
        description:
          - Makes O(files[].path) a symbolic link that points at this, as it is written here; a relative one is seen from the
            folder of the link. It is moved by one rename, so that there is no moment without it.
          - What it points at is not looked at. Owner and mode mean nothing for a link, it is root's.
        type: str
      secret:
        description: Whether the rendered content is secret.
        type: bool
        default: false
      owner:
        description: Owner, as a name or a number.
        type: str
        default: root
      group:
        description: Group, as a name or a number.
        type: str
        default: root
      mode:
        description: Mode, in octal with a leading zero and in quotes.
        type: str
        default: "0644"
  directories:
    description: Folders of the set.
    type: list
    elements: dict
    default: []
    suboptions:
      path:
        description: Absolute path on the host.
        type: str
        required: true
      owner:
        description: Owner, as a name or a number.
        type: str
        default: root
      group:
        description: Group, as a name or a number.
        type: str
        default: root
      mode:
        description: Mode, in octal with a leading zero and in quotes.
        type: str
        default: "0755"
      owned:
        description:
          - Whether the folder holds exactly what is listed; other files and links in it are removed. Folders in it, and
            files that another set manages, are left alone.
          - Folders that the system shares, such as C(/etc), are refused unless there is a O(directories[].pattern).
        type: bool
        default: true
      pattern:
        description: Only names that match this shell pattern are owned.
        type: str
  validate:
    description:
      - Commands that see the candidate in place while the host does not. They run when a file or folder differs, in
        check mode too.
      - If one is not installed this is an error, and a warning in check mode.
    type: list
    elements: list
    default: []
  requires:
    description:
      - Paths that validators need and that other tasks make, such as certificates. If one is missing this is an error;
        in check mode the set is then not validated, and RV(validated) is false.
    type: list
    elements: str
    default: []
  commands:
    description:
      - Commands that run after the swap when a file or folder changed, before the units. They run again after the
        former files came back.
    type: list
    elements: list
    default: []
  units:
    description: Units of systemd that read the set. C(daemon-reload) runs by itself when a unit's file changed.
    type: list
    elements: dict
    default: []
    suboptions:
      name:
        description: Name of the unit; C(.service) is appended where it has no suffix.
        type: str
        required: true
      on_change:
        description:
          - What a running unit does when a file changed.
          - A unit whose own file or drop-in changed is restarted instead of reloaded, and so is one that cannot reload.
        type: str
        choices: [reload, restart, none]
        default: restart
      restart_on:
        description: Shell patterns of paths whose change wants a restart rather than a reload.
        type: list
        elements: str
        default: []
      files:
        description: Shell patterns of the paths that concern this unit; all of the set where empty.
        type: list
        elements: str
        default: []
      enabled:
        description: Whether it starts with the host; default is true. V(null) leaves it as it is.
        type: bool
      state:
        description: What it is to be; V(kept) leaves it as it is, and a unit that does not run is then not started.
        type: str
        choices: [started, stopped, kept]
        default: started
      settle:
        description:
          - Seconds that a unit has to stay up after a start, where systemd knows only that its process exists, and
            after a reload, which is no more than a signal to most. Probes are asked after it.
          - A second crash in this time is a failure.
        type: float
        default: 1.0
  probes:
    description: Options of M(selfhost.fleet.probe), one entry per probe. All have to hold after a change.
    type: list
    elements: dict
    default: []
  probe:
    description: One probe; the same as O(probes) with one entry.
    type: dict
  timeout:
    description: Seconds for each validator and command, each action of a unit, and to wait for another transaction.
    type: float
    default: 60
  confirm_within:
    description:
      - Seconds after which a change is taken back by the host itself, unless the controller has reached the host over a
        fresh connection. For what could cut the controller off. 0 where no confirmation is needed.
      - To be longer than a connection's time-out. A change that the controller cannot confirm is taken back at once
        where the former connection still lives.
    type: float
    default: 0
  keep_login:
    description:
      - For a set that configures C(sshd). The candidate has to let in, with a key, the user that this run came in as,
        from the same address; asked of C(sshd -T) before anything is live. Nothing is asked where the run did not come
        over SSH.
    type: bool
    default: false
  digest:
    description: Of all other options; set by the action plugin itself, for M(selfhost.fleet.config_facts).
    type: str
  state:
    description:
      - V(confirmed) keeps a change that waits for it, V(taken_back) undoes it; used by the action plugin itself.
    type: str
    choices: [present, confirmed, taken_back]
    default: present
  change:
    description: Which of the changes O(state=confirmed) keeps and O(state=taken_back) undoes; used by the action plugin itself.
    type: str
    default: ""
author:
  - The selfhost.fleet authors (@selfhost)
extends_documentation_fragment:
  - selfhost.fleet.attributes
attributes:
  check_mode:
    support: full
    details:
      - Validates as well. What is not on the host yet (a user, a validator, a unit) is a warning then.
  diff_mode:
    support: full
    details:
      - The content of secret files is masked.
  idempotent:
    support: full
"""

EXAMPLES = r"""
- name: Serve a site
  selfhost.fleet.config_set:
    name: edge
    files:
      - path: /etc/nginx/conf.d/example.conf
        template: site.conf.j2
        vars: {domain: example.com}
      - path: /etc/nginx/example.htpasswd
        secret_content: "{{ fleet_services.example.secrets.HTPASSWD }}\n"
        group: www-data
        mode: "0640"
    directories:
      - path: /etc/nginx/conf.d
        pattern: "*.conf"
    validate:
      - [nginx, -t]
    requires:
      - /etc/selfhost/tls/example.com/fullchain.pem
    units:
      - name: nginx.service
        on_change: reload
        restart_on: [/etc/nginx/modules-enabled/*]
    probe:
      kind: http
      url: http://127.0.0.1/
"""

RETURN = r"""
change:
  description: What a change that waits is confirmed by; empty where none waits.
  type: str
  returned: success
changed_files:
  description: Files and folders that were, or in check mode would be, written.
  type: list
  elements: str
  returned: always
removed_files:
  description: Files and folders that were, or in check mode would be, removed.
  type: list
  elements: str
  returned: always
validated:
  description:
    - Whether the validators accepted the candidate. False if they could not be asked, in check mode only. Null if there
      was nothing to validate.
  type: bool
  returned: success
units:
  description: Units that were acted on, with what was done in order.
  type: dict
  returned: success
  sample: {nginx.service: [reload]}
pending:
  description: Whether the change waits to be confirmed.
  type: bool
  returned: success
recovered:
  description: Sets whose interrupted run was undone first.
  type: list
  elements: str
  returned: always
timings_ms:
  description: Milliseconds by phase; C(render) is the controller's.
  type: dict
  returned: always
phase:
  description: Where it failed, one of input, recover, compare, validate, swap, apply, probe and confirm.
  type: str
  returned: failure
rolled_back:
  description: Whether the former state is back. False too where nothing had been touched yet.
  type: bool
  returned: failure
unit:
  description: The unit that failed.
  type: str
  returned: when a unit failed
"""

import os  # noqa: E402
from collections.abc import Mapping, Sequence  # noqa: E402
from dataclasses import asdict  # noqa: E402
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.probe import ProbeSpec, ProbeSpecError, probe  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.probe.holder import foreign_holder  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.ssh.login import LoginSandbox  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.ssh.way_in import way_in  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.engine import Outcome, Transaction  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import SetSpec, TransactionError  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.signals import Ended, watch_signals  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.validate import NamespaceSandbox, Sandbox  # noqa: E402

OWNERSHIP: dict[str, Any] = {
    "path": {"type": "str", "required": True},
    "owner": {"type": "str", "default": "root"},
    "group": {"type": "str", "default": "root"},
}
ARGUMENTS: dict[str, Any] = {
    "name": {"type": "str", "required": True},
    "files": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            **OWNERSHIP,
            "mode": {"type": "str", "default": "0644"},
            "content": {"type": "str"},
            "secret_content": {"type": "str", "no_log": True},
            "link": {"type": "str"},
            "secret": {"type": "bool", "default": False, "no_log": False},
            # The controller's: rendered and taken out before the module is called.
            "template": {"type": "str"},
            "vars": {"type": "dict", "default": {}},
        },
    },
    "directories": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            **OWNERSHIP,
            "mode": {"type": "str", "default": "0755"},
            "owned": {"type": "bool", "default": True},
            "pattern": {"type": "str"},
        },
    },
    "validate": {"type": "list", "elements": "list", "default": []},
    "requires": {"type": "list", "elements": "str", "default": []},
    "commands": {"type": "list", "elements": "list", "default": []},
    "units": {
        "type": "list",
        "elements": "dict",
        "default": [],
        "options": {
            "name": {"type": "str", "required": True},
            "on_change": {"type": "str", "choices": ["reload", "restart", "none"], "default": "restart"},
            "restart_on": {"type": "list", "elements": "str", "default": []},
            "files": {"type": "list", "elements": "str", "default": []},
            "enabled": {"type": "bool"},
            "state": {"type": "str", "choices": ["started", "stopped", "kept"], "default": "started"},
            "settle": {"type": "float", "default": 1.0},
        },
    },
    "probes": {"type": "list", "elements": "dict", "default": []},
    "probe": {"type": "dict"},
    "timeout": {"type": "float", "default": 60},
    "confirm_within": {"type": "float", "default": 0},
    "keep_login": {"type": "bool", "default": False},
    "digest": {"type": "str"},
    "state": {"type": "str", "choices": ["present", "confirmed", "taken_back"], "default": "present"},
    "change": {"type": "str", "default": ""},
}


def main() -> None:
    # Daemons have to read what is made here: it does not depend on the operator's umask.
    os.umask(0o022)
    # The invocation is not logged: it holds the content of every file.
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True, no_log=True)
    runner = SystemRunner(timeout=module.params["timeout"])

    def ask(options: Mapping[str, Any]) -> tuple[bool, str]:
        result = probe(ProbeSpec.from_mapping(options), runner)
        return result.ok, result.message

    def holder(options: Mapping[str, Any]) -> tuple[str, str] | None:
        wanted = ProbeSpec.from_mapping(options)
        host, port = wanted.address()
        group = foreign_holder(wanted.unit, (host, port), runner) if wanted.unit else None
        return (f"{host}:{port}", group) if group else None

    transaction: Transaction | None = None
    try:
        probes = [*module.params["probes"], *([module.params["probe"]] if module.params["probe"] else [])]
        for options in probes:
            ProbeSpec.from_mapping(options)
        spec = SetSpec.from_params({**module.params, "probes": probes})
        sandbox: Sandbox = NamespaceSandbox(runner)
        came = way_in(Path("/proc"), os.getpid()) if module.params["keep_login"] else None
        if came:
            sandbox = LoginSandbox(sandbox, came)
        transaction = Transaction(spec, runner=runner, sandbox=sandbox, prober=ask, holder=holder)
        watch_signals()
        outcome = _course(transaction, module.params, check=module.check_mode)
    except TransactionError as error:
        found = transaction.outcome if transaction else None
        facts: dict[str, Any] = {"phase": error.phase, "rolled_back": False}
        if found:
            facts |= {
                "changed_files": found.changed_files,
                "removed_files": found.removed_files,
                "timings_ms": found.timings_ms,
            }
            _warn(module, found.warnings)
        module.fail_json(msg=str(error), **(facts | error.facts))
    except ProbeSpecError as error:
        module.fail_json(msg=f"probes: {error}", phase="input", rolled_back=False)
    except Ended as error:
        module.fail_json(msg=f"{error}; what was begun has been undone", phase="apply", rolled_back=True)
    result = asdict(outcome)
    _warn(module, result.pop("warnings"))
    module.exit_json(**result)


def _course(transaction: Transaction, params: Mapping[str, Any], *, check: bool) -> Outcome:
    if params["state"] == "confirmed":
        return transaction.confirm(params["change"])
    if params["state"] == "taken_back":
        return transaction.take_back(params["change"])
    return transaction.run(check=check)


def _warn(module: AnsibleModule, warnings: Sequence[str]) -> None:
    for warning in warnings:
        module.warn(warning)


if __name__ == "__main__":
    main()
