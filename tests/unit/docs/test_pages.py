"""The pages that README points to are there, and what they tell a user to write is what the plan takes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.model import Host, Inventory

from tests.unit.plan.fixtures import CHECKSUM, SECRETS, plan

ROOT = Path(__file__).resolve().parents[3]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(path for path in DOCS.rglob("*.md") if "reference" not in path.parts)]
LINK = re.compile(r"\[[^\]]+\]\(([^)#\s]+)(?:#[^)]*)?\)")


def blocks(page: Path, language: str) -> list[str]:
    """What stands between fences of a language."""
    return re.findall(rf"^```{language}\n(.*?)^```$", page.read_text(), re.M | re.S)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_to_one(page: Path) -> None:
    links = [link for link in LINK.findall(page.read_text()) if "://" not in link]
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_page_is_found_from_the_readme() -> None:
    found, todo = set(), [ROOT / "README.md"]
    while todo:
        page = todo.pop()
        if page not in found and page.suffix == ".md":
            found.add(page)
            todo += [(page.parent / link).resolve() for link in LINK.findall(page.read_text()) if "://" not in link]
    # A link to the folder of decisions is a link to each.
    assert [page for page in PAGES if page not in found and page.parent.name != "decisions"] == []


def test_the_architecture_draws_every_role_in_the_order_of_the_site() -> None:
    (drawn,) = blocks(DOCS / "architecture.md", "mermaid")
    order = re.findall(r"selfhost\.fleet\.(\w+)\}", (ROOT / "playbooks" / "site.yml").read_text())
    # By its first call: what goes may want another one at the end.
    assert " --> ".join(dict.fromkeys(order)) in drawn


def test_the_fleet_in_ten_lines_is_a_fleet() -> None:
    inventory, fleet = ten_lines()
    hosts = yaml.safe_load(inventory)["all"]
    host = Host("web1", hosts["hosts"]["web1"]["ansible_host"], os=hosts["vars"]["fleet_os"])
    variables = {"fleet_services": filled_in(yaml.safe_load(fleet)["fleet_services"])}
    groups = {"all": ["web1"], **{name: list(group["hosts"]) for name, group in hosts["children"].items()}}
    assert plan(Inventory({"web1": host}, groups, variables)).findings.items == []


def ten_lines() -> list[str]:
    """The hosts, and the services on them."""
    texts = blocks(DOCS / "a-real-fleet.md", "yaml")[:2]
    assert all(len([line for line in text.splitlines() if not line.startswith("#")]) <= 10 for text in texts)
    return texts


def filled_in(services: dict[str, Any]) -> dict[str, Any]:
    """With what the page leaves to its reader."""
    entry = services["fluxbase"]
    assert entry["secrets"] == "{{ fleet_secrets.fluxbase }}"
    assert entry["release"]["checksum"] == "sha256:..."
    deno = {**entry["companions"]["deno"], "checksum": CHECKSUM}
    return {"fluxbase": {**entry, "secrets": SECRETS, "release": {"checksum": CHECKSUM}, "companions": {"deno": deno}}}
