# Copyright: (c) The selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
"""Certificates of a public authority: what certbot has on this host, and having it obtain what is missing.

Renewal is certbot's own, by its timer. It is asked here only where a certificate is missing or is another than the plan's.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from .host import CA, CHAIN, KEY, CertificateError, Openssl, Run, Wanted

# Ours among certbot's certificates; all others are the user's own.
PREFIX = "selfhost-"
# certbot's file in live/<name>, and ours.
FILES = {"privkey.pem": KEY, "fullchain.pem": CHAIN, "chain.pem": CA}
ATTEMPTS = 4
PAUSE = 5.0  # seconds
# An authority may refuse any nonce (RFC 8555, 6.5), and certbot asks again only once; the timer may hold certbot's lock.
PASSING = ("anti-replay nonce", "Another instance of Certbot is already running")
# What certbot says around the reason of a failure.
NOISE = (
    "Saving debug log",
    "Ask for help",
    "Requesting a certificate",
    "Renewing an existing",
    "Account registered",
    "Some challenges",
)


@dataclass(frozen=True)
class Authority:
    """Whom certbot asks, and in whose name."""

    server: str
    email: str = ""
    ca_file: str = ""  # on the host


@dataclass(frozen=True)
class Paths:
    """Where things lie on the host."""

    webroot: Path
    deploy: Path  # the program that puts certificates in place
    note: Path  # the account, as it was last told to the authority
    certbot: Path = Path("/usr/bin/certbot")
    home: Path = Path("/etc/letsencrypt")


@dataclass
class Survey:
    """What is to be done on a host."""

    obtain: dict[str, list[str]] = field(default_factory=dict)  # by the certificate's name, why
    deploy: list[str] = field(default_factory=list)  # obtained before, and not in place
    delete: list[str] = field(default_factory=list)  # certbot's names
    account: bool = False  # the authority has another e-mail

    @property
    def changed(self) -> bool:
        return bool(self.obtain or self.deploy or self.delete or self.account)


class Acme:
    """The certificates of one host that come from a public authority."""

    def __init__(
        self,
        run: Run,
        *,
        openssl: Openssl,
        authority: Authority,
        paths: Paths,
        now: Callable[[], float],
        sleep: Callable[[float], None],
    ) -> None:
        self._run = run
        self._openssl = openssl
        self._authority = authority
        self._paths = paths
        self._now = now
        self._sleep = sleep

    def survey(self, certificates: Sequence[Wanted], *, dry_run: bool) -> Survey:
        """Compare what certbot has with what the plan wants."""
        found = Survey()
        if not self._paths.certbot.exists():
            if not dry_run:
                raise CertificateError("certbot is not installed; the package belongs to those of the plan")
            found.obtain = {wanted.name: ["certbot is not installed yet"] for wanted in certificates}
            return found
        for wanted in certificates:
            reasons = self._reasons(wanted)
            if reasons:
                found.obtain[wanted.name] = reasons
            elif not self._in_place(wanted):
                found.deploy.append(wanted.name)
        kept = {PREFIX + wanted.name for wanted in certificates}
        ours = (path.stem for path in sorted((self._paths.home / "renewal").glob(f"{PREFIX}*.conf")))
        found.delete = [name for name in ours if name not in kept]
        told = self._told()
        found.account = told.get("server") == self._authority.server and told.get("email") != self._authority.email
        return found

    def converge(self, certificates: Iterable[Wanted], survey: Survey) -> None:
        """Carry it out. One certificate that is refused does not keep the others from their place."""
        if survey.account:
            self._certbot("update_account", *self._identity())
            self._tell()
        refused: list[str] = []
        for wanted in certificates:
            if wanted.name not in survey.obtain:
                continue
            try:
                self._obtain(wanted)
                self._tell()
            except CertificateError as error:
                refused.append(str(error))
        for name in survey.delete:
            self._certbot("delete", "--cert-name", name)
        if survey.deploy or survey.obtain:
            try:
                self._deploy()
            except CertificateError as error:
                refused.append(str(error))
        if refused:
            raise CertificateError("\n".join(refused))

    # ---- looking

    def _reasons(self, wanted: Wanted) -> list[str]:
        name = PREFIX + wanted.name
        settings = self._paths.home / "renewal" / f"{name}.conf"
        chain = self._paths.home / "live" / name / "fullchain.pem"
        present = self._openssl.certificate(chain) if settings.exists() and chain.exists() else None
        if present is None:
            return ["there is no certificate"]
        reasons = []
        if present.names != wanted.names:
            reasons.append("the names have changed")
        if server_of(settings.read_text()) != self._authority.server:
            reasons.append("the authority has changed")
        if present.until <= self._now():
            reasons.append("it has expired")
        return reasons

    def _in_place(self, wanted: Wanted) -> bool:
        live = self._paths.home / "live" / (PREFIX + wanted.name)
        return all(
            (wanted.directory / ours).exists()
            and (wanted.directory / ours).read_bytes() == (live / theirs).read_bytes()
            for theirs, ours in FILES.items()
        )

    def _told(self) -> dict[str, str]:
        return dict(json.loads(self._paths.note.read_text())) if self._paths.note.exists() else {}

    # ---- doing

    def _obtain(self, wanted: Wanted) -> None:
        domains = sorted(wanted.names)
        command = ["certonly", "--cert-name", PREFIX + wanted.name, *self._identity(), "--agree-tos"]
        command += ["--webroot", "--webroot-path", str(self._paths.webroot), "--preferred-challenges", "http"]
        command += ["--key-type", "ecdsa", "--elliptic-curve", "secp256r1"]
        # That another authority or a staging one takes over is what the inventory says.
        command += ["--force-renewal", "--renew-with-new-domains", "--break-my-certs"]
        try:
            self._certbot(*command, *(word for domain in domains for word in ("--domain", domain)))
        except CertificateError as error:
            raise CertificateError(
                f"certificate {wanted.name}: {self._authority.server} gave none: {error}. The site goes on with the "
                f"certificate that it has. Each of {', '.join(domains)} has to lead to this host, and port 80 has to be "
                "open to the authority; then run again. The host has more in /var/log/letsencrypt/letsencrypt.log"
            ) from error

    def _identity(self) -> list[str]:
        email = ["--email", self._authority.email] if self._authority.email else ["--register-unsafely-without-email"]
        return ["--server", self._authority.server, "--no-eff-email", *email]

    def _tell(self) -> None:
        """Remember what the authority was told: it does not say it again."""
        self._paths.note.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        self._paths.note.write_text(json.dumps({"server": self._authority.server, "email": self._authority.email}))

    def _certbot(self, *arguments: str) -> None:
        trust = [f"REQUESTS_CA_BUNDLE={self._authority.ca_file}"] if self._authority.ca_file else []
        command = ["/usr/bin/env", *trust, str(self._paths.certbot), *arguments, "--non-interactive"]
        for attempt in range(1, ATTEMPTS + 1):
            done = self._run(command)
            if done.returncode == 0:
                return
            text = f"{done.stdout}\n{done.stderr}"
            if attempt == ATTEMPTS or not any(words in text for words in PASSING):
                raise CertificateError(reason(text))
            self._sleep(PAUSE)

    def _deploy(self) -> None:
        done = self._run([str(self._paths.deploy)])
        if done.returncode != 0:
            raise CertificateError(done.stderr.strip() or f"{self._paths.deploy} failed")


def server_of(settings: str) -> str:
    """The authority's address in certbot's renewal/<name>.conf."""
    found = re.search(r"^server\s*=\s*(\S+)", settings, re.MULTILINE)
    return found[1] if found else ""


def reason(text: str) -> str:
    """What certbot says of a failure, on one line and without what it says on every one."""
    lines = (line.strip() for line in text.splitlines())
    return (
        " ".join(line for line in lines if line and not line.startswith(NOISE)).rstrip(".") or "certbot gave no reason"
    )
