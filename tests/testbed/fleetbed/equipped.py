"""Hosts on which the role `baseline` has been: for tests that are about something else than a first run.

Packages are half the work of a first run of site.yml. An image of a host that has them saves each such test 23 of 44 seconds of a processor.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

from .engine import docker, say
from .host import Host
from .image import DEFAULT_OS, image
from .paths import REPOSITORY, locked
from .site import Site

SOURCES = ("plugins", "roles/baseline", "services")
NAME = f"fleet-testbed:{DEFAULT_OS}-equipped-"
# What each host has of its own, as in the image that it was made from.
FORGET = "rm -rf /etc/ssh/ssh_host_* /var/log/journal/* /var/lib/testbed; : > /etc/machine-id"


def equipped() -> str:
    """The tag of the image of this state of the sources; made when it is not there, and former ones go then."""
    tag = NAME + _key()
    with locked("equipped"):
        if docker("image", "inspect", tag, check=False).returncode != 0:
            _make(tag)
    return tag


def _key() -> str:
    files = sorted(path for name in SOURCES for path in (REPOSITORY / name).rglob("*") if path.suffix != ".pyc")
    seen = [(str(path), path.stat().st_mtime_ns, path.stat().st_size) for path in files if path.is_file()]
    return hashlib.sha256(repr((image(DEFAULT_OS), seen)).encode()).hexdigest()[:12]


def _make(tag: str) -> None:
    say(f"making the image {tag}")
    for former in docker(
        "image", "ls", "--format={{.Repository}}:{{.Tag}}", f"--filter=reference={NAME}*"
    ).stdout.split():
        docker("rmi", former, check=False)  # one that a host of another run has stays
    host = Host.create(f"equipped-{os.getpid()}")
    try:
        with tempfile.TemporaryDirectory() as folder:
            Site.plan(host, host, Path(folder)).run(playbook=Site.only("baseline"))
        host.root(FORGET)
        docker("stop", host.container)
        docker("commit", host.container, tag)
    finally:
        host.remove()
