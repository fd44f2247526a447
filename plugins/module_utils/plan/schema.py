# GNU General Public License v3.0+ (see LICENSE)
"""What a JSON Schema says against a document, in the words of findings; and the inventory without what it refuses."""

from __future__ import annotations

import copy
import dataclasses
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .findings import Findings
from .model import Data, Inventory

if TYPE_CHECKING:
    from jsonschema import ValidationError

REMEDY = "See the schema in services/schema"
# A type of JSON Schema in words, and how it is written in YAML.
TYPES = {
    "object": ("a mapping", "Write its keys below it, indented: name: value"),
    "array": ("a list", "Write it as a list: [first, second]"),
    "string": ("a text", "Put it in quotes"),
    "integer": ("a whole number", "Write the number, without quotes"),
    "number": ("a number", "Write the number, without quotes"),
    "boolean": ("true or false", "Write true or false, without quotes"),
    "null": ("nothing", "Leave it empty"),
}
LIBRARY = "ansible_playbook_python"  # the variable, in effect, that says which Python needs it
# jsonschema's messages quote the value, and below these keys it may be a secret.
NEVER_QUOTED = ("secrets", "certificate", "fleet_notify")


def schema_findings(schema: Data, document: object, prefix: str, findings: Findings) -> None:
    """Every mistake, named by `prefix` and its path in the document."""
    for error in _errors(schema, document, findings):
        _report(error, prefix, findings)


def accepted(schema: Data, inventory: Inventory, findings: Findings) -> Inventory:
    """The inventory without the values that the schema refuses, so that all the rest can be looked at as it is meant.

    What a list refuses takes the whole list with it: later findings name its items by number. Missing and unknown keys stay
    as they are.
    """
    variables: Any = copy.deepcopy(inventory.variables)
    known = len(findings.items)
    for error in _errors(schema, inventory.variables, findings):
        _report(error, "", findings)
        if error.validator not in ("additionalProperties", "required"):
            _take_out(variables, list(error.absolute_path), _as_text(error))
    if any(finding.variable == LIBRARY for finding in findings.items[known:]):
        variables = {}  # nothing is known of any value
    return dataclasses.replace(inventory, variables=variables)


def _errors(schema: Data, document: object, findings: Findings) -> Iterator[ValidationError]:
    try:
        from jsonschema import (
            Draft202012Validator,
        )  # of all that the controller needs, what ansible-core does not bring
    except ModuleNotFoundError:
        remedy = f"Install it: {sys.executable} -m pip install jsonschema"
        findings.add(LIBRARY, "lacks the library jsonschema", remedy)
        return
    yield from Draft202012Validator(schema).iter_errors(document)


def _report(error: ValidationError, prefix: str, findings: Findings) -> None:
    path = ".".join([prefix, *(str(part) for part in error.absolute_path)]).strip(".")
    if error.validator == "additionalProperties" and isinstance(error.schema, dict):
        known = sorted(error.schema.get("properties", {}))
        instance = error.instance if isinstance(error.instance, dict) else {}
        for key in sorted(set(instance) - set(known)):
            findings.add(f"{path}.{key}".strip("."), "is no known key", f"Known are: {', '.join(known)}")
    elif error.validator == "required":
        missing = str(error.message).split("'")[1]
        findings.add(f"{path}.{missing}".strip("."), "is missing", "Set it")
    elif error.instance is None:
        findings.add(path, "is empty", "Fill it in, or take the line out")
    elif error.validator == "type":
        wanted = [error.validator_value] if isinstance(error.validator_value, str) else list(error.validator_value)
        words = " or ".join(TYPES[each][0] for each in wanted)
        remedy = TYPES[wanted[0]][1] if len(wanted) == 1 else f"Write {words}"
        findings.add(path, f"is {_kind(error.instance)}, and has to be {words}", remedy)
    elif any(key in error.absolute_path for key in NEVER_QUOTED):
        findings.add(path, "is not as it has to be", REMEDY)
    else:
        findings.add(path, error.message, REMEDY)


def _kind(value: object) -> str:
    """The type of a value in words; never the value, which may hold a secret."""
    if isinstance(value, bool):
        return str(value).lower()
    kinds = {dict: "a mapping", list: "a list", str: "a text", int: "a number", float: "a number"}
    return next((words for kind, words in kinds.items() if isinstance(value, kind)), "of another kind")


def _as_text(error: ValidationError) -> str | None:
    """A number where a text is wanted, as `version: 2026.3`, is understood all the same."""
    number = isinstance(error.instance, (int, float)) and not isinstance(error.instance, bool)
    return str(error.instance) if number and error.validator == "type" and error.validator_value == "string" else None


def _take_out(document: Any, path: Sequence[str | int], instead: str | None) -> None:
    """The value at a path goes, or is replaced; an item of a list cannot go alone."""
    while instead is None and path and isinstance(path[-1], int):
        path = path[:-1]
    with suppress(KeyError, IndexError):  # it went with what it is part of
        for part in path[:-1]:
            document = document[part]
        if instead is None:
            del document[path[-1]]
        else:
            document[path[-1]] = instead
