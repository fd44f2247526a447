#!/usr/bin/python
# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's half of selfhost.fleet.firewall."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Lets in what the plan lists, and nothing else
version_added: 0.1.0
description:
  - Holds one nftables table, C(inet selfhost_fleet), that drops what comes in and is not listed. No other is touched.
  - The table is replaced as a whole, in one transaction. The live table is compared with the wanted one on every run,
    so that a rule removed or added by hand is put right and reported as a change.
  - A new ruleset is taken back by itself after O(rollback_after) seconds unless the controller reaches the host over a
    fresh connection before that. Until then it is not written to O(path), so a reboot brings the former one too.
  - Fails before anything is changed when the rules would cut the SSH connection that the module is run over.
options:
  inbound:
    description: What is let in, over IPv4 and IPv6.
    type: list
    elements: dict
    required: true
    suboptions:
      port:
        description: The port, 1 to 65535.
        type: int
        required: true
      protocol:
        description: The transport protocol.
        type: str
        choices: [tcp, udp]
        default: tcp
      sources:
        description: Addresses and networks of either IP version, or V(any).
        type: list
        elements: str
        required: true
      why:
        description: The reason, kept as the rule's comment.
        type: str
        default: ""
  path:
    description: The file that is loaded at boot.
    type: path
    default: /etc/selfhost/firewall.nft
  rollback_after:
    description: Seconds until an unconfirmed ruleset is taken back. More than a connection's time-out.
    type: int
    default: 30
  state:
    description: V(confirmed) keeps a ruleset that was loaded a moment ago; used by the action plugin itself.
    type: str
    choices: [present, confirmed]
    default: present
attributes:
  check_mode:
    support: full
    description: >-
      Also without nftables on the host. Where it is there, the ruleset is validated in a network namespace of its own.
  diff_mode:
    support: full
    description: Shows the live table as nft lists it, before and after.
author:
  - The selfhost.fleet authors (@selfhost)
"""

EXAMPLES = r"""
- name: Let in SSH and HTTPS only
  selfhost.fleet.firewall:
    inbound:
      - {port: 22, protocol: tcp, sources: [192.0.2.0/24, "2001:db8::/32"], why: "administration"}
      - {port: 443, protocol: tcp, sources: [any], why: "edge: HTTPS"}
"""

RETURN = r"""
drift:
  description: Whether the live table had been changed by somebody else.
  type: bool
  returned: always
pending:
  description: Whether the ruleset is loaded and waits for its confirmation.
  type: bool
  returned: always
"""

import os  # noqa: E402
import subprocess  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils import nftables  # noqa: E402

ARGUMENTS = {
    "inbound": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "port": {"type": "int", "required": True},
            "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
            "sources": {"type": "list", "elements": "str", "required": True},
            "why": {"type": "str", "default": ""},
        },
    },
    "path": {"type": "path", "default": "/etc/selfhost/firewall.nft"},
    "rollback_after": {"type": "int", "default": 30},
    "state": {"type": "str", "choices": ["present", "confirmed"], "default": "present"},
}


def converge(module: AnsibleModule, firewall: nftables.Firewall) -> dict[str, object]:
    """Make the table what the options say, and tell what was done."""
    rules = nftables.parse(module.params["inbound"])
    nftables.refuse_cut(rules, nftables.ssh_connection(Path("/proc"), os.getpid()))
    outcome = firewall.converge(
        nftables.render(rules), rollback_after=module.params["rollback_after"], dry_run=module.check_mode
    )
    result: dict[str, object] = {"changed": outcome.changed, "pending": outcome.pending, "drift": outcome.drift}
    if module._diff and outcome.changed:
        header = f"table inet {nftables.TABLE}"
        result["diff"] = {
            "before_header": header,
            "after_header": header,
            "before": outcome.before,
            "after": outcome.after,
        }
    return result


def main() -> None:
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        code, out, err = module.run_command(command)
        return subprocess.CompletedProcess(command, code, out, err)

    firewall = nftables.Firewall(Path(module.params["path"]), run=run, kernel=nftables.Kernel(run))
    try:
        if module.params["state"] == "confirmed":
            firewall.confirm()
            module.exit_json(changed=True, pending=False, drift=False)
        module.exit_json(**converge(module, firewall))
    except nftables.FirewallError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
