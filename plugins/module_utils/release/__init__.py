# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of a component on a host, by their kind: `install` for programs and archives, `packaged` for packages of Debian's.

Each kind has what it wants as a class over `Place`, and a function `ensure` that ends in an `Outcome`. A further kind goes here, with its half of
the plan in `plan/releases.py`.
"""

from __future__ import annotations

from .install import ensure
from .model import ReleaseError, Wanted
from .outcome import Outcome
from .packaged import Packaged
from .packaged import ensure as ensure_packaged

__all__ = ["Outcome", "Packaged", "ReleaseError", "Wanted", "ensure", "ensure_packaged"]
