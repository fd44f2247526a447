"""A stock Debian 12 as the controller: its own Python 3.11 and OpenSSH, the built collection, and a Debian 12 host that it makes whole."""

from __future__ import annotations

import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fleetbed import keys
from fleetbed.host import Host
from fleetbed.image import USER
from fleetbed.paths import REPOSITORY
from fleetbed.service import DOMAIN, VERSIONS, fluxbase, standin

OLDEST = "3.11"
# Ansible wants a UTF-8 locale; a minimal Debian has C.UTF-8 and sets none.
ANSIBLE = "cd /srv/fleet && LC_ALL=C.UTF-8 PYTHONPATH=/srv/python python3 -m ansible"
HEALTH = """
import json, ssl, sys, urllib.request
trust = ssl.create_default_context(cafile="/srv/fleet/ca/ca.pem")
print(json.load(urllib.request.urlopen(f"https://{sys.argv[1]}/health", context=trust, timeout=20))["status"])
"""


def pinned() -> list[str]:
    """What requirements.txt has for this Python. pip reads its conditions as of the Python that it runs with, which may be another one."""
    lines = (REPOSITORY / "requirements.txt").read_text().splitlines()
    wanted = [line.partition(";") for line in lines if line and not line.startswith("#")]
    return [name.strip() for name, _semicolon, condition in wanted if not condition.strip() or "<" in condition]


def archive(folder: Path) -> bytes:
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w") as file:
        file.add(folder, arcname=".")
    return packed.getvalue()


@pytest.fixture(scope="module")
def controller(new_host: Callable[..., Host], tmp_path_factory: pytest.TempPathFactory) -> Host:
    """With what requirements.txt names, and the collection as ansible-galaxy installs it from its archive."""
    made = new_host("controller", os="debian-12")
    folder = tmp_path_factory.mktemp("controller")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder / "python")]
    binary = ["--only-binary=:all:", "--implementation=cp", f"--python-version={OLDEST}"]
    subprocess.run([*pip, *binary, *pinned()], check=True, timeout=600)
    galaxy = [str(Path(sys.executable).parent / "ansible-galaxy"), "collection", "build", "--output-path", str(folder)]
    subprocess.run([*galaxy, str(REPOSITORY)], check=True, capture_output=True, timeout=300)
    made.root(f"install -d -o {USER} /srv/fleet /srv/python")
    made.root("tar -x -C /srv/python", stdin=archive(folder / "python"))
    (built,) = folder.glob("selfhost-fleet-*.tar.gz")
    made.put("/srv/fleet.tar.gz", built.read_bytes())
    made.put("/srv/fluxbase", standin(VERSIONS["debian-12"]).read_bytes())
    made.put(f"/home/{USER}/.ssh/id_ed25519", keys.PRIVATE_KEY.read_text(), mode="0600", owner=f"{USER}:{USER}")
    made.ssh(f"{ANSIBLE} galaxy collection install --no-cache /srv/fleet.tar.gz", timeout=300)
    return made


@pytest.fixture(scope="module")
def host(controller: Host, new_host: Callable[..., Host]) -> Host:
    """A bare Debian 12, in the inventory of the controller, which knows its key and its name."""
    made = new_host("controlled", os="debian-12")
    known = keys.known_hosts(made.name).read_text()
    controller.put(f"/home/{USER}/.ssh/known_hosts", known, mode="0600", owner=f"{USER}:{USER}")
    controller.root(f"echo '{made.address} {DOMAIN}' >>/etc/hosts")
    entry = fluxbase(VERSIONS[made.os], settings={})
    entry["release"]["source"] = "/srv/fluxbase"
    words: dict[str, Any] = {"ansible_user": USER, "ansible_become": True, "fleet_os": made.os}
    words |= {"fleet_local_ca_dir": "/srv/fleet/ca", "fleet_services": {"fluxbase": entry}}
    groups = {name: {"hosts": {"web1": None}} for name in ("edge", "postgres", "fluxbase")}
    inventory = {"all": {"vars": words, "hosts": {"web1": {"ansible_host": made.address}}, "children": groups}}
    controller.put("/srv/fleet/inventory.yml", json.dumps(inventory), owner=f"{USER}:{USER}")
    return made


def play(controller: Host, playbook: str, *, options: str = "") -> str:
    command = f"{ANSIBLE} playbook --inventory inventory.yml {options} selfhost.fleet.{playbook}"
    done = controller.ssh(command, check=False, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "DEPRECATION" not in done.stdout + done.stderr
    return done.stdout


def test_it_is_what_debian_12_has(controller: Host) -> None:
    said = controller.ssh(f"{ANSIBLE} playbook --version").stdout
    assert f"python version = {OLDEST}." in said
    assert "core 2.19." in said


def test_it_makes_a_host_whole_and_finds_nothing_to_do_afterwards(controller: Host, host: Host) -> None:
    assert "2025" in play(controller, "plan") or "0.9.4" in play(controller, "plan")
    assert "failed=0" in play(controller, "site", options="--check")
    assert "failed=0" in play(controller, "site")
    assert controller.ssh(f"python3 - {DOMAIN}", stdin=HEALTH).stdout.strip() == "ok"
    assert "changed=0 " in play(controller, "site")
    assert "fluxbase" in play(controller, "status")
