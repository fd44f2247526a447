"""Words that nothing fills in, ports and databases that are not there: refused by the plan, and not found by a run in its middle."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.definitions import merge

from .fixtures import CHECKSUM, fluxbase, one_host, plan, three_tiers

NOTES: dict[str, Any] = {
    "name": "notes",
    "description": "for a test",
    "components": {
        "server": {
            "command": ["{executable}", "--at={listen}:{port.http}"],
            "release": {"address": "https://example.com/{version}/{architecture}.tar.gz", "executable": "notes"},
            "ports": {"http": {"blue": 8181, "green": 8182}},
            "settings": {"URL": "https://{domain}", "LOG": "{level} {hostname} ${HOME}"},
        }
    },
    "routes": [{"path": "/", "kind": "http"}],
    "secrets": {"NOTES_TOKEN": {"required": False}},
    "contracts": [{"versions": ">=1"}],
}
ENTRY = {"version": "1.0", "domain": "notes.example.com", "hosts": "app", "release": {"checksum": CHECKSUM}}
SERVER = "services/notes.yml.components.server"


def refused(folder: Path, definition: dict[str, Any] | None = None, **entry: Any) -> dict[str, str]:
    folder.joinpath("notes.yml").write_text(yaml.safe_dump(merge(copy.deepcopy(NOTES), definition or {})))
    found = plan(one_host(fleet_services={"notes": {**ENTRY, **entry}}), folder).findings.items
    return {finding.variable: f"{finding.problem} | {finding.remedy}" for finding in found}


def server(**changes: Any) -> dict[str, Any]:
    return {"components": {"server": changes}}


def config(text: str) -> dict[str, Any]:
    return {"path": "/etc/notes/notes.yml", "format": "yaml", "content": {"a": [{"b": text}]}}


def test_words_of_the_programs_own_are_its_own(tmp_path: Path) -> None:
    assert refused(tmp_path) == {}


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{secret.NOSUCH}", "no such secret of notes 1.0 | Take one of: {secret.NOTES_TOKEN}"),
        ("{port.nosuch}", "no such port of server | Take one of: {port.http}"),
        ("{port.}", "no such port of server"),
        ("{database.host}", "no such word of a database of notes 1.0"),
        ("x{port}", "has {port}, which nothing fills in there | Take one of: {domain}"),
        ("{ports.http}", "has {ports.http}, which nothing fills in there"),
        ("{listen.http}", "has {listen.http}, which nothing fills in there"),
        ("{executable}", "has {executable}, which nothing fills in there"),
    ],
)
def test_in_settings_of_either(tmp_path: Path, text: str, words: str) -> None:
    own = refused(tmp_path, server(settings={"WORD": text}))
    assert list(own) == [f"{SERVER}.settings.WORD"] and words in own[f"{SERVER}.settings.WORD"]
    inventory = refused(tmp_path, settings={"WORD": text})
    assert list(inventory) == ["fleet_services.notes.settings.WORD"]
    assert inventory["fleet_services.notes.settings.WORD"] == own[f"{SERVER}.settings.WORD"]


@pytest.mark.parametrize("text", ["{secret.NOSUCH}", "{database.nosuch}", "{versions.x}{version.x}"])
def test_in_a_configuration_file_of_either(tmp_path: Path, text: str) -> None:
    assert list(refused(tmp_path, server(config=config(text)))) == [f"{SERVER}.config.content.a.0.b"]
    found = refused(tmp_path, server(config=config("x")), config={"c": text})
    assert list(found) == ["fleet_services.notes.config.c"]


def test_a_port_and_the_slot_in_a_configuration_file(tmp_path: Path) -> None:
    assert refused(tmp_path, server(config=config("{slot}")), config={"c": "{port.http}"}) == {}


@pytest.mark.parametrize(
    ("key", "words"), [("command", ["{executable}", "{database.name}"]), ("migrate", ["{executable}", "{listen.x}"])]
)
def test_in_commands(tmp_path: Path, key: str, words: list[str]) -> None:
    assert list(refused(tmp_path, server(**{key: words}))) == [f"{SERVER}.{key}"]


def test_in_the_address_of_a_release(tmp_path: Path) -> None:
    found = refused(tmp_path, server(release={"address": "https://example.com/{port.http}"}))
    assert "Take one of: {version}, {architecture}, {machine}" in found[f"{SERVER}.release.address"]


def test_a_word_of_a_database_that_is_there(tmp_path: Path) -> None:
    database = {"database": {"connections": 1}, "secrets": {"NOTES_DATABASE_PASSWORD": {}}}
    password = {"NOTES_DATABASE_PASSWORD": "x7Kq2mWn9Rt4Lp8Zv3Bc6Yd1Hf5"}
    found = refused(tmp_path, {**database, **server(settings={"DB": "{database.nosuch}"})}, secrets=password)
    assert "Take one of: {database.host}, {database.port}" in found[f"{SERVER}.settings.DB"]
    assert refused(tmp_path, {**database, **server(settings={"DB": "{database.name}"})}, secrets=password) == {}


def test_a_secret_that_a_setting_needs_is_no_longer_one_that_may_be_left_out(tmp_path: Path) -> None:
    changed = server(settings={"TOKEN": "{secret.NOTES_TOKEN}"})
    assert (
        "is missing, and services/notes.yml" in refused(tmp_path, changed)["fleet_services.notes.secrets.NOTES_TOKEN"]
    )
    assert refused(tmp_path, changed, secrets={"NOTES_TOKEN": "x7Kq2mWn9Rt4Lp8Zv3Bc6Yd1Hf5"}) == {}


@pytest.mark.parametrize(
    ("definition", "variable", "words"),
    [
        (
            {"routes": [{"path": "/", "kind": "http", "component": "ui"}]},
            "services/notes.yml.routes.0.component",
            "/ is answered by ui, which is no component | Name one that is there, or take one of: server",
        ),
        (
            {
                "components": {
                    "worker": {
                        "release": {"package": "cron-x"},
                        "ports": {"web": {"blue": 1, "green": 2}},
                        "probe": {"port": "web"},
                    }
                },
                "routes": [{"path": "/x", "kind": "http", "component": "worker"}, {"path": "/", "kind": "http"}],
            },
            "services/notes.yml.routes.0.component",
            "has no port called http | Call the port http at which worker takes requests, or name as component one of: server",
        ),
        (server(probe={"port": "admin"}), f"{SERVER}.probe.port", "is admin, and server has no such port"),
        (server(ports={"http": None}, command=None), f"{SERVER}.probe.port", "is http, and server has no such port"),
    ],
    ids=["component", "http", "probe", "none"],
)
def test_nobody_listens_there(tmp_path: Path, definition: dict[str, Any], variable: str, words: str) -> None:
    found = refused(tmp_path, definition, release=ENTRY["release"])
    assert words in found[variable]


def test_a_closed_route_has_no_component(tmp_path: Path) -> None:
    routes = [{"path": "/x", "kind": "closed", "component": "nobody"}, {"path": "/", "kind": "http"}]
    assert refused(tmp_path, {"routes": routes}) == {}


@pytest.mark.parametrize(
    ("paths", "wrong"),
    [
        (["/a/b", "/a/", "/ab", "/"], None),
        (["/", "/a"], None),
        (["/a/", "/a/b", "/"], 1),
        (["/a", "/A/", "/"], 1),
        (["/a", "/", "/"], 2),
    ],
)
def test_a_route_behind_a_broader_one(tmp_path: Path, paths: list[str], wrong: int | None) -> None:
    found = refused(tmp_path, {"routes": [{"path": path, "kind": "http"} for path in paths]})
    assert list(found) == ([] if wrong is None else [f"services/notes.yml.routes.{wrong}.path"])
    assert all("is never reached: /" in text for text in found.values())


@pytest.mark.parametrize("key", ["name", "user"])
def test_two_services_in_one_database(tmp_path: Path, key: str) -> None:
    database = {"name": "notes", "user": "notes", key: "fluxbase"}
    needs = {"database": database, "secrets": {"NOTES_DATABASE_PASSWORD": {}}}
    refused(tmp_path, needs)
    password = {"NOTES_DATABASE_PASSWORD": "x7Kq2mWn9Rt4Lp8Zv3Bc6Yd1Hf5"}
    services = {"fluxbase": fluxbase(), "notes": {**ENTRY, "secrets": password}}
    (finding,) = plan(one_host(fleet_services=services), tmp_path).findings.items
    assert finding.variable == f"services/notes.yml.database.{key}"
    assert finding.problem == "is fluxbase, and that is fluxbase's already"
    assert finding.remedy == "Give each service its own; notes is the default"


@pytest.mark.parametrize(
    ("ports", "variable", "words"),
    [
        ({"server": {"htpp": {"blue": 8181}}}, "server.htpp", "is no port of server | Known are: http"),
        ({"server": {"http": {"bleu": 8181}}}, "server.http.bleu", "is no slot | Known are: blue, green"),
        ({"sever": {}}, "sever", "is no component | Known are: server"),
    ],
)
def test_ports_of_the_inventory(tmp_path: Path, ports: dict[str, Any], variable: str, words: str) -> None:
    assert refused(tmp_path, ports=ports) == {f"fleet_services.notes.ports.{variable}": words}


@pytest.mark.parametrize("source", ["office.example.com", "203.0.113.1/24", 7])
def test_who_may_come_by_ssh(source: Any) -> None:
    found = plan(one_host(fleet_ssh_sources=["any", "203.0.113.0/24", source])).findings.items
    assert [finding.variable for finding in found] == ["fleet_ssh_sources.2"] * len(found)
    assert found and ("Write an address" in found[-1].remedy)


def test_the_examples_have_no_such_words() -> None:
    assert not plan(three_tiers(fleet_ssh_sources=["203.0.113.0/24", "2001:db8::1"])).findings
