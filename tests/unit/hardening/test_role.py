"""The role's data: what is set on a real host, and that a container is told nothing that is its machine's."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.plugins.filter.core import combine
from ansible_collections.selfhost.fleet.plugins.module_utils.plan.hardening import ITEMS
from jinja2 import Environment

REPOSITORY = Path(__file__).resolve().parents[3]
ROLE = REPOSITORY / "roles" / "hardening"
VARS = yaml.safe_load((ROLE / "vars/main.yml").read_text())
DEFAULTS = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
NETWORK, KERNEL = VARS["__hardening_sysctl_network"], VARS["__hardening_sysctl_kernel"]


def render(template: str, **variables: Any) -> str:
    environment = Environment(trim_blocks=True, keep_trailing_newline=True)  # as config_set's
    environment.filters["combine"] = combine
    return environment.from_string((ROLE / "templates" / template).read_text()).render(VARS | DEFAULTS | variables)


def sysctl(*, container: bool, own: dict[str, Any] | None = None) -> dict[str, str]:
    text = render("sysctl.conf.j2", __hardening_container=container, hardening_sysctl=own or {})
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    return dict(line.split(" = ") for line in lines)


def test_a_real_host_has_the_full_set() -> None:
    found = sysctl(container=False)
    assert found == {key: str(value) for key, value in (NETWORK | KERNEL).items()}
    # Those that would matter most if they were lost.
    assert found["kernel.yama.ptrace_scope"] == "1"
    assert found["kernel.kptr_restrict"] == "2"
    assert found["fs.suid_dumpable"] == "0"


def test_a_container_sets_its_own_network_and_nothing_else() -> None:
    assert sysctl(container=True) == {key: str(value) for key, value in NETWORK.items()}
    assert [key for key in NETWORK if not key.startswith(("net.ipv4.", "net.ipv6."))] == []
    wish = {"kernel.panic": 10, "net.core.somaxconn": 1, "vm.swappiness": 1, "net.ipv4.tcp_syncookies": 2}
    assert set(sysctl(container=True, own=wish)) == set(NETWORK)
    assert sysctl(container=True, own=wish)["net.ipv4.tcp_syncookies"] == "2"


def test_a_setting_of_one_s_own_comes_last_and_null_leaves_one_out() -> None:
    found = sysctl(container=False, own={"net.ipv4.conf.*.rp_filter": 2, "kernel.sysrq": None, "kernel.panic": 10})
    assert found["net.ipv4.conf.*.rp_filter"] == "2"
    assert found["kernel.panic"] == "10"
    assert "kernel.sysrq" not in found


def test_every_line_of_the_audit_rules_is_one_that_auditctl_has() -> None:
    """A container's kernel does not let auditctl load or check rules: their form is held to here."""
    field = r"-F (arch=b(32|64)|(path|dir)=/\S+|perm=w?a|euid=0|egid=0|auid>=1000|auid!=unset)"
    rule = rf"-a always,exit( {field}| -S [a-z_,]+| -C [ug]id!=e[ug]id)+ -k [a-z]+"
    lines = [line for line in render("audit.rules.j2").splitlines() if line and not line.startswith("#")]
    assert len(lines) > 10
    assert [line for line in lines if not re.fullmatch(rf"{rule}|-b \d+|-f [012]", line)] == []
    # auditctl wants the architecture before the calls, whose numbers differ by it.
    calls = [line for line in lines if " -S " in line]
    assert [line for line in calls if not line.startswith("-a always,exit -F arch=")] == []


def test_a_module_is_blocked_by_name_and_by_need() -> None:
    lines = render("modprobe.conf.j2", hardening_blocked_modules=["sctp"]).splitlines()
    assert lines[1:] == ["blacklist sctp", "install sctp /bin/false"]


@pytest.mark.parametrize("item", ITEMS)
def test_every_item_is_in_the_document_with_its_reason(item: str) -> None:
    rows = [
        line for line in (REPOSITORY / "docs/hardening.md").read_text().splitlines() if line.startswith(f"| `{item}`")
    ]
    assert len(rows) == 1
    assert all(cell.strip() for cell in rows[0].strip("|").split("|"))
