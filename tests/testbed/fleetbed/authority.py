"""A public certificate authority for test hosts: Debian's pebble, Let's Encrypt's own test server, on a host of its own.

It rejects nonces at random and validates again at random what it has validated, as pebble does unless told otherwise.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from .host import Host

PORT, MANAGEMENT, DNS, RECORDS = 14000, 15000, 8053, 8055
REJECTED = 5  # percent of good nonces; pebble's own default
REUSED = 50  # percent of validations
DAYS = 90  # of a certificate, as Let's Encrypt's

INSTALL = """
export DEBIAN_FRONTEND=noninteractive
apt-get update -q
apt-get install -qy --no-install-recommends pebble openssl curl ca-certificates
"""
# The certificate of pebble's own address, by an authority that the site's hosts know from ca_file.
KEYS = """
mkdir -p /etc/pebble; cd /etc/pebble
curve="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
openssl req -x509 $curve -keyout ca.key -out ca.pem -days 30 -subj /CN=pebble-own
openssl req $curve -keyout key.pem -out request.pem -subj /CN=pebble
echo "subjectAltName=IP:{address}" > names
openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 -extfile names -out cert.pem
"""


@dataclass(frozen=True)
class Authority:
    """`host` is also a place from where users come: it has curl and openssl."""

    host: Host

    @classmethod
    def start(cls, host: Host, *, leads_to: str) -> Authority:
        """Every name leads to that address, until `point` says otherwise."""
        host.root(INSTALL, timeout=300)
        host.root(KEYS.format(address=host.address))
        settings = {
            "listenAddress": f"0.0.0.0:{PORT}",
            "managementListenAddress": f"0.0.0.0:{MANAGEMENT}",
            "certificate": "/etc/pebble/cert.pem",
            "privateKey": "/etc/pebble/key.pem",
            "httpPort": 80,
            "tlsPort": 443,
            "ocspResponderURL": "",
            "externalAccountBindingRequired": False,
            "retryAfter": {"authz": 1, "order": 1},
            "certificateValidityPeriod": DAYS * 86400,
        }
        host.put("/etc/pebble/config.json", json.dumps({"pebble": settings}))
        unused = [word for kind in ("http01", "https01", "tlsalpn01", "doh") for word in (f"-{kind}", "")]
        names = ["-dns01", f":{DNS}", "-management", f":{RECORDS}", "-defaultIPv4", leads_to, "-defaultIPv6", ""]
        host.root(["systemd-run", "--unit=pebble-names", "pebble-challtestsrv", *unused, *names])
        environment = {
            "PEBBLE_VA_NOSLEEP": "1",
            "PEBBLE_WFE_NONCEREJECT": str(REJECTED),
            "PEBBLE_AUTHZREUSE": str(REUSED),
        }
        options = [f"--setenv={name}={value}" for name, value in environment.items()]
        command = ["pebble", "-config", "/etc/pebble/config.json", "-dnsserver", f"127.0.0.1:{DNS}"]
        host.root(["systemd-run", "--unit=pebble", *options, *command])
        made = cls(host)
        made.host.root(f"timeout 30 sh -c 'until {made._curl} {made.server} > /dev/null; do sleep 0.2; done'")
        return made

    @property
    def server(self) -> str:
        """Address of its directory."""
        return f"https://{self.host.address}:{PORT}/dir"

    @property
    def _curl(self) -> str:
        return "curl --silent --show-error --fail --cacert /etc/pebble/ca.pem"

    @property
    def own(self) -> str:
        """By what its own address is checked."""
        return self.host.read("/etc/pebble/ca.pem")

    @property
    def root(self) -> str:
        """By what the certificates that it gives are checked; another one after each start."""
        return self.host.root(f"{self._curl} https://{self.host.address}:{MANAGEMENT}/roots/0").stdout

    def point(self, name: str, address: str) -> None:
        """Let a name lead elsewhere."""
        record = json.dumps({"host": f"{name}.", "addresses": [address]})
        self.host.root([*self._plain, f"http://127.0.0.1:{RECORDS}/add-a"], stdin=record)

    @property
    def _plain(self) -> list[str]:
        return ["curl", "--silent", "--show-error", "--fail", "--data-binary", "@-"]

    def stop(self) -> None:
        """It forgets all that it knew, also the accounts."""
        self.host.root("systemctl stop pebble.service")
