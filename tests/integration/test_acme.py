"""Certificates of a public authority on a bare host, and what browsers get of TLS: the authority is Let's Encrypt's own test server."""

from __future__ import annotations

import dataclasses
import json
import re
import time
from collections.abc import Callable
from typing import Any

import pytest
from fleetbed.authority import Authority
from fleetbed.engine import Completed
from fleetbed.host import Host
from fleetbed.paths import REPOSITORY
from fleetbed.runner import Ansible, Run
from fleetbed.service import fluxbase

SITE, STATUS = REPOSITORY / "playbooks" / "site.yml", REPOSITORY / "playbooks" / "status.yml"
# What of site.yml concerns certificates.
SHORT = [
    {"hosts": "all", "gather_facts": False, "tasks": [{"name": "Plan", "selfhost.fleet.plan": {}, "run_once": True}]},
    {
        "hosts": "all",
        "gather_facts": False,
        "become": True,
        "vars": {"fleet": "{{ ansible_facts['fleet_plan']['hosts'][inventory_hostname] }}"},
        "tasks": [
            {"name": role, "ansible.builtin.include_role": {"name": f"selfhost.fleet.{role}"}}
            for role in ("certificate", "edge", "acme")
        ],
    },
]
NAMES = ["fluxbase.test", "www.fluxbase.test"]
CERTBOT = f"selfhost-{NAMES[0]}"
LIVE = f"/etc/selfhost/tls/{NAMES[0]}"
SETTINGS = f"/etc/letsencrypt/renewal/{CERTBOT}.conf"
ROOTS = "/root/roots.pem"
# An authority that answers by OCSP, as some do of which one buys certificates.
OCSP = """
mkdir -p /root/ocsp; cd /root/ocsp
curve="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $curve -keyout ca.key -out ca.pem -days 30 -subj /CN=with-ocsp
openssl req $curve -keyout key.pem -out request.pem -subj /CN=site
printf "subjectAltName={names}\\nauthorityInfoAccess=OCSP;URI:http://{address}:2560/\\n" > extensions
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 90 -extfile extensions -out leaf.pem
cat leaf.pem ca.pem > chain.pem
serial=$(openssl x509 -in leaf.pem -noout -serial | cut -d= -f2)
printf "V\\t491231235959Z\\t\\t$serial\\tunknown\\t/CN=site\\n" > index
systemd-run --unit=ocsp openssl ocsp -port 2560 -index /root/ocsp/index -CA /root/ocsp/ca.pem -rsigner /root/ocsp/ca.pem -rkey /root/ocsp/ca.key -ndays 1
"""
OBTAIN = "selfhost.fleet.acme : Obtain the certificates that the host lacks"


@dataclasses.dataclass
class Site:
    """A host behind names that a public authority certifies."""

    host: Host
    authority: Authority
    ansible: Ansible
    service: dict[str, Any]
    certificates: dict[str, Any]

    def run(
        self,
        playbook: Any = SITE,
        *,
        service: dict[str, Any] | None = None,
        certificates: dict[str, Any] | None = None,
        **options: Any,
    ) -> Run:
        groups = {name: [self.host] for name in ("edge", "postgres", "fluxbase")}
        variables = {
            "fleet_local_ca_dir": str(self.ansible.folder / "ca"),
            "fleet_services": {"fluxbase": {**self.service, **(service or {})}},
            "fleet_certificates": {**self.certificates, **(certificates or {})},
        }
        return self.ansible.playbook(playbook, [self.host], groups=groups, variables=variables, **options)

    def handshake(self, *options: str, name: str = NAMES[0], roots: str = ROOTS, check: bool = True) -> Completed:
        """As a browser that knows the authority and is strict about the name."""
        strict = ["-CAfile", roots, "-verify_return_error", "-verify_hostname", name]
        command = ["openssl", "s_client", "-connect", f"{self.host.address}:443", "-servername", name, *strict]
        return self.authority.host.root([*command, *options], stdin="", check=check)

    def served(self, name: str = NAMES[0]) -> str:
        """The certificate that a browser accepted, in words."""
        shown = self.handshake("-showcerts", name=name).stdout
        return self.authority.host.root(["openssl", "x509", "-noout", "-text"], stdin=shown).stdout

    def serial(self) -> str:
        shown = self.handshake("-showcerts").stdout
        return self.authority.host.root(["openssl", "x509", "-noout", "-serial"], stdin=shown).stdout

    def newest(self) -> str:
        """The serial of what certbot obtained last."""
        return self.host.root(f"openssl x509 -noout -serial -in /etc/letsencrypt/live/{CERTBOT}/cert.pem").stdout

    def curl(self, path: str, *options: str, scheme: str = "https") -> str:
        command = ["curl", "--silent", "--show-error", "--max-time", "10", "--cacert", ROOTS]
        for port in (80, 443):
            command += ["--resolve", f"{NAMES[0]}:{port}:{self.host.address}"]
        return self.authority.host.root([*command, *options, f"{scheme}://{NAMES[0]}{path}"]).stdout

    def health(self) -> str:
        return str(json.loads(self.curl("/health", "--fail"))["status"])

    def nginx(self) -> str:
        """Which nginx this is: another process, or one that was started again, is not the same."""
        shown = ["systemctl", "show", "nginx.service", "--property=MainPID,ActiveEnterTimestampMonotonic"]
        return self.host.root(shown).stdout

    def renew(self) -> bool:
        """certbot's timer goes off, on a day on which everything is due."""
        self.host.root(
            f"sed -i /renew_before_expiry/d {SETTINGS}; sed -i '1i renew_before_expiry = 3650 days' {SETTINGS}"
        )
        return self.host.root("systemctl start certbot.service", check=False).returncode == 0

    def status(self) -> tuple[dict[str, Any], str]:
        """What status.yml has read, and what it prints."""
        run = self.run(STATUS)
        return run.of("Read the state of components").result, run.output


def eventually(holds: Callable[[], bool]) -> bool:
    """A reload of nginx is only a signal: for a moment the former workers answer."""
    for _attempt in range(60):
        if holds():
            return True
        time.sleep(0.5)
    return False


@pytest.fixture(scope="module")
def bare(new_host: Callable[..., Host], tmp_path_factory: pytest.TempPathFactory) -> Site:
    """A host on which nothing has been done yet, and the authority."""
    host = new_host("acme")
    authority = Authority.start(new_host("authority"), leads_to=host.address)
    folder = tmp_path_factory.mktemp("acme")
    (folder / "authority.pem").write_text(authority.own)
    authority.host.put(ROOTS, authority.root)
    service = fluxbase(domain=NAMES[0], aliases=NAMES[1:])
    certificates = {
        "mode": "acme",
        "email": "hostmaster@fluxbase.test",
        "server": authority.server,
        "ca_file": str(folder / "authority.pem"),
    }
    return Site(host, authority, Ansible(folder), service, certificates)


@pytest.fixture(scope="module")
def converged(bare: Site) -> tuple[Site, Run]:
    """The site after its first run, and that run."""
    return bare, bare.run(diff=True)


@pytest.fixture
def site(converged: tuple[Site, Run]) -> Site:
    return converged[0]


# The first run


def test_check_mode_on_a_bare_host_asks_nobody(bare: Site) -> None:
    run = bare.run(check=True, diff=True)
    assert run.of(OBTAIN).changed
    assert bare.host.root("ls -d /etc/letsencrypt /etc/selfhost /etc/nginx", check=False).stdout == ""


def test_the_first_run_ends_with_the_certificate_of_the_authority(converged: tuple[Site, Run]) -> None:
    site, run = converged
    obtained = run.of(OBTAIN).result["obtained"]
    assert obtained == [{"name": NAMES[0], "reasons": ["there is no certificate"]}]
    assert "PRIVATE KEY" not in run.output
    assert eventually(lambda: site.serial() == site.newest())
    for name in NAMES:
        text = site.served(name)
        assert "Issuer: CN=Pebble Intermediate" in text
        assert re.findall(r"DNS:([\w.]+)", text) == NAMES
    assert site.health() == "ok"
    assert site.host.root(f"stat -c %a:%U:%G {LIVE}/privkey.pem").stdout.strip() == "600:root:root"


def test_a_second_run_changes_nothing(site: Site) -> None:
    serial = site.serial()
    assert site.run().changed == []
    assert site.serial() == serial


def test_status_tells_how_long_it_lasts(site: Site) -> None:
    found, printed = site.status()
    own = next(entry for entry in found["certificates"] if entry["name"] == NAMES[0])
    assert own["days_left"] in (88, 89)
    assert f"{own['days_left']} days left" in printed


def test_http_leads_to_https_but_for_the_proof(site: Site) -> None:
    code = "--output", "/dev/null", "--write-out", "%{http_code}"
    assert site.curl("/health", *code, scheme="http") == "301"
    assert site.curl("/.well-known/acme-challenge/unknown", *code, scheme="http") == "404"


# What browsers get of TLS


def test_only_forward_secret_and_authenticated_suites(site: Site) -> None:
    offered = site.authority.host.root(
        ["openssl", "ciphers", "-tls1_2", "-s", "ALL:COMPLEMENTOFALL:@SECLEVEL=0"]
    ).stdout
    # One handshake says which one the server takes of those that are left; until none is.
    left, taken = offered.strip().split(":"), []
    while True:
        done = site.handshake("-tls1_2", "-cipher", ":".join([*left, "@SECLEVEL=0"]), check=False)
        if done.returncode != 0:
            break
        found = re.search(r"Cipher is ([\w-]+)", done.stdout)
        assert found
        taken.append(found[1])
        left.remove(found[1])
    assert "handshake failure" in done.stderr
    assert sorted(taken) == [
        "ECDHE-ECDSA-AES128-GCM-SHA256",
        "ECDHE-ECDSA-AES256-GCM-SHA384",
        "ECDHE-ECDSA-CHACHA20-POLY1305",
    ]


def test_sessions_are_resumed_without_tickets_and_nothing_is_compressed(site: Site) -> None:
    # A ticket would be the session itself, encrypted by a key that nginx holds for as long as it runs.
    shown = site.handshake("-tls1_2", "-comp", "-reconnect").stdout
    assert "Reused, TLSv1.2" in shown
    assert "TLS session ticket:" not in shown
    assert shown.count("Compression: NONE") == shown.count("Compression:") > 0
    # TLS 1.3 calls a reference to a session a ticket too; that one has 32 bytes.
    offsets = re.findall(r"^ +([0-9a-f]{4}) - ", site.handshake("-tls1_3").stdout, re.MULTILINE)
    assert set(offsets) <= {"0000", "0010"}


def test_a_modern_key_and_a_key_exchange_that_lasts(site: Site) -> None:
    assert "NIST CURVE: P-256" in site.served()
    assert "X25519MLKEM768" in site.handshake("-tls1_3").stdout
    assert site.handshake("-tls1_3", "-groups", "X25519").returncode == 0
    assert site.handshake("-tls1_3", "-groups", "ffdhe2048", check=False).returncode != 0


def test_browsers_are_told_to_stay_with_https(site: Site) -> None:
    answer = site.curl("/health", "--output", "/dev/null", "--dump-header", "-", "--compressed").lower()
    assert "strict-transport-security: max-age=63072000" in answer
    # Compressed, an answer tells by its length what is in it (BREACH).
    assert "content-encoding" not in answer


# Renewal on the host


def test_a_renewal_reaches_browsers_without_a_restart(site: Site) -> None:
    serial, nginx = site.serial(), site.nginx()
    # A nonce that was rejected twice ends a renewal; the timer then comes again, as it does here.
    assert any(site.renew() for _attempt in range(5))
    assert site.newest() != serial
    assert eventually(lambda: site.serial() == site.newest())
    assert site.nginx() == nginx
    assert site.health() == "ok"
    found, printed = site.status()
    assert found["renewal"]["result"] == "success"
    assert "last renewal succeeded" in printed
    assert site.run(SHORT).changed == []


def test_what_nginx_refuses_is_taken_back_and_tried_again(site: Site) -> None:
    serial, files = site.serial(), site.host.root(f"sha256sum {LIVE}/*.pem").stdout
    site.host.put("/etc/nginx/conf.d/broken.conf", "no such directive;\n")
    assert not site.renew()
    assert site.host.root(f"sha256sum {LIVE}/*.pem").stdout == files
    assert site.serial() == serial
    assert "last renewal failed (exit-code)" in site.status()[1]
    site.host.root(f"rm /etc/nginx/conf.d/broken.conf; sed -i '/renew_before_expiry/d' {SETTINGS}")
    # Nothing is due now, and what is there is put in place all the same.
    site.host.root("systemctl start certbot.service")
    assert "back in place" in site.host.root("journalctl -u certbot.service").stdout
    assert site.newest() != serial
    assert eventually(lambda: site.serial() == site.newest())


# Other wishes


def test_another_list_of_names_gets_another_certificate_and_another_email_the_account(site: Site) -> None:
    more = {"aliases": [*NAMES[1:], "api.fluxbase.test"]}
    foretold = site.run(SHORT, service=more, check=True).of(OBTAIN).result
    assert foretold["obtained"] == [{"name": NAMES[0], "reasons": ["the names have changed"]}]
    site.run(SHORT, service=more)
    assert eventually(lambda: site.serial() == site.newest())
    assert re.findall(r"DNS:([\w.]+)", site.served("api.fluxbase.test")) == ["api.fluxbase.test", *NAMES]
    other = {"email": "tls@fluxbase.test"}
    assert [outcome.task for outcome in site.run(SHORT, service=more, certificates=other).changed] == [OBTAIN]
    command = f"REQUESTS_CA_BUNDLE=/etc/selfhost/acme/ca.pem certbot show_account --server {site.authority.server}"
    # This call of certbot's does not ask again where the authority rejects it at random.
    assert eventually(lambda: "tls@fluxbase.test" in site.host.root(command, check=False).stdout)
    assert site.run(SHORT, service=more, certificates=other).changed == []


def test_a_name_that_leads_elsewhere_fails_the_run_and_not_the_site(site: Site) -> None:
    serial = site.serial()
    site.authority.point("elsewhere.test", site.authority.host.address)
    run = site.run(SHORT, service={"aliases": [*NAMES[1:], "elsewhere.test"]}, expect_failure=True)
    message = run.failed[0].result["msg"]
    assert message.startswith(f"certificate {NAMES[0]}: {site.authority.server} gave none")
    assert "elsewhere.test" in message
    assert "port 80" in message
    assert (site.serial(), site.health()) == (serial, "ok")


# The authority is away. It forgets all accounts; what follows does not need it.


def test_a_failing_renewal_is_seen_and_harms_nothing(site: Site) -> None:
    site.run(SHORT)
    assert eventually(lambda: site.serial() == site.newest())
    serial, nginx = site.serial(), site.nginx()
    site.authority.stop()
    assert not site.renew()
    found, printed = site.status()
    assert found["renewal"]["result"] == "exit-code"
    assert "last renewal failed (exit-code): journalctl -u certbot says why" in printed
    assert f"certificate {NAMES[0]}" in printed
    assert (site.serial(), site.nginx(), site.health()) == (serial, nginx, "ok")
    # It is remembered over a restart of the host, and a run that needs nothing of the authority goes well.
    site.host.restart()
    assert site.status()[0]["renewal"] == found["renewal"]
    assert site.run().changed == []
    assert site.serial() == serial


# Away from it


def test_a_provided_certificate_with_ocsp_and_nothing_of_certbot_left(site: Site) -> None:
    elsewhere = site.authority.host
    elsewhere.root(OCSP.format(names=",".join(f"DNS:{name}" for name in NAMES), address=elsewhere.address))
    pair = {"certificate": elsewhere.read("/root/ocsp/chain.pem"), "key": elsewhere.read("/root/ocsp/key.pem")}
    site.run(service={"certificate": {"mode": "provided", **pair}})
    # nginx asks for the first answer when it is first wanted, and has it for those who come after.
    for _attempt in range(60):
        shown = site.handshake("-status", roots="/root/ocsp/ca.pem").stdout
        if "OCSP Response Status: successful" in shown:
            break
        time.sleep(0.5)
    assert "Cert Status: good" in shown
    timer = ["systemctl", "show", "certbot.timer", "--property=ActiveState,UnitFileState", "--value"]
    assert site.host.root(timer).stdout.split() == ["inactive", "disabled"]
    assert site.host.root("ls /etc/letsencrypt/renewal-hooks/deploy/selfhost", check=False).returncode != 0
