# GNU General Public License v3.0+ (see LICENSE)
"""A file that only Ansible Vault can read: made with mode 0600, changed as a whole or not at all, one operator at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

from ansible import constants
from ansible.errors import AnsibleError
from ansible.parsing.vault import VaultLib, VaultSecret, is_encrypted, match_encrypt_secret


class VaultFileError(Exception):
    """What is wrong with the file or the vault's password, and what to do."""


class VaultFile:
    """`secrets` are those that the run was given: by --vault-id, --vault-password-file or --ask-vault-pass."""

    def __init__(self, path: Path, secrets: list[tuple[str, VaultSecret]]) -> None:
        self.path = path
        self._vault = VaultLib(secrets)
        if not secrets:
            raise VaultFileError(
                f"{path} is an encrypted file, and this run has no vault password. "
                "Add --vault-password-file FILE, --ask-vault-pass or --vault-id NAME@FILE"
            )

    def read(self) -> str:
        """The plain text; empty where there is no file."""
        return self._read()[0]

    def _read(self) -> tuple[str, str | None, VaultSecret | None]:
        try:
            content = self.path.read_bytes()
        except FileNotFoundError:
            return "", None, None
        except OSError as error:
            raise VaultFileError(f"{self.path} cannot be read: {error.strerror}") from error
        if not is_encrypted(content):
            raise VaultFileError(f"{self.path} is not encrypted. Encrypt it: ansible-vault encrypt {self.path}")
        try:
            plain, vault_id, secret = self._vault.decrypt_and_get_vault_id(content)
        except AnsibleError:
            raise VaultFileError(
                f"{self.path} cannot be decrypted with the vault password of this run. Give the one that it was made with"
            ) from None
        return plain.decode(), vault_id, secret

    def write(self, text: str) -> None:
        """Under the password and the vault id that the file has; a new one under those that `ansible-vault create` takes."""
        _text, vault_id, secret = self._read()
        if secret is None:
            try:
                vault_id, secret = match_encrypt_secret(self._vault.secrets, constants.DEFAULT_VAULT_ENCRYPT_IDENTITY)
            except AnsibleError as error:
                raise VaultFileError(f"{self.path} cannot be encrypted: {error.message}") from error
        # Without a label the file is of the format that every version and `ansible-vault create` write.
        label = None if vault_id == constants.DEFAULT_VAULT_IDENTITY else vault_id
        encrypted = self._vault.encrypt(text, secret, label)
        descriptor, name = tempfile.mkstemp(prefix=f".{self.path.name}.", dir=self.path.parent)  # made with mode 0600
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(encrypted)
                file.flush()
                os.fsync(file.fileno())
            Path(name).replace(self.path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Two who make secrets at once must not each write a file without the other's."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(self.path.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)
