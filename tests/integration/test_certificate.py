"""Keys and certificates on real hosts, signed by an authority in a temporary folder of the controller."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible

MODULE = "selfhost.fleet.certificate"
FOLDER = "/etc/selfhost/tls/api.example.com"
DISTRIBUTIONS = ["debian-13", "debian-12"]
# Counts its reloads, and refuses them when it is told to.
READER = """\
[Service]
ExecStart=/bin/sleep infinity
ExecReload=/bin/sh -c 'test ! -e /run/refuse && echo reloaded >> /run/reloads'
"""


def certificate(**changes: Any) -> dict[str, Any]:
    return {
        "name": "api.example.com",
        "domains": ["api.example.com"],
        "addresses": ["2001:db8::1", "192.0.2.1"],
        "mode": "local_ca",
        "directory": FOLDER,
        "owner": "root",
        "group": "root",
        "reload": ["reader.service"],
        **changes,
    }


def fingerprint(host: Host, folder: str = FOLDER) -> str:
    return host.root(f"cat {folder}/privkey.pem {folder}/fullchain.pem | sha256sum").stdout


def reloads(host: Host) -> int:
    return len(host.root("touch /run/reloads; cat /run/reloads").stdout.splitlines())


@pytest.fixture(scope="module", params=DISTRIBUTIONS)
def reader(request: pytest.FixtureRequest, new_host: Any) -> Host:
    """A host with a unit that reads the certificate."""
    made: Host = new_host("certificate", os=request.param)
    made.put("/etc/systemd/system/reader.service", READER)
    made.root("systemctl daemon-reload; systemctl start reader.service")
    return made


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("authority") / "ca"


def test_the_life_of_a_certificate(reader: Host, ansible: Ansible, authority: Path) -> None:
    asked = {"certificates": [certificate()], "ca_dir": str(authority)}

    # A bare host, without openssl and without the owner: check mode passes and changes nothing.
    reader.root("mv /usr/bin/openssl /usr/bin/openssl.away")
    strange = {**asked, "certificates": [certificate(owner="nobody-yet", group="nobody-yet")]}
    assert ansible.module(MODULE, strange, reader, check=True)["changed"] is True
    reader.root("mv /usr/bin/openssl.away /usr/bin/openssl")
    assert reader.root("ls -d /etc/selfhost/tls", check=False).returncode != 0
    issued_before = authority.exists() and (authority / "issued.jsonl").read_text()

    first = ansible.module(MODULE, asked, reader, diff=True)
    assert first["changed"] is True
    assert first["reloaded"] == ["reader.service"]
    assert "PRIVATE KEY" not in json.dumps(first)
    assert reader.root(f"openssl verify -CAfile {FOLDER}/ca.pem {FOLDER}/fullchain.pem").returncode == 0
    assert reader.root(f"stat -c %a:%U:%G {FOLDER}/privkey.pem").stdout.strip() == "600:root:root"
    assert reader.read(f"{FOLDER}/ca.pem") == (authority / "ca.pem").read_text()
    assert reader.root(f"find {FOLDER} -name '.*.pem'").stdout == ""

    # A second run: nothing, and one connection.
    before, count = fingerprint(reader), reloads(reader)
    again = ansible.module(MODULE, asked, reader)
    assert (again["changed"], again["certificates"]) == (False, [])
    assert (fingerprint(reader), reloads(reader)) == (before, count)
    assert (authority / "issued.jsonl").read_text() != issued_before

    # Other names: check mode tells and does nothing; then a new key and certificate.
    more = {**asked, "certificates": [certificate(domains=["api.example.com", "www.example.com"])]}
    assert ansible.module(MODULE, more, reader, check=True)["changed"] is True
    assert fingerprint(reader) == before
    changed = ansible.module(MODULE, more, reader)
    assert changed["certificates"][0]["reasons"] == ["the names have changed"]
    assert reloads(reader) == count + 1
    shown = reader.root(f"openssl x509 -in {FOLDER}/fullchain.pem -noout -ext subjectAltName").stdout
    assert "DNS:www.example.com" in shown

    # Only the mode.
    reader.root(f"chmod 644 {FOLDER}/privkey.pem")
    before = fingerprint(reader)
    assert ansible.module(MODULE, more, reader)["certificates"][0]["reasons"] == ["owner or mode"]
    assert reader.root(f"stat -c %a {FOLDER}/privkey.pem").stdout.strip() == "600"
    assert fingerprint(reader) == before

    # The end is near.
    early = {**more, "renew_before": 398}
    assert "days are left" in ansible.module(MODULE, early, reader)["certificates"][0]["reasons"][0]

    # A unit that refuses the new certificate keeps the former one.
    before = fingerprint(reader)
    reader.root("touch /run/refuse")
    failed = ansible.module(MODULE, early, reader, expect_failure=True)
    reader.root("rm /run/refuse")
    assert "reader.service" in failed["msg"]
    assert "back in place" in failed["msg"]
    assert fingerprint(reader) == before


def test_a_group_that_reads_the_key(reader: Host, ansible: Ansible, authority: Path) -> None:
    shared = certificate(name="shared", directory="/etc/selfhost/tls/shared", group="www-data", reload=[])
    ansible.module(MODULE, {"certificates": [shared], "ca_dir": str(authority)}, reader)
    shown = reader.root("stat -c %a:%U:%G /etc/selfhost/tls/shared/privkey.pem").stdout.strip()
    assert shown == "640:root:www-data"
    missing = {"certificates": [{**shared, "group": "nobody-yet"}], "ca_dir": str(authority)}
    assert "nobody-yet" in ansible.module(MODULE, missing, reader, expect_failure=True)["msg"]


def test_provided(reader: Host, ansible: Ansible, tmp_path: Path) -> None:
    # Made on the host by openssl, as a user's would be made elsewhere.
    reader.root(
        "cd /root; openssl req -x509 -newkey rsa:2048 -nodes -keyout own.key -out own.pem -days 90 -subj /CN=own "
        "-addext subjectAltName=DNS:own.example.com"
    )
    for name in ("own.key", "own.pem"):
        (tmp_path / name).write_text(reader.read(f"/root/{name}"))
    pair = {"certificate": str(tmp_path / "own.pem"), "key": str(tmp_path / "own.key")}
    folder = "/etc/selfhost/tls/own"
    own = certificate(
        name="own",
        directory=folder,
        domains=["own.example.com"],
        addresses=[],
        mode="provided",
        provided=pair,
        reload=[],
    )
    first = ansible.module(MODULE, {"certificates": [own]}, reader)
    assert first["changed"] is True
    assert "PRIVATE KEY" not in json.dumps(first)
    assert reader.read(f"{folder}/privkey.pem") == (tmp_path / "own.key").read_text()
    assert reader.read(f"{folder}/fullchain.pem") == (tmp_path / "own.pem").read_text()
    assert ansible.module(MODULE, {"certificates": [own]}, reader)["changed"] is False

    uncovered = {"certificates": [{**own, "domains": ["other.example.com"]}]}
    failed = ansible.module(MODULE, uncovered, reader, expect_failure=True)
    assert "does not cover other.example.com" in failed["msg"]


def test_hosts_at_the_same_time(reader: Host, new_host: Any, ansible: Ansible, tmp_path: Path) -> None:
    others = [reader, new_host("certificate", os=reader.os), new_host("certificate", os=reader.os)]
    asked = {"certificates": [certificate(directory="/etc/selfhost/tls/together")], "ca_dir": str(tmp_path / "ca")}
    play = {"hosts": "all", "gather_facts": False, "tasks": [{"name": "hold", MODULE: asked}]}
    ansible.playbook([play], others)
    assert len({host.read("/etc/selfhost/tls/together/ca.pem") for host in others}) == 1
    assert len((tmp_path / "ca" / "issued.jsonl").read_text().splitlines()) == 3
