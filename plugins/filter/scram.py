# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

from collections.abc import Callable

from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.scram import ScramError, make_verifier


def scram_verifier(password: object, role: object, namespace: object = "") -> str:
    if not (isinstance(password, str) and isinstance(role, str) and isinstance(namespace, str)):
        raise AnsibleFilterError("selfhost.fleet.scram_verifier wants a password, a role and a namespace, all strings.")
    try:
        return str(make_verifier(str(password), str(role), namespace=str(namespace)))
    except ScramError as error:
        raise AnsibleFilterError(f"selfhost.fleet.scram_verifier: {error}") from error


class FilterModule:
    def filters(self) -> dict[str, Callable[..., str]]:
        return {"scram_verifier": scram_verifier}
