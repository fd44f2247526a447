# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of selfhost.fleet.config_set: renders the files and makes the one call."""

from __future__ import annotations

import base64
import secrets
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ansible.errors import AnsibleConnectionFailure, AnsibleError, AnsibleUndefinedVariable
from ansible.module_utils.parsing.convert_bool import boolean
from ansible.plugins.action import ActionBase
from ansible.template import trust_as_template
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.model import SETTLED_FACT
from ansible_collections.selfhost.fleet.plugins.module_utils.transaction.settled import digest
from ansible_collections.selfhost.fleet.plugins.plugin_utils.fresh_connection import (
    fresh_connection,
    is_over_the_network,
)

MODULE = "selfhost.fleet.config_set"
TAKING_BACK = 60.0  # seconds that a host may need for it, beside those until it begins
RETRY = 2.0  # seconds; many connections in a short time would be taken for an attack

# What the module says of a set that is as it was asked for; selfhost.fleet.config_facts has seen it.
NOTHING_TO_DO: dict[str, Any] = {
    "changed": False,
    "changed_files": [],
    "removed_files": [],
    "validated": None,
    "units": {},
    "pending": False,
    "change": "",
    "recovered": [],
    "diff": [],
}


class RenderError(Exception):
    """A file of the set that cannot be sent, in words for the operator."""


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    TRANSFERS_FILES = False

    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        super().run(tmp, task_vars)
        variables = task_vars or {}
        arguments = dict(self._task.args)
        started = time.monotonic()
        try:
            arguments["files"] = self._files(arguments.get("files") or [], variables)
            arguments["units"] = [_unit(unit) for unit in arguments.get("units") or []]
        except RenderError as error:
            # No exception is passed on: Ansible would print all that led to it, values included.
            return {"failed": True, "msg": str(error), "phase": "render", "rolled_back": False}
        rendered = int((time.monotonic() - started) * 1000)
        arguments["digest"] = digest(arguments)
        settled = variables.get("ansible_facts", {}).get(SETTLED_FACT, {})
        if settled.get(str(arguments.get("name"))) == arguments["digest"]:
            return {**NOTHING_TO_DO, "timings_ms": {"render": rendered}}
        try:
            result: dict[str, Any] = self._execute_module(
                module_name=MODULE, module_args=arguments, task_vars=variables
            )
        except AnsibleConnectionFailure as error:
            raise AnsibleConnectionFailure(
                f"The connection was lost while the set {arguments.get('name')} was put in place, or there was none. The "
                "host finishes what it has begun by itself, and where it cannot, the next run first undoes it. Run again "
                f"when ssh to the host works. {error}"
            ) from None
        if isinstance(result.get("timings_ms"), dict):
            result["timings_ms"]["render"] = rendered
        if result.get("pending"):
            result = self._confirm(result, arguments, variables)
        if result.get("changed"):
            # What was seen of other sets was seen before this.
            result["ansible_facts"] = {SETTLED_FACT: {}}
        return result

    def _confirm(self, result: dict[str, Any], arguments: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        """Keep the change if a fresh connection gets through; else take it back over the one that there is."""

        def call(state: str) -> dict[str, Any]:
            names = {key: arguments[key] for key in ("name", "timeout") if key in arguments}
            given = {**names, "state": state, "change": result["change"]}
            called: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=given, task_vars=variables)
            return called

        try:
            with fresh_connection(self._connection):
                confirmed = call("confirmed")
        except AnsibleConnectionFailure as error:
            reason = str(error)
        else:
            if not confirmed.get("failed"):
                if is_over_the_network(self._connection):
                    # What follows goes over a connection that the new state has let in.
                    self._connection.reset()
                return {**result, "pending": False, "change": ""}
            reason = str(confirmed.get("msg") or "the module that confirms it failed")
        back, end = _take_back(call, float(arguments["confirm_within"]) + TAKING_BACK)
        message = (
            f"{arguments['name']} cannot stay: a fresh connection to the host fails with it. {end} It says: {reason}"
        )
        failure = {
            "failed": True,
            "changed": False,
            "pending": False,
            "change": "",
            "phase": "confirm",
            "rolled_back": back,
        }
        return {**result, **failure, "msg": message}

    def _files(self, entries: Any, variables: dict[str, Any]) -> list[dict[str, Any]]:
        if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
            raise RenderError(
                "files: a list is needed, each entry with path and one of template, content, secret_content, link"
            )
        return [self._file(index, dict(entry), variables) for index, entry in enumerate(entries)]

    def _file(self, index: int, entry: dict[str, Any], variables: dict[str, Any]) -> dict[str, Any]:
        where = f"files[{index}] ({entry.get('path', 'without a path')})"
        template, extra = entry.pop("template", None), entry.pop("vars", None) or {}
        given = {key: entry.pop(key, None) for key in ("content", "secret_content", "link")}
        if sum(value is not None for value in (template, *given.values())) != 1:
            raise RenderError(f"{where}: give exactly one of template, content, secret_content and link")
        if given["link"] is not None:
            return {**entry, "link": str(given["link"])}
        try:
            secret = boolean(entry.get("secret", False)) or given["secret_content"] is not None
        except TypeError:
            raise RenderError(f"{where}: secret is true or false") from None
        if template is not None:
            if not isinstance(extra, Mapping):
                raise RenderError(f"{where}: vars is a mapping of names to values")
            content = self._render(where, str(template), str(entry.get("path")), dict(extra), variables, secret=secret)
        else:
            content = given["content"] if given["content"] is not None else given["secret_content"]
        if not isinstance(content, str):
            raise RenderError(
                f"{where}: the content is not text but of type {type(content).__name__}; "
                "turn it into text with to_nice_yaml, to_json or string"
            )
        # Names that Ansible has tagged stay what they are; the content is sent as plain text.
        if secret:
            entry |= {"secret": True, "secret_content": _envelope(content)}
        else:
            entry["content"] = content
        return entry

    def _render(
        self, where: str, template: str, path: str, extra: dict[str, Any], variables: dict[str, Any], *, secret: bool
    ) -> str:
        """As ansible.builtin.template renders: same search, same options of Jinja, and the last line break kept."""
        try:
            source = self._find_needle("templates", template)
            text = trust_as_template(self._loader.get_text_file_contents(source))
        except AnsibleError as error:
            raise RenderError(f"{where}: template {template}: {error}") from None
        folders = [*variables.get("ansible_search_path", []), self._loader.get_basedir(), str(Path(source).parent)]
        search = [place for folder in folders for place in (str(Path(folder) / "templates"), folder)]
        scope = {
            **variables,
            "template_path": template,
            "template_fullpath": source,
            "template_destpath": path,
            **extra,
        }
        try:
            templar = self._templar.copy_with_new_env(searchpath=search, available_variables=scope)
            rendered = templar.template(
                text, escape_backslashes=False, overrides={"trim_blocks": True, "lstrip_blocks": False}
            )
        except AnsibleUndefinedVariable as error:
            # Names a variable or an attribute, never a value.
            raise RenderError(f"{where}: template {source}: {error}") from None
        except Exception as error:
            if secret:
                raise RenderError(
                    f"{where}: template {source} cannot be rendered ({type(error).__name__}); the file is secret, so "
                    "nothing more is shown. Take secret off for a run with invented values to see more"
                ) from None
            raise RenderError(f"{where}: template {source}: {error}") from None
        return rendered if isinstance(rendered, str) else "" if rendered is None else str(rendered)


def _take_back(call: Callable[[str], dict[str, Any]], patience: float) -> tuple[bool, str]:
    """Whether the former state is back, in words too. The host must be reachable then, or a rescue of the task could not run.

    Where the former connection is gone as well, the host takes the change back by itself, and lets in who asks for it.
    """
    deadline = time.monotonic() + patience
    while True:
        try:
            taken = call("taken_back")
        except AnsibleConnectionFailure:
            if time.monotonic() > deadline:
                return False, "The host, which was to take it back by itself, cannot be reached."
            time.sleep(RETRY)
            continue
        if taken.get("failed"):
            return False, f"It could not be taken back: {taken.get('msg')}."
        return True, "It was taken back, the former state is in force."


def _unit(unit: Any) -> dict[str, Any]:
    """A unit is enabled unless it says otherwise; null is an answer too, which a module's default could not keep."""
    if isinstance(unit, str):
        return {"name": unit, "enabled": True}
    if not isinstance(unit, Mapping):
        raise RenderError("units: a list of names, or of mappings with a name")
    return {"enabled": True, **unit}


def _envelope(content: str) -> str:
    """Ansible scrubs a secret from all results as a substring. This one occurs nowhere else, however short it is."""
    return f"selfhost-envelope:{secrets.token_hex(16)}:{base64.b64encode(content.encode()).decode()}"
