"""What browsers get of TLS, as testssl.sh judges it: suites, OCSP, HSTS, compression, tickets and the key; on Debian 13 and 12."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Callable
from typing import Any

import pytest
from fleetbed.host import Host
from fleetbed.runner import Ansible, Run
from fleetbed.service import DOMAIN, made_secrets

PLAN = {"hosts": "all", "gather_facts": False, "tasks": [{"selfhost.fleet.plan": {}, "run_once": True}]}
# What of site.yml makes an edge.
EDGE = {
    "hosts": "edge",
    "gather_facts": False,
    "become": True,
    "vars": {"fleet": "{{ ansible_facts['fleet_plan']['hosts'][inventory_hostname] }}"},
    "tasks": [
        {"ansible.builtin.include_role": {"name": f"selfhost.fleet.{role}"}}
        for role in ("baseline", "certificate", "edge")
    ],
}
# An authority as one buys certificates from: a root that browsers know, an issuer below it, and who answers by OCSP.
AUTHORITY = """
set -e; mkdir /root/authority; cd /root/authority
key="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $key -keyout root.key -out root.pem -days 900 -subj /CN=root
openssl req $key -keyout issuer.key -out issuer.csr -subj /CN=issuer
printf "basicConstraints=critical,CA:TRUE\\nkeyUsage=critical,keyCertSign,cRLSign,digitalSignature\\n" > issuer.ext
openssl x509 -req -in issuer.csr -CA root.pem -CAkey root.key -CAcreateserial -days 800 -extfile issuer.ext -out issuer.pem
openssl req $key -keyout key.pem -out leaf.csr -subj /CN={domain}
printf "subjectAltName=DNS:{domain}\\nbasicConstraints=CA:FALSE\\nkeyUsage=digitalSignature\\nextendedKeyUsage=serverAuth\\n" > leaf.ext
printf "authorityInfoAccess=OCSP;URI:http://{address}:2560/\\n" >> leaf.ext
openssl x509 -req -in leaf.csr -CA issuer.pem -CAkey issuer.key -CAcreateserial -days 90 -extfile leaf.ext -out leaf.pem
cat leaf.pem issuer.pem > chain.pem
printf "V\\t491231235959Z\\t\\t$(openssl x509 -in leaf.pem -noout -serial | cut -d= -f2)\\tunknown\\t/CN={domain}\\n" > index
systemd-run --quiet --unit=ocsp openssl ocsp -port 2560 -index /root/authority/index -CA /root/authority/issuer.pem \
  -rsigner /root/authority/issuer.pem -rkey /root/authority/issuer.key -ndays 1
"""
# Protocols, suites, forward secrecy, what the server says, headers, CRIME, BREACH, renegotiation.
SECTIONS = ["-p", "-s", "-f", "-S", "-h", "-C", "-B", "-R"]
SUITES = {
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-CHACHA20-POLY1305",
    "TLS_AES_128_GCM_SHA256",
    "TLS_AES_256_GCM_SHA384",
    "TLS_CHACHA20_POLY1305_SHA256",
}
# What testssl.sh finds fault with, and why it is left. One that is not here fails the test, and so does one that is gone.
FAULTS = {"DNS_CAArecord": "who may certify a name is said in its zone, and this name has none"}
# WARN is what the judge could not find out; what matters here is asked of it by name below.
NO_FAULTS = ("OK", "INFO", "WARN")


@dataclasses.dataclass
class Edge:
    """An edge alone. The judge stands for the rest of the fleet; the runs leave it as it is."""

    host: Host
    judge: Host
    ansible: Ansible
    secrets: dict[str, str]

    def run(self, **certificate: str) -> Run:
        service = {
            "version": "2026.3.6",
            "domain": DOMAIN,
            "certificate": certificate,
            "release": {"checksum": "sha256:" + "0" * 64},
            "settings": {"FLUXBASE_JOBS_ENABLED": "false"},
            "secrets": self.secrets,
        }
        variables = {"fleet_local_ca_dir": str(self.ansible.folder / "ca"), "fleet_services": {"fluxbase": service}}
        groups = {"edge": [self.host], "postgres": [self.judge], "fluxbase": [self.judge]}
        return self.ansible.playbook([PLAN, EDGE], [self.host, self.judge], groups=groups, variables=variables)

    def handshake(self, *options: str) -> str:
        command = ["openssl", "s_client", "-connect", f"{self.host.address}:443", "-servername", DOMAIN]
        return self.judge.root([*command, *options], stdin="").stdout


@pytest.fixture(scope="module")
def judge(new_host: Callable[..., Host]) -> Host:
    """With testssl.sh, and an authority that answers."""
    made = new_host("judge")
    made.root(
        "export DEBIAN_FRONTEND=noninteractive; apt-get update -q; apt-get install -qy --no-install-recommends testssl.sh",
        timeout=300,
    )
    made.root(AUTHORITY.format(domain=DOMAIN, address=made.address))
    return made


@pytest.fixture(scope="module", params=["debian-13", "debian-12"])
def edge(request: pytest.FixtureRequest, new_host: Callable[..., Host], judge: Host, tmp_path_factory: Any) -> Edge:
    edge = Edge(new_host("edge", os=request.param), judge, Ansible(tmp_path_factory.mktemp("tls")), made_secrets())
    pair = {
        name: judge.read(f"/root/authority/{file}.pem") for name, file in (("certificate", "chain"), ("key", "key"))
    }
    edge.run(mode="provided", **pair)
    return edge


@pytest.fixture(scope="module")
def judged(edge: Edge) -> dict[str, list[dict[str, str]]]:
    """All that testssl.sh says, by its names of tests."""
    assert stapled(edge)
    options = ["--quiet", "--color", "0", "--warnings", "off", "--add-ca", "/root/authority/root.pem"]
    target = ["--ip", edge.host.address, f"https://{DOMAIN}:443/.well-known/selfhost-edge"]
    file = f"/root/judged-{edge.host.name}.json"
    edge.judge.root(["testssl", *options, "--jsonfile", file, *SECTIONS, *target], check=False, timeout=900)
    found: dict[str, list[dict[str, str]]] = {}
    for entry in json.loads(edge.judge.read(file)):
        found.setdefault(entry["id"], []).append(entry)
    assert len(found) > 60, found
    return found


def stapled(edge: Edge) -> bool:
    """nginx asks for the first answer when it is first wanted, and has it for those who come after."""
    for _attempt in range(60):
        shown = edge.handshake("-status", "-CAfile", "/root/authority/root.pem", "-verify_return_error")
        if "OCSP Response Status: successful" in shown:
            return "Cert Status: good" in shown
        time.sleep(0.5)
    return False


def one(judged: dict[str, list[dict[str, str]]], name: str) -> str:
    (entry,) = judged[name]
    return entry["finding"]


def test_the_judge_finds_no_fault_that_is_not_known(judged: dict[str, list[dict[str, str]]]) -> None:
    entries = [entry for found in judged.values() for entry in found]
    faults = {entry["id"]: entry["finding"] for entry in entries if entry["severity"] not in NO_FAULTS}
    assert faults.keys() == FAULTS.keys(), faults


def test_only_forward_secret_suites(edge: Edge, judged: dict[str, list[dict[str, str]]]) -> None:
    assert set(one(judged, "FS_ciphers").split()) == SUITES
    for name in ("NULL", "aNULL", "EXPORT", "LOW", "3DES_IDEA", "OBSOLETED", "STRONG_NOFS"):
        assert one(judged, f"cipherlist_{name}") == "not offered"
    offered = {
        name: one(judged, name).startswith("offered")
        for name in ("SSLv2", "SSLv3", "TLS1", "TLS1_1", "TLS1_2", "TLS1_3")
    }
    assert [name for name, is_offered in offered.items() if is_offered] == ["TLS1_2", "TLS1_3"]


def test_ocsp_is_stapled_where_the_certificate_names_a_responder(
    edge: Edge, judged: dict[str, list[dict[str, str]]]
) -> None:
    assert one(judged, "cert_ocspURL") == f"http://{edge.judge.address}:2560/"
    assert one(judged, "OCSP_stapling").startswith("offered")
    assert one(judged, "cert_chain_of_trust").startswith("passed")


def test_browsers_are_told_to_stay_with_https(judged: dict[str, list[dict[str, str]]]) -> None:
    assert "63072000" in one(judged, "HSTS_time")


def test_nothing_is_compressed(judged: dict[str, list[dict[str, str]]]) -> None:
    assert one(judged, "CRIME_TLS").startswith("not vulnerable")
    assert one(judged, "BREACH").startswith("not vulnerable")


def test_no_ticket_leaves_the_host(edge: Edge, judged: dict[str, list[dict[str, str]]]) -> None:
    """A ticket is the session itself, encrypted by a key that lives as long as nginx: who gets at that key reads all that was said."""
    assert "session ticket" not in one(judged, "TLS_extensions")
    # Resumed all the same, out of the server's memory; in TLS 1.3 after the handshake, so that nginx has to be the one who hangs up.
    edge.handshake("-tls1_2", "-sess_out", "/root/tls1_2")
    shown = edge.handshake("-tls1_3", "-ign_eof", "-sess_out", "/root/tls1_3")
    for version in ("tls1_2", "tls1_3"):
        assert "\nReused, " in edge.handshake(f"-{version}", "-sess_in", f"/root/{version}")
    # TLS 1.3 calls a reference to a session a ticket too; that one has 32 bytes.
    lines = [line.split()[0] for line in shown.splitlines() if line.startswith("    00")]
    assert set(lines) == {"0000", "0010"}


def test_a_modern_key(edge: Edge, judged: dict[str, list[dict[str, str]]]) -> None:
    assert one(judged, "cert_keySize") == "EC 256 bits (curve P-256)"
    assert one(judged, "cert_signatureAlgorithm") == "ECDSA with SHA256"
    curves = set(one(judged, "FS_ECDHE_curves").split())
    assert curves == {"X25519", "prime256v1", "secp384r1"}
    assert (("FS_KEMs" in judged) and one(judged, "FS_KEMs") == "X25519MLKEM768") is (edge.host.os == "debian-13")


# After the judge


def test_the_fleet_s_own_authority_has_a_modern_key_too_and_nothing_to_staple(edge: Edge) -> None:
    edge.run(mode="local_ca")
    edge.judge.put("/root/own.pem", edge.host.read(f"/etc/selfhost/tls/{DOMAIN}/ca.pem"))
    shown = edge.handshake("-status", "-CAfile", "/root/own.pem", "-verify_return_error", "-verify_hostname", DOMAIN)
    assert "Verify return code: 0 (ok)" in shown
    assert "OCSP response: no response sent" in shown
    text = edge.judge.root(["openssl", "x509", "-noout", "-text"], stdin=shown).stdout
    assert "NIST CURVE: P-256" in text
    assert "ssl_stapling" not in edge.host.root("nginx -T 2>&1").stdout
