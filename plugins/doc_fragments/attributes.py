# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
from __future__ import annotations


class ModuleDocFragment:
    """What every module of the collection says about check mode, diff mode and repeated runs."""

    DOCUMENTATION = r"""
options: {}
attributes:
  check_mode:
    description: Can run in C(check_mode) and say what would change, without changing it.
  diff_mode:
    description: Says in diff mode what changed, or would change in C(check_mode).
  idempotent:
    description: Run a second time with the same options, and with nothing else changed on the host, it changes nothing.
"""
