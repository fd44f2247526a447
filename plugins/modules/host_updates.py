#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""Package updates of a host."""

from __future__ import annotations

DOCUMENTATION = r"""
module: host_updates
short_description: Bring the packages of a host up to date, and restart what still runs the former files
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Upgrades every package that can be upgraded without removing another one, in one transaction. Configuration files that exist are kept. Another apt or
    dpkg is waited for.
  - Then restarts each unit that still uses a program or library that is no longer on the disk, and none but those. Nothing is restarted that would end
    the sessions of people, the network, or what other tools run in containers; RV(left) names it with the reason.
  - Says whether the host has to boot again, and does not do it. C(patch.yml) does.
options:
  state:
    description:
      - V(surveyed) renews the package lists and says what V(applied) would do.
    type: str
    choices: [surveyed, applied]
    default: applied
  scope:
    description:
      - V(security) takes only packages whose newest version is in Debian's archive of security updates, with what they need.
    type: str
    choices: [all, security]
    default: all
  lock_timeout:
    description: Seconds to wait for another apt or dpkg.
    type: int
    default: 300
attributes:
  check_mode:
    description: Says what would be upgraded and restarted by lists that are as new as the mirror's; the host's own lists stay as they are.
      Which units would restart follows from the files that the packages have.
    support: full
  diff_mode:
    description: Lists the packages with their versions before and after.
    support: full
"""

EXAMPLES = r"""
- name: Bring the host up to date
  selfhost.fleet.host_updates:
    scope: security
"""

RETURN = r"""
upgrades:
  description: Packages that were, or would be, upgraded or brought along.
  returned: success
  type: list
  elements: dict
  sample:
    - {name: libssl3t64, installed: 3.5.1-1, candidate: 3.5.1-1+deb13u1, security: true}
kept_back:
  description: Packages that apt does not upgrade without removing others, or that are held.
  returned: success
  type: list
  elements: str
restarts:
  description: Units that were, or would be, restarted, with the files that they used and that were gone.
  returned: success
  type: dict
left:
  description: Units that use such files too and are left, with the reason.
  returned: success
  type: dict
manager:
  description: Whether systemd itself was, or would be, started anew, which nobody notices.
  returned: success
  type: bool
reboot:
  description: Why the host has to boot again; empty where it has not.
  returned: success
  type: list
  elements: str
database_restarted:
  description: Whether PostgreSQL runs anew, by a restart of this module's or of its package's.
  returned: success
  type: bool
work:
  description: Whether there is anything to do on this host, a boot included.
  returned: success
  type: bool
"""

import os  # noqa: E402
from typing import Any  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.packages import PackagesError  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.updates.host import (  # noqa: E402
    HostUpdates,
    Outcome,
    UpdatesError,
)
from ansible_collections.selfhost.fleet.plugins.module_utils.updates.upgrade import Upgrader  # noqa: E402

ARGUMENTS: dict[str, Any] = {
    "state": {"type": "str", "choices": ["surveyed", "applied"], "default": "applied"},
    "scope": {"type": "str", "choices": ["all", "security"], "default": "all"},
    "lock_timeout": {"type": "int", "default": 300},
}


def main() -> None:
    # Daemons have to read what packages make: it does not depend on the operator's umask.
    os.umask(0o022)
    module = AnsibleModule(argument_spec=ARGUMENTS, supports_check_mode=True)
    runner = SystemRunner()
    updates = HostUpdates(
        runner,
        Upgrader(runner, module.params["lock_timeout"]),
        kernel=os.uname().release,
        security=module.params["scope"] == "security",
    )
    surveys = module.params["state"] == "surveyed"
    try:
        outcome = updates.survey(touch=not module.check_mode) if surveys or module.check_mode else updates.apply()
    except UpdatesError as error:
        module.fail_json(msg=str(error), **_result(error.done))
    except PackagesError as error:
        module.fail_json(msg=str(error))
    result = _result(outcome)
    module.exit_json(**{**result, "changed": False} if surveys and not module.check_mode else result)


def _result(outcome: Outcome) -> dict[str, Any]:
    lines = {
        side: "".join(_line(upgrade.name, getattr(upgrade, side)) for upgrade in outcome.upgrades) for side in SIDES
    }
    diff = {
        "before": lines["installed"],
        "after": lines["candidate"],
        "before_header": "packages",
        "after_header": "packages",
    }
    return {
        **outcome.as_result(),
        "changed": outcome.changed,
        "work": outcome.changed or bool(outcome.reboot),
        "diff": diff,
    }


SIDES = ("installed", "candidate")


def _line(name: str, version: str) -> str:
    return f"{name} {version}\n" if version else ""


if __name__ == "__main__":
    main()
