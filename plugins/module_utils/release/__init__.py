# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Releases of a component on a host: unpacked, checked, never changed again."""

from __future__ import annotations

from .install import Outcome, ensure
from .model import ReleaseError, Wanted

__all__ = ["Outcome", "ReleaseError", "Wanted", "ensure"]
