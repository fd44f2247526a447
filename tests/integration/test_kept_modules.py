"""Modules that a run has built are the next one's, on a real host."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

from fleetbed.host import Host
from fleetbed.paths import REPOSITORY
from fleetbed.runner import Ansible

NAME = "ansible_collections.selfhost.fleet.plugins.modules.probe"


def test_the_next_run_sends_what_this_one_has_built(host: Host, ansible: Ansible, tmp_path: Path) -> None:
    task = {"selfhost.fleet.probe": {"kind": "tcp", "url": "tcp://127.0.0.1:22"}}
    (tmp_path / "play.json").write_text(json.dumps([{"hosts": "all", "gather_facts": False, "tasks": [task]}]))
    (tmp_path / "hosts.json").write_text(json.dumps(ansible.inventory([host], {}, {})))
    environment = {
        **os.environ,
        "ANSIBLE_CONFIG": str(REPOSITORY / "docs" / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(REPOSITORY / ".cache" / "collections"),
        "ANSIBLE_HOME": str(tmp_path / "home"),
        "ANSIBLE_DEBUG": "true",
    }
    program = str(Path(sys.executable).parent / "ansible-playbook")
    command = [program, "-i", str(tmp_path / "hosts.json"), str(tmp_path / "play.json")]
    kept = tmp_path / "home" / "selfhost.fleet" / "modules"
    seen = []
    for _run in range(2):
        done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout
        (module,) = kept.glob(f"*/{NAME}-*")
        seen.append(("ANSIBALLZ: Creating module" in done.stdout, module.stat().st_mtime_ns))
    assert [built for built, _written in seen] == [True, False]
    assert seen[0][1] == seen[1][1]
