# GNU General Public License v3.0+ (see LICENSE)
"""Whether a host has to boot again before what was installed is in use."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

PLACE = "run/reboot-required"


def reasons(root: Path, running: str) -> list[str]:
    """Why; none where it has not to. `running` is the kernel's release, as `uname -r` says it."""
    found = []
    if (root / PLACE).exists():
        packages = root / f"{PLACE}.pkgs"
        names = sorted(set(packages.read_text().split())) if packages.exists() else []
        found.append(f"/{PLACE} asks for it" + (f" ({', '.join(names)})" if names else ""))
    newest = newer_kernel([path.name.removeprefix("vmlinuz-") for path in (root / "boot").glob("vmlinuz-*")], running)
    if newest:
        found.append(f"the kernel {newest} is installed, and {running} runs")
    return found


def foretold(packages: Iterable[str]) -> list[str]:
    """Why it will have to, by the packages that are to be upgraded."""
    kernels = sorted(name for name in packages if name.startswith("linux-image-"))
    return [f"{', '.join(kernels)} is to be installed"] if kernels else []


def newer_kernel(installed: list[str], running: str) -> str | None:
    """The newest kernel of the running one's flavour, where it is newer. A container has none of its own."""
    flavour = _flavour(running)
    newest = max((release for release in installed if _flavour(release) == flavour), key=_order, default=running)
    return newest if _order(newest) > _order(running) else None


def _order(release: str) -> tuple[int, ...]:
    """6.12.48+deb13-amd64 as 6, 12, 48; Debian 12's 6.1.0-40-amd64 as 6, 1, 0, 40."""
    return tuple(int(number) for number in re.findall(r"\d+", re.split(r"-(?=[a-z])", release)[0]))


def _flavour(release: str) -> str:
    """`amd64` or `cloud-amd64`, whatever the version before it."""
    parts = re.split(r"-(?=[a-z])", release, maxsplit=1)
    return parts[1] if len(parts) == 2 else ""
