#!/usr/bin/python
# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""The host's half of selfhost.fleet.firewall."""

from __future__ import annotations

DOCUMENTATION = r"""
module: firewall
short_description: Lets in what the plan lists, and nothing else; lets out what it lists, where that is wanted
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
      rate:
        description:
          - How many new connections one source may open; more are dropped, and its client tries again by itself. A source is an
            IPv4 address or an IPv6 /64. Connections that are open already do not count.
        type: dict
        suboptions:
          per_minute:
            description: Connections per minute that it may go on with.
            type: int
            required: true
          burst:
            description: Connections that it may open at once before that.
            type: int
            required: true
      why:
        description: The reason, kept as the rule's comment.
        type: str
        default: ""
  outbound:
    description:
      - What programs of the host may open connections to; everything else is refused. Without it everything may go out.
      - Answers, loopback, DHCP, neighbour discovery and ICMP are always let out. Forwarded packets (Docker's) are not concerned.
    type: list
    elements: dict
    suboptions:
      port:
        description: The port; required unless O(outbound[].protocol=any), and not possible with that.
        type: int
      protocol:
        description: The transport protocol.
        type: str
        choices: [tcp, udp, any]
        default: tcp
      destinations:
        description: Addresses and networks of either IP version, or V(any).
        type: list
        elements: str
        required: true
      users:
        description: System users whose programs may; all where none is named. They have to be there already.
        type: list
        elements: str
        default: []
      why:
        description: The reason, kept as the rule's comment.
        type: str
        default: ""
  trusted:
    description: Addresses and networks for which no O(inbound[].rate) counts.
    type: list
    elements: str
    default: []
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
  change:
    description: Which of the loaded rulesets O(state=confirmed) keeps; used by the action plugin itself.
    type: str
    default: ""
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
change:
  description: What a ruleset that waits is confirmed by; empty where none waits.
  type: str
  returned: always
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
import pwd  # noqa: E402
import subprocess  # noqa: E402
from pathlib import Path  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.nftables.connection import (  # noqa: E402
    refuse_cut,
    ssh_connection,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.nftables.firewall import Firewall  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.nftables.kernel import Kernel  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.nftables.render import render  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.nftables.rules import (  # noqa: E402
    TABLE,
    FirewallError,
    parse,
)

ARGUMENTS = {
    "inbound": {
        "type": "list",
        "elements": "dict",
        "required": True,
        "options": {
            "port": {"type": "int", "required": True},
            "protocol": {"type": "str", "choices": ["tcp", "udp"], "default": "tcp"},
            "sources": {"type": "list", "elements": "str", "required": True},
            "rate": {
                "type": "dict",
                "options": {
                    "per_minute": {"type": "int", "required": True},
                    "burst": {"type": "int", "required": True},
                },
            },
            "why": {"type": "str", "default": ""},
        },
    },
    "outbound": {
        "type": "list",
        "elements": "dict",
        "options": {
            "port": {"type": "int"},
            "protocol": {"type": "str", "choices": ["tcp", "udp", "any"], "default": "tcp"},
            "destinations": {"type": "list", "elements": "str", "required": True},
            "users": {"type": "list", "elements": "str", "default": []},
            "why": {"type": "str", "default": ""},
        },
    },
    "trusted": {"type": "list", "elements": "str", "default": []},
    "path": {"type": "path", "default": "/etc/selfhost/firewall.nft"},
    "rollback_after": {"type": "int", "default": 30},
    "state": {"type": "str", "choices": ["present", "confirmed"], "default": "present"},
    "change": {"type": "str", "default": ""},
}


def missing(users: set[str]) -> set[str]:
    """The users that this host does not have."""
    return users - {entry.pw_name for entry in pwd.getpwall()}


def converge(module: AnsibleModule, firewall: Firewall) -> dict[str, object]:
    """Make the table what the options say, and tell what was done."""
    ruleset = parse(module.params["inbound"], module.params["outbound"], module.params["trusted"])
    refuse_cut(ruleset.inbound, ssh_connection(Path("/proc"), os.getpid()))
    outcome = firewall.converge(
        render(ruleset),
        rollback_after=module.params["rollback_after"],
        dry_run=module.check_mode,
        missing_users=missing(ruleset.users),
    )
    result: dict[str, object] = {
        "changed": outcome.changed,
        "pending": outcome.pending,
        "drift": outcome.drift,
        "change": outcome.change,
    }
    if module._diff and outcome.changed:
        header = f"table inet {TABLE}"
        result["diff"] = {
            "before_header": header,
            "after_header": header,
            "before": outcome.before,
            "after": outcome.after,
        }
    return result


def main() -> None:
    # Daemons have to read what is made here: it does not depend on the operator's umask.
    os.umask(0o022)
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)

    def run(command: list[str]) -> subprocess.CompletedProcess[str]:
        code, out, err = module.run_command(command)
        return subprocess.CompletedProcess(command, code, out, err)

    firewall = Firewall(Path(module.params["path"]), run=run, kernel=Kernel(run))
    try:
        if module.params["state"] == "confirmed":
            firewall.confirm(module.params["change"])
            module.exit_json(changed=True, pending=False, drift=False, change="")
        module.exit_json(**converge(module, firewall))
    except FirewallError as error:
        module.fail_json(msg=str(error))


if __name__ == "__main__":
    main()
