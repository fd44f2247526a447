# GNU General Public License v3.0+ (see LICENSE)
# ruff: noqa: E402  (Ansible wants the documentation before the imports)
"""What tasks need of the controller, imported once. docs/speed.md has what it wins."""

from __future__ import annotations

DOCUMENTATION = """
name: preload
type: notification
short_description: Imports once what every task would import anew
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - Ansible carries each task out in a process of its own, forked from the first one, and what such a process imports ends with it. This imports the plugins
    and libraries that the collection's playbooks use before the first fork. Nothing is shown, and nothing else is changed.
requirements:
  - "C(callbacks_enabled = selfhost.fleet.preload) below C([defaults]) of ansible.cfg, or E(ANSIBLE_CALLBACKS_ENABLED=selfhost.fleet.preload)"
"""

import contextlib
import importlib
from pathlib import Path
from typing import Any

from ansible.plugins import loader
from ansible.plugins.callback import CallbackBase

COLLECTION = "selfhost.fleet"
LIBRARIES = ("jsonschema",)


class CallbackModule(CallbackBase):  # type: ignore[misc]  # ansible-core has no types
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = f"{COLLECTION}.preload"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, _playbook: Any) -> None:
        # They are asked for by name, and the first of a collection brings all of it, and Ansible's own.
        loader.filter_loader.get(f"{COLLECTION}.component_note")
        loader.test_loader.get("ansible.builtin.defined")
        for path in (Path(__file__).parents[1] / "action").glob("[a-z]*.py"):
            loader.action_loader.get(f"{COLLECTION}.{path.stem}", class_only=True)
        loader.connection_loader.get("ansible.builtin.ssh", class_only=True)
        loader.become_loader.get("ansible.builtin.sudo", class_only=True)
        loader.shell_loader.get("ansible.builtin.sh", class_only=True)
        # Where one is missing, the task that needs it says so.
        with contextlib.suppress(ImportError):
            for library in LIBRARIES:
                importlib.import_module(library)
