# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""The controller's half of selfhost.fleet.release: the file travels only to hosts that lack the release."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ansible.errors import AnsibleActionFail, AnsibleError
from ansible.plugins.action import ActionBase
from ansible_collections.selfhost.fleet.plugins.module_utils.release import ReleaseError
from ansible_collections.selfhost.fleet.plugins.module_utils.release.fetch import check, sha256_of

MODULE = "selfhost.fleet.release"


class ActionModule(ActionBase):  # type: ignore[misc]  # ansible-core has no types
    def run(self, tmp: str | None = None, task_vars: dict[str, Any] | None = None) -> dict[str, Any]:
        result: dict[str, Any] = super().run(tmp, task_vars)
        arguments = dict(self._task.args)
        if "delivered" in arguments:
            raise AnsibleActionFail("delivered is set by the action plugin itself; leave it out.")
        result.update(self._call(arguments, task_vars))
        # Anything but a complete answer goes to the operator as it is.
        if result.get("failed") or not result.get("needed"):
            return result
        local = self._local(str(arguments["source"]), str(arguments["checksum"]).lower())
        if self._task.check_mode:
            return result
        remote = self._deliver(local)
        result.pop("warnings", None)
        result.update(self._call({**arguments, "delivered": remote}, task_vars))
        return result

    def _call(self, arguments: dict[str, Any], task_vars: dict[str, Any] | None) -> dict[str, Any]:
        answer: dict[str, Any] = self._execute_module(module_name=MODULE, module_args=arguments, task_vars=task_vars)
        answer.pop("invocation", None)
        return answer

    def _local(self, source: str, checksum: str) -> Path:
        try:
            path = Path(self._find_needle("files", source))
        except AnsibleError as error:
            raise AnsibleActionFail(
                f"source {source!r} is not on the controller, and this host does not have the release yet. Put the "
                f"file there, or name an https address, or set source_on_host. ({error})"
            ) from error
        if not path.is_file():
            raise AnsibleActionFail(f"source {path} on the controller is no file. Pack a folder as .tar.xz first.")
        try:
            check(sha256_of(path), checksum, f"{path} on the controller")
        except (OSError, ReleaseError) as error:
            raise AnsibleActionFail(str(error)) from error
        return path

    def _deliver(self, local: Path) -> str:
        shell = self._connection._shell
        if shell.tmpdir is None:
            self._make_tmp_path()
        remote = str(shell.join_path(shell.tmpdir, "release"))
        try:
            self._transfer_file(str(local), remote)
            self._fixup_perms2((shell.tmpdir, remote))
        except AnsibleError as error:
            size = local.stat().st_size // (1 << 20) + 1
            raise AnsibleActionFail(
                f"{local} could not be sent to {remote} on the host. Are {size} MiB free there? "
                f"(ansible_remote_tmp names another folder.) {error}"
            ) from error
        return remote
