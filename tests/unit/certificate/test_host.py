"""What is renewed and why, and that what is live stays whole when something fails."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from ansible_collections.selfhost.fleet.plugins.module_utils.certificate import authority, host

from .conftest import Runner

MakeHost = Callable[..., host.Host]
MakeWanted = Callable[..., host.Wanted]


@pytest.fixture
def installed(machine: MakeHost, wanted: MakeWanted, ca: authority.Authority) -> host.Wanted:
    one = wanted()
    issue(machine(), one, ca)
    return wanted(ca.certificate())


def issue(machine: host.Host, wanted: host.Wanted, ca: authority.Authority) -> list[str]:
    chain = ca.sign(machine.request(wanted), domains=["api.example.com"], addresses=["2001:db8::1"])
    return machine.install([(wanted, chain, ca.certificate(), "")])


def test_a_bare_host_lacks_everything(machine: MakeHost, wanted: MakeWanted) -> None:
    assert machine().survey(wanted()).reasons == ["there is no certificate"]


def test_a_second_run_has_nothing_to_do(machine: MakeHost, installed: host.Wanted, runner: Runner) -> None:
    runner.calls = 0
    survey = machine().survey(installed)
    assert (survey.reasons, survey.ownership) == ([], False)
    assert runner.calls == 3  # each is some milliseconds, on every run


def test_modes(installed: host.Wanted) -> None:
    modes = {path.name: path.stat().st_mode & 0o777 for path in installed.directory.iterdir()}
    assert modes == {"privkey.pem": 0o600, "fullchain.pem": 0o644, "ca.pem": 0o644}


@pytest.mark.parametrize(
    ("owner", "group", "mode"),
    [
        ("root", "root", 0o600),
        ("root", "ssl-cert", 0o640),
        ("postgres", "postgres", 0o600),
        ("postgres", "root", 0o600),
    ],
)
def test_who_reads_the_key(wanted: MakeWanted, owner: str, group: str, mode: int) -> None:
    assert wanted(owner=owner, group=group).key_mode == mode


@pytest.mark.parametrize(("days", "renewed"), [(366, False), (368, True), (500, True)])
def test_renewed_thirty_days_before_the_end(
    machine: MakeHost, installed: host.Wanted, days: int, renewed: bool
) -> None:
    reasons = machine(days_later=days).survey(installed).reasons
    assert any("days are left" in reason for reason in reasons) is renewed


@pytest.mark.usefixtures("installed")
def test_other_names(machine: MakeHost, wanted: MakeWanted, ca: authority.Authority) -> None:
    other = wanted(ca.certificate(), domains=["api.example.com", "www.example.com"])
    assert machine().survey(other).reasons == ["the names have changed"]


@pytest.mark.usefixtures("installed")
def test_another_way_of_writing_the_names(machine: MakeHost, wanted: MakeWanted, ca: authority.Authority) -> None:
    same = wanted(ca.certificate(), domains=["API.example.com."], addresses=["2001:0db8:0::1"])
    assert machine().survey(same).reasons == []


@pytest.mark.usefixtures("installed")
def test_another_authority(machine: MakeHost, wanted: MakeWanted) -> None:
    assert "authority" in machine().survey(wanted("another")).reasons[0]


def test_a_certificate_that_the_authority_did_not_sign(
    machine: MakeHost, installed: host.Wanted, tmp_path: Path, ca: authority.Authority
) -> None:
    stranger = authority.Authority(tmp_path / "stranger", passphrase=None, now=ca._now)
    issue(machine(), installed, stranger)
    (installed.directory / host.CA).write_text(ca.certificate())
    assert machine().survey(installed).reasons == ["it is not signed by the fleet's authority"]


def test_a_lost_key(machine: MakeHost, installed: host.Wanted) -> None:
    (installed.directory / host.KEY).unlink()
    assert machine().survey(installed).reasons == ["the key does not belong to the certificate"]


def test_a_mode_changed_by_hand(machine: MakeHost, installed: host.Wanted) -> None:
    (installed.directory / host.KEY).chmod(0o644)
    survey = machine().survey(installed)
    assert (survey.reasons, survey.ownership) == ([], True)
    machine(dry_run=True).own(installed)
    assert (installed.directory / host.KEY).stat().st_mode & 0o777 == 0o644
    machine().own(installed)
    assert (installed.directory / host.KEY).stat().st_mode & 0o777 == 0o600


def test_every_certificate_has_a_key_of_its_own(
    machine: MakeHost, installed: host.Wanted, ca: authority.Authority
) -> None:
    former = (installed.directory / host.KEY).read_text()
    issue(machine(), installed, ca)
    assert (installed.directory / host.KEY).read_text() != former


def test_asking_leaves_the_live_key_alone(machine: MakeHost, installed: host.Wanted) -> None:
    former = (installed.directory / host.KEY).read_text()
    machine().request(installed)
    assert (installed.directory / host.KEY).read_text() == former
    assert (installed.directory / host.PENDING).stat().st_mode & 0o777 == 0o600
    assert machine().survey(installed).reasons == []


def test_only_running_units_are_reloaded(
    machine: MakeHost, wanted: MakeWanted, ca: authority.Authority, runner: Runner
) -> None:
    assert issue(machine(), wanted(), ca) == []
    runner.active = {"nginx.service"}
    assert issue(machine(), wanted(), ca) == ["nginx.service"]
    assert runner.reloaded == ["nginx.service"]


def test_when_a_unit_refuses_the_former_files_are_back(
    machine: MakeHost, installed: host.Wanted, ca: authority.Authority, runner: Runner
) -> None:
    former = {path.name: path.read_bytes() for path in installed.directory.iterdir()}
    runner.active = runner.broken = {"nginx.service"}
    with pytest.raises(host.CertificateError, match="nginx.service.*it said no.*back in place"):
        issue(machine(), installed, ca)
    assert {name: (installed.directory / name).read_bytes() for name in former} == former
    assert machine().survey(installed).reasons == []


def test_a_certificate_for_another_key_is_not_installed(
    machine: MakeHost, installed: host.Wanted, ca: authority.Authority
) -> None:
    first = machine().request(installed)
    machine().request(installed)
    chain = ca.sign(first, domains=["api.example.com"], addresses=[])
    with pytest.raises(host.CertificateError, match="not the certificate's"):
        machine().install([(installed, chain, ca.certificate(), "")])
    assert machine().survey(installed).reasons == []


def test_check_mode_without_openssl_and_without_the_owner(machine: MakeHost, wanted: MakeWanted) -> None:
    one = wanted(owner="nobody-of-that-name")
    assert machine(dry_run=True, openssl="/no/such/openssl").survey(one).reasons == ["openssl is not installed yet"]
    assert machine(dry_run=True).survey(one).reasons == ["there is no certificate"]


def test_without_openssl_the_package_is_named(machine: MakeHost, wanted: MakeWanted) -> None:
    with pytest.raises(host.CertificateError, match="package openssl"):
        machine(openssl="/no/such/openssl").survey(wanted())


def test_an_owner_that_does_not_exist_is_told_before_anything_is_written(machine: MakeHost, wanted: MakeWanted) -> None:
    one = wanted(owner="nobody-of-that-name")
    with pytest.raises(host.CertificateError, match="nobody-of-that-name"):
        machine().request(one)
    assert not one.directory.exists()


def test_a_placeholder_lets_nginx_start(machine: MakeHost, wanted: MakeWanted) -> None:
    public = wanted(mode="acme", domains=["api.example.com", "www.example.com"], addresses=[])
    assert machine().survey(public).reasons == ["there is no certificate"]
    machine().placeholder(public)
    # certbot's timer renews what the authority gives; a run does not, whatever the days and names.
    other = wanted(mode="acme", domains=["other.example.com"], addresses=[])
    for asked in (public, other):
        survey = machine().survey(asked)
        assert (survey.reasons, survey.ownership) == ([], False)
    (public.directory / "privkey.pem").write_text("spoiled")
    assert machine().survey(public).reasons == ["the key does not belong to the certificate"]
