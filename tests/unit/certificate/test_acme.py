"""What certbot is asked for, and when; certbot itself is played, openssl is real."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate import acme, host

from .conftest import NOW

SERVER = "https://acme.example.net/dir"
NAME = "selfhost-api"


class Certbot:
    """Plays certbot and the program that puts certificates in place: it signs by itself."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.calls: list[list[str]] = []
        self.answers: list[str] = []  # what it says as it fails, one for each call to come

    def __call__(self, command: Sequence[str]) -> subprocess.CompletedProcess[str]:
        if command[0] == "/usr/bin/openssl":
            return subprocess.run(command, capture_output=True, text=True, check=False)
        self.calls.append(list(command))
        if self.answers and "certbot" in " ".join(command):
            return subprocess.CompletedProcess(command, 1, "", self.answers.pop(0))
        if "certonly" in command:
            named = [word for option, word in zip(command, command[1:], strict=False) if option == "--domain"]
            self.sign(command[command.index("--cert-name") + 1], named, command[command.index("--server") + 1])
        return subprocess.CompletedProcess(command, 0, "", "")

    def sign(self, name: str, domains: list[str], server: str, days: int = 3650) -> None:
        live = self.home / "live" / name
        live.mkdir(parents=True, exist_ok=True)
        (self.home / "renewal").mkdir(exist_ok=True)
        (self.home / "renewal" / f"{name}.conf").write_text(f"# of certbot\n[renewalparams]\nserver = {server}\n")
        command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
        command += ["-keyout", str(live / "privkey.pem"), "-out", str(live / "fullchain.pem"), "-subj", "/CN=any"]
        names = ",".join(f"DNS:{domain}" for domain in domains)
        subprocess.run(
            [*command, "-days", str(days), "-addext", f"subjectAltName={names}"], check=True, capture_output=True
        )
        (live / "chain.pem").write_text("the issuer\n")

    @property
    def asked(self) -> list[str]:
        """The verb of each call of certbot."""
        return [
            call[call.index(str(self.home / "certbot")) + 1]
            for call in self.calls
            if str(self.home / "certbot") in call
        ]


@pytest.fixture
def certbot(tmp_path: Path) -> Certbot:
    home = tmp_path / "letsencrypt"
    home.mkdir()
    (home / "certbot").touch()
    return Certbot(home)


@pytest.fixture
def made(certbot: Certbot, tmp_path: Path) -> Callable[..., acme.Acme]:
    def make(**changes: Any) -> acme.Acme:
        paths = acme.Paths(
            webroot=tmp_path / "webroot",
            deploy=tmp_path / "deploy",
            note=tmp_path / "state" / "account.json",
            certbot=certbot.home / "certbot",
            home=certbot.home,
        )
        authority = replace(acme.Authority(server=SERVER, email="a@example.com"), **changes)
        return acme.Acme(
            certbot,
            openssl=host.Openssl(certbot),
            authority=authority,
            paths=paths,
            now=NOW.timestamp,
            sleep=lambda _seconds: None,
        )

    return make


@pytest.fixture
def api(tmp_path: Path) -> host.Wanted:
    entry = {"name": "api", "domains": ["api.example.com", "www.example.com"], "directory": str(tmp_path / "tls")}
    return host.Wanted.of({**entry, "mode": "acme"}, authority="")


def signed(certbot: Certbot, wanted: host.Wanted, **changes: Any) -> None:
    """certbot has the certificate already, and it is in place."""
    certbot.sign(NAME, **{"domains": sorted(wanted.names), "server": SERVER, **changes})
    wanted.directory.mkdir(exist_ok=True)
    for theirs, ours in acme.FILES.items():
        (wanted.directory / ours).write_bytes((certbot.home / "live" / NAME / theirs).read_bytes())


def test_what_is_missing_is_obtained(certbot: Certbot, made: Any, api: host.Wanted, tmp_path: Path) -> None:
    survey = made().survey([api], dry_run=False)
    assert survey.obtain == {"api": ["there is no certificate"]}
    made().converge([api], survey)
    obtain, deploy = certbot.calls
    command = " ".join(obtain)
    assert f"certonly --cert-name {NAME} --server {SERVER} --no-eff-email --email a@example.com --agree-tos" in command
    assert "--domain api.example.com --domain www.example.com" in command
    assert f"--webroot --webroot-path {tmp_path / 'webroot'}" in command
    assert "--key-type ecdsa --elliptic-curve secp256r1" in command
    assert "--non-interactive" in command
    assert deploy == [str(tmp_path / "deploy")]


def test_what_is_there_is_left_to_the_timer(certbot: Certbot, made: Any, api: host.Wanted) -> None:
    signed(certbot, api)
    assert not made().survey([api], dry_run=False).changed
    assert certbot.calls == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"domains": ["api.example.com"]}, "the names have changed"),
        ({"server": "https://staging.example.net/dir"}, "the authority has changed"),
        ({"days": 1}, "it has expired"),
    ],
)
def test_another_one_is_wanted(
    certbot: Certbot, made: Any, api: host.Wanted, changes: dict[str, Any], reason: str
) -> None:
    signed(certbot, api, **changes)
    assert made().survey([api], dry_run=False).obtain == {"api": [reason]}


def test_a_placeholder_gives_way_to_what_certbot_has(certbot: Certbot, made: Any, api: host.Wanted) -> None:
    signed(certbot, api)
    (api.directory / "fullchain.pem").write_text("another")
    survey = made().survey([api], dry_run=False)
    assert (survey.obtain, survey.deploy) == ({}, ["api"])
    made().converge([api], survey)
    assert certbot.asked == []
    assert len(certbot.calls) == 1


def test_only_ours_is_deleted(certbot: Certbot, made: Any) -> None:
    for name in (NAME, "of-the-user"):
        certbot.sign(name, ["x.example.com"], SERVER)
    survey = made().survey([], dry_run=False)
    assert survey.delete == [NAME]
    made().converge([], survey)
    assert certbot.asked == ["delete"]


def test_without_certbot(certbot: Certbot, made: Any, api: host.Wanted) -> None:
    (certbot.home / "certbot").unlink()
    assert made().survey([api], dry_run=True).changed
    with pytest.raises(host.CertificateError, match="certbot is not installed"):
        made().survey([api], dry_run=False)


def test_a_rejected_nonce_is_asked_again(certbot: Certbot, made: Any, api: host.Wanted) -> None:
    certbot.answers = ["JWS has an invalid anti-replay nonce: x", "Another instance of Certbot is already running."]
    made().converge([api], made().survey([api], dry_run=False))
    assert certbot.asked == ["certonly"] * 3


def test_it_does_not_ask_for_ever(certbot: Certbot, made: Any, api: host.Wanted) -> None:
    certbot.answers = ["JWS has an invalid anti-replay nonce: x"] * 9
    with pytest.raises(host.CertificateError, match="nonce"):
        made().converge([api], made().survey([api], dry_run=False))
    assert len(certbot.asked) == acme.ATTEMPTS


def test_a_refusal_is_told_in_its_own_words_and_keeps_nobody_else_back(
    certbot: Certbot, made: Any, api: host.Wanted, tmp_path: Path
) -> None:
    other = replace(api, name="other", directory=tmp_path / "other")
    certbot.answers = [
        "Saving debug log to /var/log/x\nRequesting a certificate for api.example.com\n"
        "Domain: api.example.com\n  Detail: no such name\nAsk for help or search"
    ]
    with pytest.raises(host.CertificateError) as failed:
        made().converge([api, other], made().survey([api, other], dry_run=False))
    assert f"certificate api: {SERVER} gave none: Domain: api.example.com Detail: no such name. The site" in str(
        failed.value
    )
    assert certbot.asked == ["certonly"] * 2
    assert certbot.calls[-1] == [str(tmp_path / "deploy")]


def test_the_account_follows_the_email(certbot: Certbot, made: Any, api: host.Wanted, tmp_path: Path) -> None:
    made().converge([api], made().survey([api], dry_run=False))
    signed(certbot, api)
    assert json.loads((tmp_path / "state" / "account.json").read_text()) == {"server": SERVER, "email": "a@example.com"}
    assert not made().survey([api], dry_run=False).changed
    other = made(email="b@example.com")
    survey = other.survey([api], dry_run=False)
    assert (survey.account, survey.obtain) == (True, {})
    other.converge([api], survey)
    assert certbot.asked == ["certonly", "update_account"]
    assert not other.survey([api], dry_run=False).changed


def test_the_authority_is_checked_by_its_own_certificate(certbot: Certbot, made: Any, api: host.Wanted) -> None:
    own = made(ca_file="/etc/selfhost/acme/ca.pem", email="")
    own.converge([api], own.survey([api], dry_run=False))
    assert certbot.calls[0][:2] == ["/usr/bin/env", "REQUESTS_CA_BUNDLE=/etc/selfhost/acme/ca.pem"]
    assert "--register-unsafely-without-email" in certbot.calls[0]
