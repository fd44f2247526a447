#!/usr/bin/python
# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
# ruff: noqa: E402  (Ansible wants the documentation before the imports)

from __future__ import annotations

DOCUMENTATION = r"""
module: release
short_description: Puts one version of a program on a host, checked, beside the former ones
version_added: 0.1.0
description:
  - A release lies in C(<root>/releases/<version>/). It is made under a hidden name, checked, and gets its name by one
    rename; it is never changed again. Its manifest C(.release.json) says what it was made from.
  - The checksum is compared before anything is unpacked. With O(version_command) the program is run on the host, by the
    user C(nobody) in an empty environment, before the release is accepted.
  - A file on the controller is only transferred to hosts that do not have the release.
  - Archives (tar, also with gzip, bzip2 or xz, and zip) are unpacked by this module itself. Paths and links that leave
    the release's folder, devices and pipes are refused.
  - Old releases are removed, but none that a process runs from or that a link in O(root) points at.
  - A failure leaves nothing behind.
  - With O(package) the release is a package of Debian's that is installed already. Its folder has a link to the program and the manifest, its name is
    dpkg's version without an epoch, and it is the only one. Every link of O(links) to O(version) points at it.
options:
  root:
    description: The component's folder, absolute, as C(/opt/fluxbase/server).
    type: path
    required: true
  version:
    description:
      - The release's name.
      - A release of this name that was made from another file (O(checksum)) is an error, as releases never change.
      - Of a package, the upstream version that dpkg must have, in whatever revision of Debian's; V(distribution) for any.
    type: str
    required: true
  source:
    description:
      - A file on the controller (looked for as C(copy) does), or an C(https://) address that the host itself fetches.
      - A file on the controller needs to be there only as long as there are hosts without the release.
      - Required without O(package).
    type: str
  source_on_host:
    description: Whether O(source) is a file on the host.
    type: bool
    default: false
  checksum:
    description: C(sha256:) and the 64 hexadecimal digits of O(source). Required with it.
    type: str
  package:
    description: A package of Debian's that is installed on the host, instead of O(source).
    type: str
  program:
    description: The path of the package's program. Required with O(package).
    type: path
  member:
    description:
      - What to take of an archive. A file becomes O(executable); of a folder the content is taken, without the folder.
      - Without it the whole archive is unpacked. A source that is no archive is itself the executable.
    type: str
  executable:
    description: The program's name in the release; a path where a whole archive is unpacked. Of a package, the link's name.
    type: str
    required: true
  units:
    description: Units of the package that are masked, and are not to start either on the day on which they are so no longer.
    type: list
    elements: str
    default: []
  version_command:
    description:
      - The command, as a list, that prints the program's version and ends with status 0.
      - C({executable}) stands for the program's full path, C({version}) for O(version). Without it nothing is run.
    type: list
    elements: str
    default: []
  version_pattern:
    description:
      - A text or a regular expression (Python) that the command must print.
      - C({version}) stands for O(version), which must stand alone, so that C(1.2) is not found in C(1.2.3).
    type: str
    default: "{version}"
  version_timeout:
    description: Seconds for O(version_command).
    type: float
    default: 30
  keep:
    description: How many releases stay, the newest by time of installation. Those in use stay beside these.
    type: int
    default: 3
  links:
    description:
      - Links in O(root) and the installed version that each points at, moved by one rename. Null removes a link.
      - Links that are not named here stay as they are.
    type: dict
    default: {}
  mode:
    description: The executable's mode. Everything belongs to root; folders have 0755.
    type: str
    default: "0755"
  delivered:
    description: Where the controller's file lies on the host; used by the action plugin itself.
    type: path
extends_documentation_fragment: [selfhost.fleet.attributes]
attributes:
  check_mode:
    support: full
    details: Nothing is transferred, fetched or run; a file on the controller or on the host is checked.
  diff_mode:
    support: full
    details: Shows releases and links.
  idempotent:
    support: full
author:
  - The selfhost.fleet authors (@selfhost)
"""

EXAMPLES = r"""
- name: A program from the controller, for the blue slot
  selfhost.fleet.release:
    root: /opt/fluxbase/server
    version: 2026.3.6
    source: fluxbase-server
    checksum: "sha256:7d865e959b2466918c9863afca942d0fb89d7c9ac0c99bafc3749504ded97730"
    executable: fluxbase-server
    version_command: ["{executable}", "-version"]
    version_pattern: "Version: {version}"
    links: {blue: 2026.3.6}

- name: A program in an archive that the host fetches
  selfhost.fleet.release:
    root: /opt/fluxbase/deno
    version: 2.9.0
    source: https://example.com/deno-x86_64-unknown-linux-gnu.zip
    checksum: "sha256:b5bb9d8014a0f9b1d61e21e796d78dccdf1352f23cd32812f4850b878ae4944c"
    member: deno
    executable: deno
    version_command: ["{executable}", "--version"]
    version_pattern: "deno {version}"

- name: A program that Debian has, in whichever version
  selfhost.fleet.release:
    root: /opt/ntfy/server
    version: distribution
    package: ntfy
    program: /usr/bin/ntfy
    executable: ntfy
    links: {blue: distribution}
"""

RETURN = r"""
installed:
  description: Whether the release was (check mode, would be) made.
  returned: success
  type: bool
needed:
  description: Whether the host needs the controller's file; true only in check mode.
  returned: success
  type: bool
version:
  description: The release; of a package, its version with Debian's revision.
  returned: success
  type: str
directory:
  description: The release's folder.
  returned: success
  type: str
  sample: /opt/fluxbase/server/releases/2026.3.6
executable:
  description: The program's full path.
  returned: success
  type: str
releases:
  description: The releases below O(root) afterwards.
  returned: success
  type: list
  elements: str
links:
  description: The links afterwards, and the version that each points at.
  returned: success
  type: dict
removed:
  description: The releases that were removed.
  returned: success
  type: list
  elements: str
program_says:
  description: What O(version_command) printed; null where it was not run.
  returned: success
  type: str
"""

import os  # noqa: E402
from pathlib import Path
from typing import Any

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.selfhost.fleet.plugins.module_utils.commands import SystemRunner
from ansible_collections.selfhost.fleet.plugins.module_utils.release import (
    Outcome,
    Packaged,
    ReleaseError,
    Wanted,
    ensure,
    ensure_packaged,
)

ARGUMENTS: dict[str, Any] = {
    "root": {"type": "path", "required": True},
    "version": {"type": "str", "required": True},
    "source": {"type": "str"},
    "source_on_host": {"type": "bool", "default": False},
    "checksum": {"type": "str"},
    "package": {"type": "str"},
    "program": {"type": "path"},
    "units": {"type": "list", "elements": "str", "default": []},
    "member": {"type": "str"},
    "executable": {"type": "str", "required": True},
    "version_command": {"type": "list", "elements": "str", "default": []},
    "version_pattern": {"type": "str", "default": "{version}"},
    "version_timeout": {"type": "float", "default": 30.0},
    "keep": {"type": "int", "default": 3},
    "links": {"type": "dict", "default": {}},
    "mode": {"type": "str", "default": "0755"},
    "delivered": {"type": "path"},
}


def carry_out(module: AnsibleModule) -> Outcome:
    if module.params["package"]:
        wanted = Packaged.from_mapping(module.params)
        return ensure_packaged(wanted, runner=SystemRunner(), dry_run=module.check_mode)
    delivered = module.params["delivered"]
    return ensure(
        Wanted.from_mapping(module.params),
        delivered=Path(delivered) if delivered else None,
        dry_run=module.check_mode,
    )


def main() -> None:
    # Daemons have to read what is made here: it does not depend on the operator's umask.
    os.umask(0o022)
    module = AnsibleModule(
        argument_spec=ARGUMENTS,
        supports_check_mode=True,
        required_one_of=[("source", "package")],
        mutually_exclusive=[("source", "package")],
        required_by={"source": ("checksum",), "package": ("program",)},
    )
    try:
        outcome = carry_out(module)
    except ReleaseError as error:
        module.fail_json(msg=str(error))
    for warning in outcome.warnings():
        module.warn(warning)
    module.exit_json(diff=outcome.diff(), **outcome.as_result())


if __name__ == "__main__":
    main()
