"""The pages of docs/reference: Ansible's markup, tables, playbooks."""

from __future__ import annotations

from typing import Any

import pytest

from docs.make_reference import (
    differences,
    first_sentence,
    index_page,
    markdown,
    playbook_page,
    plugin_page,
    role_page,
    table,
)

PLAYBOOK = """\
# Gives a secret a new value. The old one goes on working.
#   ansible-playbook selfhost.fleet.rotate -e secret=NAME
# Interrupted, the same command finishes it.
# - secret: Which one, as C(service.NAME).
# - wait: Seconds to wait.
---
# Not of the header: - inner: nothing
- name: Begin
  hosts: all
  tasks:
    - name: Plan <it>
      selfhost.fleet.plan: {rotate: "{{ secret }}", path: "{{ path | default(omit) }}", wait: "{{ wait | default(30) }}"}
- name: The rest
  ansible.builtin.import_playbook: site.yml
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("Mode C(0755), V(a|b)", "Mode `0755`, `a|b`"),
        ("With O(files[].secret=true) see RV(ok)", "With `files[].secret: true` see `ok`"),
        (
            "M(selfhost.fleet.probe) is not M(ansible.builtin.wait_for)",
            "[probe](../modules/probe.md) is not `ansible.builtin.wait_for`",
        ),
        ("P(selfhost.fleet.edge#role)", "[edge](../roles/edge.md)"),
        ("P(ansible.builtin.env#lookup)", "`ansible.builtin.env`"),
        (
            "L(here, https://example.com/) or U(https://example.com/)",
            "[here](https://example.com/) or <https://example.com/>",
        ),
        ("B(never) I(once)", "**never** *once*"),
        (r"C(f\(x\)) and C(a`b)", "`f(x)` and ``a`b``"),
        ("a <name> of *.conf", r"a \<name> of \*.conf"),
        ("HTTP(S) is no markup", "HTTP(S) is no markup"),
    ],
)
def test_markup(text: str, wanted: str) -> None:
    assert markdown(text) == wanted


def test_a_bar_does_not_end_a_cell() -> None:
    assert table(["name"], [["`a | b`"]]) == "| name |\n| --- |\n| `a \\| b` |\n"


def test_a_module() -> None:
    data: dict[str, Any] = {
        "doc": {
            "short_description": "Does it",
            "description": ["First.", "Second, see O(files)."],
            "requirements": ["root"],
            "notes": ["Slow."],
            "options": {
                "late": {"type": "float", "default": 0.5, "description": "Seconds."},
                "files": {
                    "type": "list",
                    "elements": "dict",
                    "required": True,
                    "description": ["Files.", "All of them."],
                    "suboptions": {"path": {"type": "path", "required": True, "choices": ["/a", "/b"]}},
                },
            },
            "attributes": {"check_mode": {"support": "full", "description": "Says.", "details": ["What."]}},
        },
        "examples": "\n- name: Do it\n  selfhost.fleet.doing:\n",
        "return": {
            "made": {
                "type": "dict",
                "returned": "success",
                "description": "What.",
                "sample": {"a": 1},
                "contains": {"a": {"type": "int"}},
            }
        },
    }
    assert plugin_page("doing", "module", "plugins/modules/doing.py", data) == (
        """\
<!-- Made by docs/make_reference.py from plugins/modules/doing.py. Change that, then: make docs -->

# selfhost.fleet.doing (module)

Does it.

First.

Second, see `files`.

## Needs

- root

## Options

| name | type | default | meaning |
| --- | --- | --- | --- |
| `files` | list of dict | required | Files.<br>All of them. |
| `files[].path` | path | required | One of `"/a"`, `"/b"`. |
| `late` | float | `0.5` | Seconds. |

## Attributes

| attribute | support | meaning |
| --- | --- | --- |
| `check_mode` | full | Says.<br>What. |

## Notes

- Slow.

## Examples

```yaml
- name: Do it
  selfhost.fleet.doing:
```

## Returns

| name | type | returned | meaning |
| --- | --- | --- | --- |
| `made` | dict | success | What.<br>For example `{"a": 1}`. |
| `made.a` | int |  |  |
"""
    )


def test_a_role_has_its_entry_points() -> None:
    spec = {
        "short_description": "Runs it",
        "description": "All of it.",
        "options": {"edge_ipv6": {"type": "bool", "default": True}},
    }
    text = role_page(
        "edge",
        "roles/edge/meta/argument_specs.yml",
        {"entry_points": {"main": spec, "stop": {"short_description": "Stops it"}}},
    )
    assert "Runs it.\n\nAll of it.\n\n## Variables\n" in text
    assert "| `edge_ipv6` | bool | `true` |  |" in text
    assert text.endswith("## Entry point stop\n\nStops it.\n")


def test_a_playbook_is_described_by_its_first_comment() -> None:
    assert playbook_page("rotate", "playbooks/rotate.yml", PLAYBOOK).partition("\n\n")[2] == (
        """\
# selfhost.fleet.rotate (playbook)

Gives a secret a new value. The old one goes on working.

    ansible-playbook selfhost.fleet.rotate -e secret=NAME

Interrupted, the same command finishes it.

## Variables

| name | default | meaning |
| --- | --- | --- |
| `path` |  |  |
| `secret` | required | Which one, as `service.NAME`. |
| `wait` | `30` | Seconds to wait. |

## Plays

Begin, on `all`:

1. Plan \\<it>

- The rest
"""
    )


def test_the_index_has_the_first_sentence() -> None:
    summary = first_sentence(["Shows the plan: all of it. Touches", "no host.", "  ansible-playbook x"])
    assert summary == "Shows the plan"
    assert (
        "## Playbooks\n\n| name | what it does |\n| --- | --- |\n| [plan](playbooks/plan.md) | Shows the plan |\n"
        in index_page([("Playbooks", [("playbooks/plan.md", summary)])])
    )


def test_what_is_new_changed_or_gone_is_a_difference() -> None:
    assert differences({"a.md": "one\n"}, {"a.md": "one\n"}) == ""
    said = differences({"a.md": "two\n", "b.md": "new\n"}, {"a.md": "one\n", "c.md": "gone\n"})
    assert [line for line in said.splitlines() if line[0] in "+-" and line[:3] not in ("+++", "---")] == [
        "-one",
        "+two",
        "+new",
        "-gone",
    ]
