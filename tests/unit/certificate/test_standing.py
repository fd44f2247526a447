"""What status.yml says of certificates."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate import host
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate.standing import standing

from .conftest import Runner


@pytest.fixture
def placeholder(runner: Runner, tmp_path: Path) -> Any:
    """A certificate that a host has signed itself."""
    openssl = host.Openssl(runner)
    folder = tmp_path / "tls" / "api.example.com"
    folder.mkdir(parents=True)
    openssl.new_key(folder / "privkey.pem")
    (folder / "fullchain.pem").write_text(openssl.placeholder(folder / "privkey.pem", ["api.example.com"]))
    return openssl


def test_a_placeholder_is_told_from_a_certificate(placeholder: Any, tmp_path: Path) -> None:
    (entry,) = standing(tmp_path / "tls", placeholder, now=time.time())
    assert (entry["name"], entry["days_left"]) == ("api.example.com", host.PLACEHOLDER_DAYS - 1)
    assert entry["health"].startswith("placeholder")


@pytest.mark.parametrize(("after", "health"), [(1, "5 days left"), (host.PLACEHOLDER_DAYS, "expired")])
def test_days(placeholder: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, after: int, health: str) -> None:
    monkeypatch.setattr(
        "ansible_collections.selfhost.fleet.plugins.module_utils.certificate.standing.PLACEHOLDER", "someone else"
    )
    (entry,) = standing(tmp_path / "tls", placeholder, now=time.time() + after * host.DAY + 60)
    assert entry["health"] == health


def test_what_is_no_certificate(placeholder: Any, tmp_path: Path) -> None:
    (tmp_path / "tls" / "api.example.com" / "fullchain.pem").write_text("spoiled")
    (entry,) = standing(tmp_path / "tls", placeholder, now=0)
    assert entry["health"] == "cannot be read"
    assert standing(tmp_path / "none", placeholder, now=0) == []
