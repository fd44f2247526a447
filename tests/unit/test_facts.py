"""Facts of the collection's own modules: Ansible makes variables of them, unless its configuration says otherwise."""

from __future__ import annotations

import re
from pathlib import Path

from ansible_collections.selfhost.fleet.plugins.plugin_utils.inventory import NOT_FLEET_WIDE

PLUGINS = Path(__file__).resolve().parents[2] / "plugins"


def test_no_fact_of_a_host_is_taken_for_a_variable_of_the_fleet() -> None:
    named = {fact for path in PLUGINS.rglob("*.py") for fact in re.findall(r'_FACT = "(fleet_\w+)"', path.read_text())}
    assert {"fleet_serving", "fleet_pools"} <= named
    assert named <= NOT_FLEET_WIDE
