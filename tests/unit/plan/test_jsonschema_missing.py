"""A controller without jsonschema, which ansible-core does not bring, is told how to get it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.definitions import Definitions
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.findings import Findings

SERVICES = Path(__file__).resolve().parents[3] / "services"


def test_it_is_a_finding_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "jsonschema", None)
    findings = Findings()
    definitions = Definitions([SERVICES], SERVICES / "schema" / "definition.schema.json")
    assert definitions.load("fluxbase", findings) is None
    assert [(item.variable, item.problem) for item in findings.items] == [
        ("ansible_playbook_python", "lacks the library jsonschema")
    ]
    assert findings.items[0].remedy.endswith("-m pip install jsonschema")
