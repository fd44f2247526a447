# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Keys and certificates on a host: what is there, what is missing, and putting it in place.

The host has openssl and no Python library for certificates, so openssl is asked.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import ssl
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

DAY = 86400
KEY, CHAIN, CA = "privkey.pem", "fullchain.pem", "ca.pem"
PENDING = ".pending.pem"  # the next key, until its certificate is there
PLACEHOLDER = "selfhost.fleet placeholder"
PLACEHOLDER_DAYS = 7

Run = Callable[[Sequence[str]], subprocess.CompletedProcess[str]]


class CertificateError(Exception):
    """What is wrong and what to do, written for the operator; never with a key in it."""


def normal_names(domains: Iterable[str], addresses: Iterable[str]) -> frozenset[str]:
    """Domains and addresses as comparable text."""
    try:
        return frozenset([d.lower().rstrip(".") for d in domains] + [str(ipaddress.ip_address(a)) for a in addresses])
    except ValueError as error:
        raise CertificateError(f"{error}; addresses of a certificate are IPv4 or IPv6 addresses") from error


@dataclass(frozen=True)
class Wanted:
    """One certificate of the plan."""

    name: str
    names: frozenset[str]
    mode: str
    directory: Path
    owner: str = "root"
    group: str = "root"
    reload: tuple[str, ...] = ()
    chain: str = ""  # mode provided: the wanted fullchain.pem
    ca: str = ""  # the wanted ca.pem; empty where the authority does not exist yet

    @classmethod
    def of(cls, entry: dict[str, Any], *, authority: str) -> Wanted:
        """From the module's options."""
        return cls(
            name=entry["name"],
            names=normal_names(entry.get("domains") or [], entry.get("addresses") or []),
            mode=entry["mode"],
            directory=Path(entry["directory"]),
            owner=entry.get("owner") or "root",
            group=entry.get("group") or "root",
            reload=tuple(entry.get("reload") or ()),
            chain=entry.get("chain") or "",
            ca=(entry.get("ca") or "") if entry["mode"] == "provided" else authority,
        )

    @property
    def key_mode(self) -> int:
        """0600; a group reads the key only where root owns it, which is also what PostgreSQL demands."""
        return 0o640 if self.owner == "root" and self.group != "root" else 0o600


@dataclass(frozen=True)
class Present:
    """What openssl says of a host's certificate."""

    names: frozenset[str]
    until: float  # seconds since 1970
    public_key: str
    issuer: str = ""


@dataclass
class Survey:
    """What is to be done for one certificate."""

    wanted: Wanted
    reasons: list[str] = field(default_factory=list)
    ownership: bool = False  # only owner, group or mode differ
    before: str = "absent"

    @property
    def after(self) -> str:
        return f"{', '.join(sorted(self.wanted.names))} ({self.wanted.mode})"


class Openssl:
    """The few questions that are asked of openssl."""

    def __init__(self, run: Run, *, binary: str = "/usr/bin/openssl") -> None:
        self._run = run
        self._binary = binary

    @property
    def available(self) -> bool:
        """Whether openssl is installed; on a bare host in check mode it need not be."""
        return Path(self._binary).exists()

    def certificate(self, path: Path) -> Present | None:
        """The first certificate of a file, or None where there is none."""
        command = ["x509", "-in", str(path), "-noout", "-enddate", "-pubkey", "-ext", "subjectAltName"]
        command += ["-issuer", "-nameopt", "RFC2253"]
        asked = self._run([self._binary, *command])
        return parse_certificate(asked.stdout) if asked.returncode == 0 else None

    def public_key(self, path: Path) -> str | None:
        """The public half of a private key, or None where the file is no key."""
        asked = self._run([self._binary, "pkey", "-in", str(path), "-pubout"])
        return asked.stdout.strip() if asked.returncode == 0 else None

    def verifies(self, path: Path, ca: Path) -> bool:
        """Whether the certificate is signed by the authority, and neither has expired."""
        command = ["verify", "-no-CApath", "-no-CAstore", "-CAfile", str(ca), "-untrusted", str(path), str(path)]
        return self._run([self._binary, *command]).returncode == 0

    def new_key(self, path: Path) -> None:
        """A new ECDSA key, in a file that was root's alone from its first byte on."""
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600))
        path.chmod(0o600)
        self._must(["genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", str(path)])

    def request(self, key: Path) -> str:
        """A signing request: a proof that the host has the key; the names are the plan's, whatever it says."""
        return self._must(["req", "-new", "-key", str(key), "-subj", "/CN=selfhost.fleet"])

    def placeholder(self, key: Path, names: Iterable[str]) -> str:
        """A certificate that the key signs itself: good for nginx to start with, and for nobody to trust."""
        alternative = ",".join(f"DNS:{name}" for name in sorted(names))
        command = [
            "req",
            "-x509",
            "-new",
            "-key",
            str(key),
            "-days",
            str(PLACEHOLDER_DAYS),
            "-subj",
            f"/CN={PLACEHOLDER}",
        ]
        return self._must([*command, "-addext", f"subjectAltName={alternative}"])

    def _must(self, command: Sequence[str]) -> str:
        done = self._run([self._binary, *command])
        if done.returncode != 0:
            raise CertificateError(f"openssl {command[0]} failed: {done.stderr.strip()}")
        return done.stdout


def parse_certificate(text: str) -> Present | None:
    """The answer of `openssl x509 -enddate -pubkey -ext subjectAltName -issuer -nameopt RFC2253`."""
    names: list[str] = []
    issuer = ""
    until: float | None = None
    for line in text.splitlines():
        if line.startswith("notAfter="):
            until = ssl.cert_time_to_seconds(line.partition("=")[2])
        if line.startswith("issuer="):
            issuer = line.partition("=")[2]
        for entry in line.strip().split(", "):
            kind, _colon, value = entry.partition(":")
            if kind == "DNS":
                names.append(value.lower())
            elif kind == "IP Address":
                names.append(str(ipaddress.ip_address(value)))
    begin, end = text.find("-----BEGIN PUBLIC KEY-----"), text.find("-----END PUBLIC KEY-----")
    if until is None or begin < 0 or end < 0:
        return None
    public_key = text[begin : end + len("-----END PUBLIC KEY-----")]
    return Present(names=frozenset(names), until=until, public_key=public_key, issuer=issuer)


class Host:
    """All certificates of one host."""

    def __init__(
        self, run: Run, *, openssl: Openssl, now: Callable[[], float], renew_before: int, dry_run: bool
    ) -> None:
        self._run = run
        self._openssl = openssl
        self._now = now
        self._renew_before = renew_before  # days
        self._dry_run = dry_run

    # ---- looking

    def survey(self, wanted: Wanted) -> Survey:
        """Compare one certificate with what is on the host."""
        survey = Survey(wanted)
        if not self._openssl.available:
            if not self._dry_run:
                raise CertificateError(
                    "openssl is not installed; the Debian package openssl belongs to the plan's packages"
                )
            survey.reasons.append("openssl is not installed yet")
            return survey
        chain, key, ca = (wanted.directory / name for name in (CHAIN, KEY, CA))
        present = self._openssl.certificate(chain) if chain.exists() else None
        if present is None:
            survey.reasons.append("there is no certificate")
            return survey
        days = int((present.until - self._now()) // DAY)
        survey.before = f"{', '.join(sorted(present.names))}, {days} days left"
        if not key.exists() or self._openssl.public_key(key) != present.public_key:
            survey.reasons.append("the key does not belong to the certificate")
        ca_text = ca.read_text() if ca.exists() else ""
        if wanted.mode == "provided":
            if (chain.read_text(), ca_text) != (wanted.chain, wanted.ca):
                survey.reasons.append("another certificate is provided")
        elif wanted.mode == "local_ca":
            if present.names != wanted.names:
                survey.reasons.append("the names have changed")
            if days < self._renew_before:
                survey.reasons.append(f"{days} days are left")
            if ca_text != wanted.ca or not self._openssl.verifies(chain, ca):
                survey.reasons.append("it is not signed by the fleet's authority")
        survey.ownership = not survey.reasons and not all(self._owned(wanted, name) for name in (KEY, CHAIN, CA))
        return survey

    def _owned(self, wanted: Wanted, name: str) -> bool:
        status = (wanted.directory / name).stat()
        ids = self._ids(wanted)
        return ids == (status.st_uid, status.st_gid) and status.st_mode & 0o7777 == self._mode(wanted, name)

    @staticmethod
    def _mode(wanted: Wanted, name: str) -> int:
        return wanted.key_mode if name == KEY else 0o644

    def _ids(self, wanted: Wanted) -> tuple[int, int] | None:
        """Owner and group as numbers; None where they do not exist yet, which only check mode forgives."""
        try:
            return pwd.getpwnam(wanted.owner).pw_uid, grp.getgrnam(wanted.group).gr_gid
        except KeyError as error:
            if self._dry_run:
                return None
            reason = f"certificate {wanted.name}: the host has no {wanted.owner}:{wanted.group} ({error.args[0]})"
            raise CertificateError(f"{reason}; install the package that makes them first") from error

    # ---- doing

    def own(self, wanted: Wanted) -> None:
        """Put owner, group and mode right."""
        ids = self._ids(wanted)
        if ids is None or self._dry_run:
            return
        for name in (KEY, CHAIN, CA):
            os.chown(wanted.directory / name, *ids)
            (wanted.directory / name).chmod(self._mode(wanted, name))

    def request(self, wanted: Wanted) -> str:
        """A new key beside the present one, and the request for its certificate."""
        self._ids(wanted)
        wanted.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        pending = wanted.directory / PENDING
        self._openssl.new_key(pending)
        return self._openssl.request(pending)

    def placeholder(self, wanted: Wanted) -> None:
        """Mode acme: the authority asks nginx for a proof, and nginx does not start without a certificate."""
        self.request(wanted)
        chain = self._openssl.placeholder(wanted.directory / PENDING, wanted.names)
        self.install([(wanted, chain, chain, "")])

    def install(self, issued: Sequence[tuple[Wanted, str, str, str]]) -> list[str]:
        """Put (certificate, chain, ca, key or nothing) in place, reload the units; all of it, or nothing.

        Returns the units that were reloaded.
        """
        former: dict[Path, tuple[bytes, os.stat_result] | None] = {}
        units: list[str] = []
        try:
            for wanted, chain, ca, key in issued:
                self._install_one(wanted, chain, ca, key, former)
                units += [unit for unit in wanted.reload if unit not in units]
            return [unit for unit in units if self._reload(unit)]
        except (CertificateError, OSError) as error:
            for path, content in former.items():
                _restore(path, content)
            for unit in units:
                self._run(["systemctl", "reload", unit])
            raise CertificateError(f"{error}; the former certificates are back in place") from error

    def _install_one(
        self, wanted: Wanted, chain: str, ca: str, key: str, former: dict[Path, tuple[bytes, os.stat_result] | None]
    ) -> None:
        ids = self._ids(wanted)
        wanted.directory.mkdir(mode=0o755, parents=True, exist_ok=True)
        pending = wanted.directory / PENDING
        if key:
            _write(pending, key, mode=0o600)
        candidates = {KEY: pending, CHAIN: wanted.directory / f".{CHAIN}", CA: wanted.directory / f".{CA}"}
        _write(candidates[CHAIN], chain, mode=0o644)
        _write(candidates[CA], ca, mode=0o644)
        present = self._openssl.certificate(candidates[CHAIN])
        if present is None or present.public_key != self._openssl.public_key(pending):
            raise CertificateError(f"certificate {wanted.name}: the key on the host is not the certificate's")
        for name, candidate in candidates.items():
            live = wanted.directory / name
            former[live] = (live.read_bytes(), live.stat()) if live.exists() else None
            if ids is not None:
                os.chown(candidate, *ids)
            candidate.chmod(self._mode(wanted, name))
        for name, candidate in candidates.items():
            candidate.replace(wanted.directory / name)

    def _reload(self, unit: str) -> bool:
        """Reload a unit that runs; one that does not will read the files when it starts."""
        if self._run(["systemctl", "is-active", "--quiet", unit]).returncode != 0:
            return False
        done = self._run(["systemctl", "reload", unit])
        if done.returncode != 0:
            raise CertificateError(f"{unit} cannot be reloaded with the new certificate: {done.stderr.strip()}")
        return True


def _write(path: Path, text: str, *, mode: int) -> None:
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    Path(name).chmod(mode)
    Path(name).replace(path)


def _restore(path: Path, content: tuple[bytes, os.stat_result] | None) -> None:
    if content is None:
        path.unlink(missing_ok=True)
        return
    data, status = content
    _write(path, data.decode(), mode=status.st_mode & 0o7777)
    os.chown(path, status.st_uid, status.st_gid)
