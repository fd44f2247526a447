"""Host images: a minimal Debian, as a fresh server has it, made from Debian's own archive."""

from __future__ import annotations

import hashlib
import json
import time

from .engine import docker, ensure_engine, ensure_program, run, say
from .paths import STATE, TESTBED, locked

INIT = TESTBED / "hosts" / "init"
SUITES = {"debian-12": "bookworm", "debian-13": "trixie"}
DEFAULT_OS = "debian-13"
PACKAGES = (
    "systemd",
    "systemd-sysv",
    "dbus",
    "python3",
    "python3-apt",
    "ca-certificates",
    "iproute2",
    "procps",
    "sudo",
    "openssh-server",
)
USER = "admin"
UNSAFE_IO = "/etc/dpkg/dpkg.cfg.d/testbed"
# Run in the new system's root. Keys and identity are each host's own, so they are made at its first boot.
CUSTOMIZE = (
    "rm -f /etc/ssh/ssh_host_*",
    ": > /etc/machine-id",
    f"useradd --create-home --shell /bin/bash {USER}",
    f"install -d -m 0700 -o {USER} -g {USER} /home/{USER}/.ssh",
    f"echo '{USER} ALL=(ALL) NOPASSWD: ALL' > /etc/sudoers.d/{USER}",
    f"chmod 0440 /etc/sudoers.d/{USER}",
    "chmod 0755 /init",
    # A test host need not outlive a power failure in the middle of dpkg: a third less time for packages.
    f"echo force-unsafe-io > {UNSAFE_IO}",
)
# systemd takes this signal for a proper shutdown; `container` tells it where it is.
CHANGES = ('CMD ["/init"]', "ENV container=docker")


def image(os: str) -> str:
    """The tag of the image of this release, e.g. fleet-testbed:debian-13-0123456789ab; built when it is not there."""
    ensure_engine()
    tag = f"fleet-testbed:{os}-{_recipe(os)}"
    with locked(f"image-{os}"):
        if docker("image", "inspect", tag, check=False).returncode != 0:
            _build(SUITES[os], tag)
    return tag


def _recipe(os: str) -> str:
    recipe = json.dumps([SUITES[os], PACKAGES, CUSTOMIZE, CHANGES, INIT.read_text()])
    return hashlib.sha256(recipe.encode()).hexdigest()[:12]


def _build(suite: str, tag: str) -> None:
    ensure_program("mmdebstrap", "mmdebstrap")
    say(f"building the image {tag}")
    begin = time.monotonic()
    tarball = STATE / f"{suite}.tar"
    hooks = [f"--customize-hook=upload {INIT} /init"]
    hooks += [f'--customize-hook=chroot "$1" sh -c "{command}"' for command in CUSTOMIZE]
    try:
        run(["mmdebstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", *hooks, suite, str(tarball)])
        docker("import", *(f"--change={change}" for change in CHANGES), str(tarball), tag)
    finally:
        tarball.unlink(missing_ok=True)
    say(f"built it in {time.monotonic() - begin:.0f} s")
