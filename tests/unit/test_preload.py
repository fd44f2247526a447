"""The callback that imports for all tasks: what it brings is there before Ansible forks."""

from __future__ import annotations

import os
import subprocess
import sys

from ansible_collections.selfhost.fleet.plugins.module_utils.plan import compute

PROGRAM = """
import sys
from ansible.plugins import loader
loader.init_plugin_loader([sys.argv[1]])
def there():
    return {name for name in sys.modules if "selfhost.fleet.plugins" in name or name == "jsonschema"}
callback = loader.callback_loader.get("selfhost.fleet.preload")
before = there()
callback.v2_playbook_on_start(None)
print("\\n".join(sorted(there() - before)))
"""


def test_filters_actions_and_what_they_import_are_there() -> None:
    root = compute.__file__.partition("/ansible_collections/")[0]
    command = [sys.executable, "-c", PROGRAM, root]
    done = subprocess.run(command, env=dict(os.environ), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    names = done.stdout.split()
    assert "jsonschema" in names
    for own in ("filter.edge", "action.config_set", "module_utils.plan.compute"):
        assert f"ansible_collections.selfhost.fleet.plugins.{own}" in names
