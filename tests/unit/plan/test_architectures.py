"""Hosts of two architectures: each has the file and the checksum of its own."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from .fixtures import CHECKSUM, SEVERAL_HOSTS, fluxbase, plan, three_tiers

ARM = "sha256:" + "cd" * 32
BOTH = {"amd64": CHECKSUM, "arm64": ARM}


def fleet(arm: tuple[str, ...] = ("app2",), **entry: Any) -> Any:
    wanted = {"settings": SEVERAL_HOSTS, "release": {"checksum": BOTH}, "companions": deno(BOTH), **entry}
    inventory = three_tiers(fleet_services={"fluxbase": fluxbase(**wanted)})
    for name in arm:
        inventory.hosts[name] = dataclasses.replace(inventory.hosts[name], architecture="arm64")
    return plan(inventory)


def deno(checksum: Any) -> dict[str, Any]:
    return {"deno": {"version": "2.9.0", "checksum": checksum}}


def problems(made: Any) -> dict[str, str]:
    return {finding.variable: f"{finding.problem} | {finding.remedy}" for finding in made.findings.items}


def test_each_host_has_its_own_file() -> None:
    made = fleet()
    assert problems(made) == {}
    for host, names, checksum in (("app1", ("amd64", "x86_64"), CHECKSUM), ("app2", ("arm64", "aarch64"), ARM)):
        component = made.hosts[host]["components"][0]
        (companion,) = component["companions"]
        assert component["release"]["source"].endswith(f"fluxbase-server-linux-{names[0]}.tar.gz")
        assert companion["source"].endswith(f"/v2.9.0/deno-{names[1]}-unknown-linux-gnu.zip")
        assert component["release"]["checksum"] == companion["checksum"] == checksum


@pytest.mark.parametrize(
    ("entry", "variable", "words"),
    [
        (
            {"release": {"checksum": {"amd64": CHECKSUM}}},
            "release.checksum.arm64",
            "is missing, and app2 is of that architecture | Add it, or run fluxbase on hosts with amd64",
        ),
        ({"companions": deno({"amd64": CHECKSUM})}, "companions.deno.checksum.arm64", "app2 is of that architecture"),
        (
            {"release": {"checksum": CHECKSUM}},
            "release.checksum",
            "is of one file, and there is one for each of amd64, arm64 | Write it by architecture: {amd64: sha256:...,",
        ),
        ({"companions": deno(CHECKSUM)}, "companions.deno.checksum", "is of one file"),
        ({"release": {"checksum": {**BOTH, "riscv64": ARM}}}, "release.checksum.riscv64", "Known are: amd64, arm64"),
        ({"release": {"checksum": {**BOTH, "arm64": "cd"}}}, "release.checksum.arm64", "does not match"),
        ({"release": {"checksum": {}}}, "release.checksum", "should be non-empty"),
    ],
)
def test_a_host_without(entry: dict[str, Any], variable: str, words: str) -> None:
    found = problems(fleet(**entry))
    assert list(found) == [f"fleet_services.fluxbase.{variable}"]
    assert words in found[f"fleet_services.fluxbase.{variable}"]


def test_one_checksum_is_enough_for_one_architecture() -> None:
    everywhere = ("app1", "app2", "app3")
    made = fleet(everywhere, release={"checksum": ARM}, companions=deno({"arm64": ARM}))
    assert problems(made) == {}
    assert made.hosts["app3"]["components"][0]["companions"][0]["checksum"] == ARM


def test_one_file_for_both_is_the_inventorys_to_know() -> None:
    script = {"source": "https://example.com/fluxbase.sh", "checksum": CHECKSUM}
    assert problems(fleet(release=script)) == {}
