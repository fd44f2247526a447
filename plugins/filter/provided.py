# Copyright: the selfhost.fleet authors
# GNU General Public License v3.0-or-later (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Filter of the role `certificate`: the plan refers to what is provided, as to every secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ansible.errors import AnsibleFilterError


def with_provided(certificates: list[Mapping[str, Any]], services: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Each certificate's references replaced by what the inventory provides: files on the controller, or the texts themselves."""
    return [
        {**entry, "provided": {part: _value(given, services) for part, given in entry["provided"].items()}}
        if entry.get("provided")
        else dict(entry)
        for entry in certificates
    ]


def _value(given: Any, services: Mapping[str, Any]) -> str:
    if not isinstance(given, Mapping):
        return str(given)
    service, name = given["service"], given["name"]
    found = ((services.get(service) or {}).get("certificate") or {}).get(name)
    if not found:
        raise AnsibleFilterError(f"fleet_services.{service}.certificate.{name} is missing")
    return str(found)


class FilterModule:
    def filters(self) -> dict[str, Callable[..., Any]]:
        return {"with_provided": with_provided}
