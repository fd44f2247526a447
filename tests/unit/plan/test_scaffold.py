"""A definition from answers: accepted by the plan as it is, and never from answers that are wrong."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.selfhost.fleet.plugins.module_utils.plan import scaffold
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.findings import Findings

from .fixtures import one_host, plan

GOOD = {"name": "notes", "program": "/srv/notes", "version": "1.4.0", "domain": "notes.example.com"}
KINDS = [
    {},
    {"program": "https://example.com/notes/{version}/notes-{architecture}.tar.gz"},
    {"program": "ntfy", "version": ""},
    {"program": "ntfy", "version": "2.11.0"},
]
WISHES = [
    {},
    {"database": "yes", "state": "Yes", "websocket": "/live", "health": "none", "version_arguments": "none"},
    {"name": "my-notes"},
    {"websocket": "/", "arguments": "serve --motto 'a \"b\" $c %d' --listen {listen}:{port.http}", "name": "my-notes"},
]


def read(**changes: Any) -> tuple[scaffold.Answers, dict[str, str]]:
    findings = Findings()
    answers = scaffold.read({**GOOD, **changes}, known=["fluxbase"], ports=[8081, 8101], findings=findings)
    return answers, {finding.variable: f"{finding.problem} | {finding.remedy}" for finding in findings.items}


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("wish", WISHES, ids=str)
def test_the_plan_takes_the_definition_and_the_inventory_s_lines_as_they_are(
    tmp_path: Path, kind: dict[str, str], wish: dict[str, str]
) -> None:
    answers, refused = read(**kind, **wish)
    assert refused == {}
    (tmp_path / f"{answers.name}.yml").write_text(scaffold.definition(answers, "inventory"))
    entry = yaml.safe_load(scaffold.inventory_entry(answers))
    if "secrets" in entry[answers.name]:
        assert entry[answers.name]["secrets"] == "{{ fleet_secrets.notes }}"
        entry[answers.name]["secrets"] = {answers.password: "x7Kq2mWn9Rt4Lp8Zv3Bc6Yd1Hf5"}
    made = plan(one_host(fleet_services=entry), tmp_path)
    assert made.findings.items == []
    component = made.hosts["web1"]["components"][0]
    assert (component["slot"], component["ports"]) == ("blue", {"http": 8103})
    assert bool(made.hosts["web1"]["pooler"]) == (wish.get("database") == "yes")


def test_a_name_with_a_hyphen_is_no_attribute() -> None:
    entry = yaml.safe_load(scaffold.inventory_entry(read(name="my-notes", database="yes")[0]))
    assert entry["my-notes"]["secrets"] == '{{ fleet_secrets["my-notes"] }}'


def test_its_comments_have_the_inventory_s_lines_and_what_to_run() -> None:
    answers, _refused = read(database="yes")
    text = scaffold.definition(answers, "inventories/mine")
    comments = [line.removeprefix("#") for line in text.partition("\n---\n")[0].splitlines()]
    for line in scaffold.inventory_entry(answers).splitlines():
        assert any(comment.endswith(line) for comment in comments)
    for playbook in ("secrets", "plan", "site"):
        assert f"ansible-playbook -i inventories/mine --ask-vault-pass selfhost.fleet.{playbook}" in text


@pytest.mark.parametrize(
    ("changes", "remedy"),
    [
        ({"name": ""}, "such as notes"),
        ({"name": "Notes"}, "small letters"),
        ({"name": "postgres"}, "such as my-postgres"),
        ({"name": "fluxbase"}, "Choose another name"),
        ({"program": ""}, "an https address, the path of a file"),
        ({"program": "http://example.com/x"}, "one of these three"),
        ({"program": "./notes"}, "a file needs its whole path"),
        ({"version": ""}, "such as 1.4.0"),
        ({"version": "distribution"}, "such as 1.4.0"),
        ({"arguments": "--motto 'a"}, "Close the quotation"),
        ({"port": "80"}, "from 1024"),
        ({"port": "eighty"}, "from 1024"),
        ({"port": "8100"}, "chosen that is free"),
        ({"health": "health"}, "begins with /"),
        ({"websocket": "yes"}, "begins with /"),
        ({"state": "maybe"}, "yes or no"),
        ({"database": "sqlite"}, "yes or no"),
        ({"domain": "https://notes.example.com"}, "such as notes.example.com"),
        ({"domain": ""}, "such as notes.example.com"),
        ({"hosts": "my group"}, "such as app"),
    ],
    ids=str,
)
def test_a_wrong_answer_is_named_with_what_to_write(changes: dict[str, str], remedy: str) -> None:
    (name,) = changes
    refused = read(**changes)[1]
    assert list(refused) == [f"new_service_{name}"]
    assert remedy in refused[f"new_service_{name}"]


def test_all_wrong_answers_are_named_at_once() -> None:
    refused = read(name="", domain="", port="0")[1]
    assert sorted(refused) == ["new_service_domain", "new_service_name", "new_service_port"]
