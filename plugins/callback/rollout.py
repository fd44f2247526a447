# GNU General Public License v3.0+ (see LICENSE)
# ruff: noqa: E402  (Ansible wants the documentation before the imports)
"""Rollouts for people: see module_utils/rollout/progress.py for what is shown, and docs/decisions/0006-view.md for how it is chosen."""

from __future__ import annotations

DOCUMENTATION = """
name: rollout
type: stdout
short_description: Rollouts step by step, everything else as by default
version_added: 0.1.0
author:
  - The selfhost.fleet authors (@selfhost)
description:
  - In a play with the variable C(rollout_view), as those of C(upgrade.yml) and C(rollback.yml), it prints a line for each step of a rollout, and at the
    end what changed, where, and how long each step took. On a terminal it also shows what goes on now, which gate has to hold, and the time left.
  - Failures, warnings, unreachable hosts, differences and what tasks have to say are shown in full. Tasks that went well are not.
  - All other plays, and all of them with C(-v), are shown as by P(ansible.builtin.default#callback), which it extends.
requirements:
  - "set as stdout in configuration: C(stdout_callback = selfhost.fleet.rollout) below C([defaults]) of ansible.cfg, or
    E(ANSIBLE_STDOUT_CALLBACK=selfhost.fleet.rollout)"
extends_documentation_fragment:
  - default_callback
  - result_format_callback
"""

import atexit
import os
import sys
from collections.abc import Iterable
from typing import Any

from ansible import constants
from ansible.plugins.callback.default import CallbackModule as Default
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.progress import (
    Progress,
    cut,
    failure,
    said,
)
from ansible_collections.selfhost.fleet.plugins.plugin_utils.live_view import LiveView

BOOKKEEPING = ("selfhost.fleet.rollout_record", "selfhost.fleet.fleet_lock")  # changes nothing that anybody asked for
MARK = "rollout_view"  # the variable of a play whose rollouts are shown


class CallbackModule(Default):  # type: ignore[misc]  # ansible-core has no types
    CALLBACK_VERSION = 2.0
    CALLBACK_TYPE = "stdout"
    CALLBACK_NAME = "selfhost.fleet.rollout"

    def __init__(self) -> None:
        super().__init__()
        self._progress = Progress()
        self._compact = False
        self._live: LiveView | None = None
        if sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb":
            self._live = LiveView(sys.stdout.fileno(), lambda width: cut(self._progress.view(), width))

    def get_option(self, k: str, hostvars: Any = None) -> Any:
        """Default's own options leave out what went well, and the headings of it."""
        if self._compact and k in ("display_ok_hosts", "display_skipped_hosts"):
            return False
        return super().get_option(k, hostvars)

    def v2_playbook_on_play_start(self, play: Any) -> None:
        self._compact = self._display.verbosity == 0 and bool(play.get_vars().get(MARK))
        if self._compact:
            self._play = play
        else:
            super().v2_playbook_on_play_start(play)

    def v2_playbook_on_task_start(self, task: Any, is_conditional: bool) -> None:
        self._progress.running(_title(task))
        super().v2_playbook_on_task_start(task, is_conditional)

    def v2_playbook_on_include(self, included_file: Any) -> None:
        if not self._compact:
            super().v2_playbook_on_include(included_file)

    def v2_runner_on_ok(self, result: Any) -> None:
        if not self._compact:
            super().v2_runner_on_ok(result)
            return
        found, host = result.result, result.host.get_name()
        self._handle_warnings_and_exception(result)
        if "rollout_event" in found:
            self._told(found)
        elif "rollout_begun" in (found.get("ansible_facts") or {}):
            self._print(self._progress.begun(found["ansible_facts"]["rollout_begun"]), constants.COLOR_OK)
        elif self._run_is_verbose(result):  # debug, which is there to be read
            self._say(result)
        if not result.task.loop:  # the items of one were heard of before
            self._progress.probed(host, found)
        if found.get("changed") and result.task.action not in BOOKKEEPING:
            kept = self._progress.changed(host, _title(result.task))
            if not kept:
                super().v2_runner_on_ok(result)

    def v2_runner_item_on_ok(self, result: Any) -> None:
        if not self._compact:
            super().v2_runner_item_on_ok(result)
            return
        self._handle_warnings_and_exception(result)
        if self._run_is_verbose(result):
            self._say(result)
        self._progress.probed(result.host.get_name(), result.result)

    def v2_runner_on_skipped(self, result: Any) -> None:
        if self._compact:
            self._handle_warnings_and_exception(result)
        else:
            super().v2_runner_on_skipped(result)

    def v2_runner_item_on_skipped(self, result: Any) -> None:
        if self._compact:
            self._handle_warnings_and_exception(result)
        else:
            super().v2_runner_item_on_skipped(result)

    def v2_runner_on_failed(self, result: Any, ignore_errors: bool = False) -> None:
        if not self._compact:
            super().v2_runner_on_failed(result, ignore_errors)
            return
        if not ignore_errors:
            self._print(self._progress.failed(), constants.COLOR_ERROR)
        items = bool(result.task.loop) and "results" in result.result  # each of them was told of
        if ignore_errors or items or not self._said_plainly(result):
            super().v2_runner_on_failed(result, ignore_errors)

    def v2_runner_item_on_failed(self, result: Any) -> None:
        if self._compact and not result.task.ignore_errors:
            self._print(self._progress.failed(), constants.COLOR_ERROR)
            if self._said_plainly(result):
                return
        super().v2_runner_item_on_failed(result)

    def v2_runner_on_unreachable(self, result: Any) -> None:
        if self._compact and not result.task.ignore_unreachable:
            self._print(self._progress.failed(), constants.COLOR_ERROR)
        super().v2_runner_on_unreachable(result)

    def v2_playbook_on_stats(self, stats: Any) -> None:
        self._print(self._progress.broken_off(), constants.COLOR_ERROR)
        self._end_live()
        super().v2_playbook_on_stats(stats)

    def _said_plainly(self, result: Any) -> bool:
        """Whether this failure was made to be read, as its message with its line breaks, and so is shown."""
        words, others = failure(result.result)
        if not words or result.result.get("_ansible_no_log") or not _for_people(result.task):
            return False
        self._handle_warnings(result.result)
        text = [f"fatal: [{self.host_label(result)}]: FAILED! => {_title(result.task)}:", words]
        text += [self._dump_results(others).lstrip("\n")] if others else []
        stderr = self.get_option("display_failed_stderr")
        self._display.display("\n".join(text), color=constants.COLOR_ERROR, stderr=stderr)
        return True

    def _say(self, result: Any) -> None:
        self._clean_results(result.result, result.task.action)
        self._print(said(result.result) or [self._dump_results(result.result)], constants.COLOR_OK)

    def _told(self, found: dict[str, Any]) -> None:
        event = found["rollout_event"]
        lines = self._progress.told(event, found.get("rollout_limits") or {})
        color = constants.COLOR_OK if event["event"] in ("started", "done") else constants.COLOR_ERROR
        self._print(lines, color)
        if event["event"] == "started":
            self._begin_live()
        else:
            self._end_live()

    def _print(self, lines: Iterable[str], color: str) -> None:
        for line in lines:
            self._display.display(line, color=color if line.strip() else None)
        if self._live:
            self._live.draw()

    def _begin_live(self) -> None:
        """Whatever is printed from now on, by this plugin or not, comes above what is drawn."""
        live = self._live
        if live is None or "display" in vars(self._display):
            return
        original = self._display.display

        def display(*args: Any, **kwargs: Any) -> None:
            with live.held():
                original(*args, **kwargs)

        self._display.display = display
        atexit.register(self._end_live)
        live.start()
        live.draw()

    def _end_live(self) -> None:
        if self._live and "display" in vars(self._display):
            self._live.stop()
            del self._display.display
            atexit.unregister(self._end_live)


def _for_people(task: Any) -> bool:
    """Whether the message of a failure was written to be read as it is; where the task stands in its file says nothing more then."""
    collection, _dot, name = str(task.action).rpartition(".")
    return collection == "selfhost.fleet" or name in ("fail", "assert")


def _title(task: Any) -> str:
    """Without its role, which says nothing to who did not write it."""
    return str(task.name or task.get_name()).strip()
