# GNU General Public License v3.0+ (see LICENSE)
"""The fleet's own secrets: `fleet_secrets.<service>.<NAME>` in an encrypted file among the inventory's variables.

`fleet_secrets_next` in the same file holds a value that is about to take the place of one: whatever happens to a
rotation, nobody is left with a password that is written down nowhere.
"""

from __future__ import annotations

from pathlib import Path

from ansible.parsing.vault import VaultSecret
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.generate import GenerateError, generate
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import Data, Service
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.secrets import problem, rules_of
from ansible_collections.selfhost.fleet.plugins.plugin_utils.secret_document import (
    DocumentError,
    drop,
    get,
    load,
    put,
)
from ansible_collections.selfhost.fleet.plugins.plugin_utils.vault_file import VaultFile, VaultFileError

CURRENT, UPCOMING = "fleet_secrets", "fleet_secrets_next"
HEADER = """\
# Made by playbooks/secrets.yml, which adds what is missing and never changes what is here. To see or edit it: ansible-vault edit
---
"""


class SecretError(Exception):
    """What keeps secrets from being made or changed, and what to do. Never a value."""


def default_path(sources: list[Path]) -> Path:
    """Where Ansible reads variables of all hosts: group_vars/all/ beside the first source of the inventory."""
    if not sources:
        raise SecretError("there is no inventory to put secrets beside. Name one with -i")
    beside = sources[0].parent if sources[0].is_file() else sources[0]
    folder = beside / "group_vars" / "all"
    for hidden in (folder, *(folder.with_suffix(suffix) for suffix in (".yml", ".yaml", ".json"))):
        if hidden.is_file():
            # Ansible reads the folder or the file, whichever it finds first: the folder would hide the file.
            raise SecretError(
                f"{hidden} would no longer be read once there is a folder {folder}. Move it into the folder first: "
                f"mkdir {folder}.d && mv {hidden} {folder}.d/fleet.yml && mv {folder}.d {folder}"
            )
    return folder / "secrets.yml"


class SecretStore:
    """The file, with the vault passwords of the run."""

    def __init__(self, path: Path, vault_secrets: list[tuple[str, VaultSecret]]) -> None:
        self.path = path
        try:
            self._file = VaultFile(path, vault_secrets)
        except VaultFileError as error:
            raise SecretError(str(error)) from None

    def make(self, wanted: dict[str, dict[str, Data]], *, dry_run: bool) -> list[str]:
        """Values for names by service, with their rules; those that the file has already are left. Returns what was made."""
        if dry_run:
            return self._add(wanted)[1]
        with self._file.locked():
            text, made = self._add(wanted)
            if made:
                self._write(text)
        return made

    def begin(self, service: Service, name: str) -> str:
        """The value that `name` is about to have: of a rotation that was begun before, or a new one."""
        rule = rules_of(service)[name]
        with self._file.locked():
            text = self._text()
            if get(self._data(text), (CURRENT, service.name, name)) is None:
                raise SecretError(
                    f"{service.variable}.secrets.{name} is not in {self.path}: what comes from elsewhere is changed there"
                )
            value = get(self._data(text), (UPCOMING, service.name, name))
            if value is None:
                if rule.get("given"):
                    raise SecretError(
                        f"{service.variable}.secrets.{name} cannot be made here ({rule.get('generate', 'it is given')}). "
                        f"Write the new one as {UPCOMING}.{service.name}.{name}: ansible-vault edit {self.path}"
                    )
                value = self._generated(service.name, name, rule)
                self._write(self._put(text, (UPCOMING, service.name, name), value))
        wrong = problem(value, rule)
        if wrong:
            raise SecretError(f"{UPCOMING}.{service.name}.{name} {wrong}. Change it: ansible-vault edit {self.path}")
        return str(value)

    def finish(self, service: str, name: str) -> bool:
        """What was about to be the value is the value; False where that is so already."""
        with self._file.locked():
            text = self._text()
            value = get(self._data(text), (UPCOMING, service, name))
            if value is None:
                return False
            text = self._put(text, (CURRENT, service, name), value)
            try:
                self._write(drop(text, (UPCOMING, service, name)))
            except DocumentError as error:
                raise SecretError(f"{self.path}: {error}") from None
        return True

    def _add(self, wanted: dict[str, dict[str, Data]]) -> tuple[str, list[str]]:
        text, made = self._text(), []
        for service, rules in wanted.items():
            for name, rule in rules.items():
                if get(self._data(text), (CURRENT, service, name)) is None:
                    path = (CURRENT, service, name)
                    text = self._put(text or HEADER, path, self._generated(service, name, rule))
                    made.append(f"{service}.{name}")
        return text, made

    @staticmethod
    def _generated(service: str, name: str, rule: Data) -> str:
        try:
            return generate(rule)
        except GenerateError as error:
            raise SecretError(
                f"services/{service}.yml: secrets.{name}: {error}. Mend the rule in the definition"
            ) from None

    def _text(self) -> str:
        try:
            return self._file.read()
        except VaultFileError as error:
            raise SecretError(str(error)) from None

    def _data(self, text: str) -> Data:
        try:
            return load(text)
        except DocumentError as error:
            raise SecretError(f"{self.path}: {error}. Mend it: ansible-vault edit {self.path}") from None

    def _put(self, text: str, path: tuple[str, ...], value: str) -> str:
        try:
            return put(text, path, value)
        except DocumentError as error:
            raise SecretError(f"{self.path}: {error}. Change it: ansible-vault edit {self.path}") from None

    def _write(self, text: str) -> None:
        try:
            self._file.write(text)
        except VaultFileError as error:
            raise SecretError(str(error)) from None
