#!/usr/bin/python
# GNU General Public License v3.0+ (see LICENSE)
"""Packages of a host, in one transaction."""

from __future__ import annotations

DOCUMENTATION = r"""
module: packages
short_description: Install every package of a host in one transaction
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Asks dpkg what is missing. Where nothing is, apt is not even started.
  - Otherwise the package lists are refreshed and all that is missing is installed in one transaction, without recommended packages. Configuration files
    that exist are kept. Another apt or dpkg is waited for.
  - Works in check mode on a new server whose package lists are empty, where M(ansible.builtin.apt) knows no package.
options:
  names:
    description: Names of packages.
    type: list
    elements: str
    required: true
  versions:
    description:
      - Upstream versions by package, as C(2.11.0), in any revision of Debian's. A package of O(names) in another version counts as missing.
      - Which version apt takes is apt's own matter, and is told to it in C(/etc/apt/preferences.d).
    type: dict
    default: {}
  lock_timeout:
    description: Seconds to wait for another apt or dpkg.
    type: int
    default: 300
attributes:
  check_mode:
    description: Says what would be installed.
    support: full
  diff_mode:
    description: Lists the packages before and after.
    support: full
"""

EXAMPLES = r"""
- name: Install what the roles need
  selfhost.fleet.packages:
    names: [nginx, nftables]
"""

RETURN = r"""
installed:
  description: Packages that were missing.
  returned: success
  type: list
  elements: str
"""

import os  # noqa: E402

from ansible.module_utils.basic import AnsibleModule  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.packages import Packages, PackagesError  # noqa: E402
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import SETTLED_FACT  # noqa: E402


def main() -> None:
    # Daemons have to read what is made here: it does not depend on the operator's umask.
    os.umask(0o022)
    module = AnsibleModule(
        argument_spec={
            "names": {"type": "list", "elements": "str", "required": True},
            "versions": {"type": "dict", "default": {}},
            "lock_timeout": {"type": "int", "default": 300},
        },
        supports_check_mode=True,
    )
    packages = Packages(SystemRunner(), module.params["lock_timeout"])
    missing = packages.missing(module.params["names"], module.params["versions"])
    try:
        if missing and not module.check_mode:
            packages.install(missing, module.params["versions"])
    except PackagesError as error:
        module.fail_json(msg=str(error))
    diff = {
        "before": "",
        "after": "".join(f"{name}\n" for name in missing),
        "before_header": "packages",
        "after_header": "packages",
    }
    # What was seen of configuration was seen before packages brought theirs.
    seen = {"ansible_facts": {SETTLED_FACT: {}}} if missing else {}
    module.exit_json(changed=bool(missing), installed=missing, diff=diff, **seen)


if __name__ == "__main__":
    main()
