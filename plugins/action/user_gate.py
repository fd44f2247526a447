# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of selfhost.fleet.user_gate: queries of Prometheus, and commands that run here."""

from __future__ import annotations

import os
from collections.abc import Mapping
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.error import HTTPError

from ansible.module_utils.urls import ConnectionError as UrlError
from ansible.module_utils.urls import open_url
from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.command import CommandError, run
from ansible_collections.selfhost.fleet.plugins.module_utils.rollout.prometheus import Bounds, ask
from ansible_collections.selfhost.fleet.plugins.modules.user_gate import ARGUMENTS

MODULE = "selfhost.fleet.user_gate"
ANSWER = 10  # seconds that Prometheus has for one
LARGEST = 1 << 20  # bytes of an answer


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    """What runs on the host is the module's."""

    TRANSFERS_FILES = False
    _supports_check_mode = True

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        _checked, options = self.validate_argument_spec(
            argument_spec=ARGUMENTS,
            mutually_exclusive=[("command", "prometheus")],
            required_one_of=[("command", "prometheus")],
        )
        name = options["name"]
        if options["command"] and options["where"] == "host":
            answer: dict[str, Any] = self._execute_module(module_name=MODULE, task_vars=task_vars)
            return answer
        if self._task.check_mode:
            return {**result, "changed": False, "msg": f"{name}: not run in check mode"}
        found = asked(options) if options["prometheus"] else ran(options, _folder(task_vars or {}))
        return {**result, "changed": False, **found, "msg": f"{name}: {found['msg']}"}


def ran(options: Mapping[str, Any], folder: str) -> dict[str, Any]:
    """A command on the controller, in a folder."""
    given = {name: str(value) for name, value in options["environment"].items()}
    command = [str(word) for word in options["command"]]
    try:
        outcome = run(command, environment={**os.environ, **given}, timeout=options["timeout"], directory=folder)
    except CommandError as error:
        return {"failed": True, "msg": f"{error} on the controller, in {folder}"}
    return {"failed": not outcome.ok, "msg": f"{command[0]} {outcome.words}", **outcome.as_result()}


def asked(options: Mapping[str, Any]) -> dict[str, Any]:
    """A query of Prometheus."""
    wanted = options["prometheus"]
    bounds = Bounds(below=wanted["below"], above=wanted["above"])
    verdict = ask(fetch, str(wanted["url"]), str(wanted["query"]), bounds, timeout=options["timeout"])
    words = verdict.words if verdict.ok else f"{verdict.words}. The query was: {wanted['query']}"
    return {"failed": not verdict.ok, "msg": words, "values": list(verdict.values), "tries": verdict.tries}


def fetch(address: str) -> tuple[int, bytes]:
    """The HTTP status and the body; OSError where nobody answers."""
    try:
        answer = open_url(address, timeout=ANSWER, use_proxy=False, headers={"Accept": "application/json"})
        return int(answer.status), answer.read(LARGEST)
    except HTTPError as error:
        return int(error.code), error.read(LARGEST)
    except (HTTPException, UrlError) as error:
        raise OSError(str(error)) from error


def _folder(variables: Mapping[str, Any]) -> str:
    return str(variables.get("inventory_dir") or Path.cwd())
