"""Writes every result of a run as a line of JSON into the file that TESTBED_RESULTS names.

ansible-core itself has no such callback any more.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from ansible import constants
from ansible.plugins.callback import CallbackBase

DOCUMENTATION = """
name: testbed_results
type: notification
short_description: Results of a run as lines of JSON
description: One line for every result that a task has on a host, in the order in which they came.
author: selfhost.fleet authors
"""


class CallbackModule(CallbackBase):
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "notification"
    CALLBACK_NAME = "testbed_results"
    CALLBACK_NEEDS_ENABLED = True

    def v2_playbook_on_start(self, playbook: Any) -> None:
        """Modules that an earlier run has built, where Ansible looks for them; it keeps them for a run alone."""
        Path(constants.DEFAULT_LOCAL_TMP, "ansiballz_cache").symlink_to(os.environ["TESTBED_MODULES"])

    def _write(self, status: str, outcome: Any) -> None:
        line = {
            "host": outcome.host.get_name(),
            "task": outcome.task.get_name(),
            "status": status,
            "result": dict(outcome.result),
        }
        with Path(os.environ["TESTBED_RESULTS"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(line, default=str) + "\n")

    def v2_runner_on_ok(self, result: Any) -> None:
        self._write("ok", result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        self._write("ignored" if ignore_errors else "failed", result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        self._write("skipped", result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        self._write("unreachable", result)
