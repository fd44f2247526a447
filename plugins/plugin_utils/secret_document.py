# GNU General Public License v3.0+ (see LICENSE)
"""A file of secrets as text: single values are put in, replaced and taken out, and every other character stays as it is.

The file is a person's as well (`ansible-vault edit`): its comments and its order are kept, which a YAML library that
reads and writes the whole would not do. No message here holds a value.
"""

from __future__ import annotations

import copy
import json
from typing import Any

import yaml

Data = dict[str, Any]
Path = tuple[str, ...]


class DocumentError(Exception):
    """A file that cannot be read or changed; the message says what to do."""


def load(text: str) -> Data:
    """The file as data."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" in line {mark.line + 1}" if mark else ""
        raise DocumentError(f"it is no YAML{where}") from None  # the error itself quotes the line
    if found is None:
        return {}
    if not isinstance(found, dict):
        raise DocumentError("it is not a mapping of variables")
    return found


def get(data: Data, path: Path) -> Any:
    """The value at a path; None where there is none."""
    found: Any = data
    for key in path:
        found = found.get(key) if isinstance(found, dict) else None
    return found


def put(text: str, path: Path, value: str) -> str:
    """The text with one value added or replaced."""
    before = load(text)
    expected = copy.deepcopy(before)
    place = expected
    for key in path[:-1]:
        below = place.setdefault(key, {})
        if not isinstance(below, dict):
            raise DocumentError(f"{key} is not a mapping")
        place = below
    place[path[-1]] = value
    if not before:
        return _proven(f"{text.rstrip()}\n".lstrip("\n") + _lines(path, value, 0), expected)
    node = _compose(text)
    for depth, key in enumerate(path):
        entry = _entry(node, key)
        if entry is None:
            return _proven(_inserted(text, node, _lines(path[depth:], value, _column(node))), expected)
        node = entry[1]
    return _proven(text[: node.start_mark.index] + json.dumps(value) + text[node.end_mark.index :], expected)


def drop(text: str, path: Path) -> str:
    """The text without one value, and without the mappings that held nothing else."""
    expected = copy.deepcopy(load(text))
    lines = text.splitlines(keepends=True)
    while path:
        held = get(expected, path[:-1])
        del held[path[-1]]
        key = _find(text, path)
        lines[key.start_mark.line] = ""
        if held:
            break
        path = path[:-1]
    return _proven("".join(lines), expected)


def _find(text: str, path: Path) -> yaml.Node:
    """The node of a key."""
    key = node = _compose(text)
    for name in path:
        entry = _entry(node, name)
        if entry is None:
            raise DocumentError(f"{'.'.join(path)} is not there")
        key, node = entry
    return key


def _compose(text: str) -> yaml.Node:
    node: yaml.Node | None = yaml.compose(text, Loader=yaml.SafeLoader)
    if node is None:
        raise DocumentError("it is empty")
    return node


def _entry(node: yaml.Node, key: str) -> tuple[yaml.Node, yaml.Node] | None:
    if not isinstance(node, yaml.MappingNode):
        raise DocumentError(f"there is no mapping where {key} belongs")
    return next((pair for pair in node.value if pair[0].value == key), None)


def _column(node: yaml.Node) -> int:
    return int(node.start_mark.column)


def _lines(path: Path, value: str, column: int) -> str:
    lines = [f"{' ' * (column + 2 * depth)}{key}:\n" for depth, key in enumerate(path[:-1])]
    # JSON's quoting is YAML's as well, and the same for every value.
    return "".join([*lines, f"{' ' * (column + 2 * (len(path) - 1))}{path[-1]}: {json.dumps(value)}\n"])


def _inserted(text: str, node: yaml.Node, lines: str) -> str:
    """After the last line of a mapping: before the first one, a comment would come to stand above the wrong key."""
    last = node
    while isinstance(last, yaml.MappingNode) and last.value:
        last = last.value[-1][1]
    kept = text.splitlines(keepends=True)
    kept[last.end_mark.line] = kept[last.end_mark.line].rstrip("\n") + "\n" + lines
    return "".join(kept)


def _proven(text: str, expected: Data) -> str:
    try:
        same = load(text) == expected
    except DocumentError:
        same = False
    if not same:
        raise DocumentError(
            "it is written in a way that cannot be changed line by line: write each mapping over several lines, without { } and anchors"
        )
    return text
