# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError
from ansible_collections.selfhost.fleet.plugins.module_utils.postgres.scram import ScramError, make_verifier


def scram_verifier(password: object, role: object, namespace: object = "") -> str:
    if not (isinstance(password, str) and isinstance(role, str) and isinstance(namespace, str)):
        raise AnsibleFilterError("selfhost.fleet.scram_verifier wants a password, a role and a namespace, all strings.")
    try:
        return str(make_verifier(str(password), str(role), namespace=str(namespace)))
    except ScramError as error:
        raise AnsibleFilterError(f"selfhost.fleet.scram_verifier: {error}") from error


def with_verifiers(
    entries: list[Mapping[str, Any]], services: Mapping[str, Any], key: str = "name"
) -> list[dict[str, Any]]:
    """Each entry's reference to a secret replaced by the verifier of the role that `key` names."""
    found = []
    for entry in entries:
        rest = {name: value for name, value in entry.items() if name != "secret"}
        reference = entry.get("secret")
        if reference:
            service = services.get(reference["service"]) or {}
            password = (service.get("secrets") or {}).get(reference["name"])
            if password is None:
                raise AnsibleFilterError(
                    f"fleet_services.{reference['service']}.secrets.{reference['name']} is missing; the role "
                    f"{entry[key]} needs it."
                )
            # Public, the same for the database and its poolers, and another one in another fleet.
            namespace = json.dumps([reference["service"], service.get("domain", "")])
            rest["password_verifier"] = scram_verifier(password, entry[key], namespace)
        found.append(rest)
    return found


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"scram_verifier": scram_verifier, "with_verifiers": with_verifiers}
