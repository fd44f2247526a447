"""Secrets that are made pass the rules that they are checked by, whatever those are."""

from __future__ import annotations

import random
from typing import Any

import pytest
import yaml
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.generate import GenerateError, generate
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.secrets import problem

from .fixtures import SERVICES

SHIPPED = [
    pytest.param(rule, id=f"{path.stem}-{number}-{name}")
    for path in sorted(SERVICES.glob("*.yml"))
    for definition in [yaml.safe_load(path.read_text())]
    for number, part in enumerate([definition, *definition["contracts"]])
    for name, rule in (part.get("secrets") or {}).items()
]


@pytest.mark.parametrize("rule", SHIPPED)
def test_every_rule_that_comes_with_the_collection_is_kept(rule: dict[str, Any]) -> None:
    made = {generate(rule) for _turn in range(50)}
    assert len(made) == 50
    assert [problem(value, rule) for value in made] == [None] * 50


def some_rule(source: random.Random) -> dict[str, Any]:
    """A rule that can be kept: entropy no higher than the length and the alphabet allow."""
    alphabet, characters = source.choice(
        [
            (None, 62),
            ("0-9a-f", 16),
            ("A-Za-z0-9_-", 62),
            ("0-9", 10),
            ("ab", 2),
            ("!-~", 62),
            (r"\w", 62),
            ("^a-z", 36),
        ]
    )
    size = source.randint(16, 80)
    rule: dict[str, Any] = {source.choice(["length", "min_length"]): size}
    if alphabet:
        rule["alphabet"] = alphabet
    most = min(characters, size).bit_length() - 1
    rule["entropy"] = source.uniform(0, most) * 0.98
    return rule


@pytest.mark.parametrize("seed", range(300))
def test_odd_rules_are_kept(seed: int) -> None:
    source = random.Random(seed)
    rule = some_rule(source)
    value = generate(rule, source)
    assert problem(value, rule) is None, rule
    assert value.isascii() and value.isprintable() and " " not in value
    assert not {"{{", "{%", "{#"} & {value[at : at + 2] for at in range(len(value))}


def test_one_that_is_refused_is_not_made() -> None:
    rule = {"length": 1, "alphabet": "ab", "refused": ["a"], "entropy": 0}
    assert {generate(rule) for _turn in range(20)} == {"b"}


@pytest.mark.parametrize(
    "rule",
    [
        {"alphabet": "a"},
        {"alphabet": "é"},
        {"length": 8, "entropy": 3.5},
        {"alphabet": "ab", "entropy": 1.5},
        {"length": 1, "alphabet": "ab", "refused": ["a", "b"], "entropy": 0},
    ],
)
def test_a_rule_that_nothing_keeps_is_an_error_and_no_endless_search(rule: dict[str, Any]) -> None:
    with pytest.raises(GenerateError):
        generate(rule)


def test_an_open_length_gives_256_bits() -> None:
    assert len(generate({"alphabet": "0-9a-f"})) == 64
    assert len(generate({})) == 43
