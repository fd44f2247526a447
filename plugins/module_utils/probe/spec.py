# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""What is asked, and what counts as an answer."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

SCHEMES: dict[str, dict[str, int | None]] = {
    "http": {"http": 80, "https": 443},
    "tcp": {"tcp": None},
    "websocket": {"ws": 80, "wss": 443},
}
ONLY_FOR: dict[str, tuple[str, ...]] = {
    "status": ("http",),
    "body_pattern": ("http",),
    "headers": ("http", "websocket"),
    "host": ("http", "websocket"),
    "ca_file": ("http", "websocket"),
    "send": ("websocket",),
    "message_pattern": ("websocket",),
}
# RFC 9110: a token. Everything else in a name, and a line break in a value, would end the header early.
HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


class ProbeSpecError(ValueError):
    """The probe as written can never work; the message names the option."""


@dataclass(frozen=True, kw_only=True)
class ProbeSpec:
    kind: str
    url: str
    status: tuple[int, ...] = (200,)
    body_pattern: str | None = None
    send: str | None = None
    message_pattern: str | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    host: str | None = None
    connect_to: str | None = None
    ca_file: str | None = None
    verify: bool = True
    timeout: float = 5.0
    interval: float = 0.5
    deadline: float = 60.0
    successes: int = 1
    failures: int = 0  # in a row, that end it; 0 for none
    unit: str | None = None

    @classmethod
    def from_mapping(cls, options: Mapping[str, Any]) -> ProbeSpec:
        """Options left out or None mean their default, so that a module's parameters can be handed over as they are."""
        given = {name: value for name, value in options.items() if value is not None}
        unknown = sorted(set(given) - set(cls.__dataclass_fields__))
        if unknown:
            raise ProbeSpecError(
                f"probe: unknown option {', '.join(unknown)}; known are {', '.join(sorted(cls.__dataclass_fields__))}."
            )
        for name in ("kind", "url"):
            if not given.get(name):
                raise ProbeSpecError(f"probe.{name} is missing.")
        kind = str(given["kind"])
        if kind not in SCHEMES:
            raise ProbeSpecError(f"probe.kind is {kind!r}; it is one of {', '.join(SCHEMES)}.")
        for name, kinds in ONLY_FOR.items():
            # status has a default that callers hand over whatever the kind.
            if kind not in kinds and given.get(name) and given[name] != [200]:
                raise ProbeSpecError(f"probe.{name} means nothing for kind {kind}; it is for {' and '.join(kinds)}.")
        statuses = given.get("status", (200,))
        spec = cls(
            kind=kind,
            url=str(given["url"]),
            status=tuple(
                _integer("status", item) for item in (statuses if isinstance(statuses, list | tuple) else [statuses])
            ),
            body_pattern=_pattern("body_pattern", given.get("body_pattern")),
            send=None if given.get("send") is None else str(given["send"]),
            message_pattern=_pattern("message_pattern", given.get("message_pattern")),
            headers=_headers(given.get("headers", {})),
            host=given.get("host"),
            connect_to=given.get("connect_to"),
            ca_file=given.get("ca_file"),
            verify=_boolean("verify", given.get("verify", True)),
            timeout=_seconds("timeout", given.get("timeout", cls.timeout), at_least=0.05),
            interval=_seconds("interval", given.get("interval", cls.interval), at_least=0.0),
            deadline=_seconds("deadline", given.get("deadline", cls.deadline), at_least=0.0),
            successes=_integer("successes", given.get("successes", 1)),
            failures=_integer("failures", given.get("failures", 0)),
            unit=given.get("unit"),
        )
        if not spec.status:
            raise ProbeSpecError("probe.status is empty: no answer could ever be right.")
        if spec.successes < 1:
            raise ProbeSpecError(f"probe.successes is {spec.successes}; at least 1 is needed.")
        if spec.unit is not None and (spec.unit.startswith("-") or re.search(r"[\s/]", spec.unit)):
            raise ProbeSpecError(f"probe.unit {spec.unit!r} is not the name of a systemd unit.")
        spec.address()
        return spec

    @property
    def parts(self) -> SplitResult:
        return urlsplit(self.url)

    @property
    def tls(self) -> bool:
        return self.parts.scheme in ("https", "wss")

    @property
    def server_name(self) -> str:
        """The name that the certificate must carry and that is sent as SNI."""
        return split_host_port(self.host)[0] if self.host else (self.parts.hostname or "")

    @property
    def host_header(self) -> str:
        return self.host or self.parts.netloc

    @property
    def target(self) -> str:
        return (self.parts.path or "/") + (f"?{self.parts.query}" if self.parts.query else "")

    def address(self) -> tuple[str, int]:
        """Where the connection goes: connect_to where given, else the address in url."""
        schemes = SCHEMES[self.kind]
        try:
            parts, port = self.parts, self.parts.port
        except ValueError as error:
            raise ProbeSpecError(f"probe.url {self.url!r}: {error}.") from error
        if parts.scheme not in schemes:
            wanted = " or ".join(f"{name}://" for name in schemes)
            raise ProbeSpecError(f"probe.url {self.url!r} does not fit kind {self.kind}: it begins with {wanted}.")
        if parts.username is not None:
            raise ProbeSpecError("probe.url contains a user or password; it would be seen in logs. Take it out.")
        if not parts.hostname:
            raise ProbeSpecError(f"probe.url {self.url!r} names no host.")
        if re.search(r"[\x00-\x20\x7f]", self.url):
            raise ProbeSpecError("probe.url contains a space or control character; write it as %20 and the like.")
        port = port or schemes[parts.scheme]
        if port is None:
            raise ProbeSpecError(f"probe.url {self.url!r} names no port, as in tcp://127.0.0.1:5432.")
        if not self.connect_to:
            return parts.hostname, port
        host, other_port = split_host_port(self.connect_to)
        return host, other_port or port

    def describe(self) -> str:
        detour = f" at {self.connect_to}" if self.connect_to else ""
        named = f" as {self.host}" if self.host else ""
        return {"http": "GET ", "tcp": "connect to ", "websocket": "WebSocket "}[self.kind] + self.url + detour + named


def split_host_port(text: str) -> tuple[str, int | None]:
    """ "host", "host:80", "::1", "[::1]:80"."""
    if text.count(":") > 1 and not text.startswith("["):
        return text, None
    try:
        parts = urlsplit(f"//{text}")
        port = parts.port
    except ValueError as error:
        raise ProbeSpecError(f"probe.connect_to or probe.host {text!r}: {error}.") from error
    if not parts.hostname or parts.path or parts.username is not None:
        raise ProbeSpecError(f"probe.connect_to or probe.host {text!r} is not host or host:port.")
    return parts.hostname, port


def _pattern(name: str, value: Any) -> str | None:
    if value is None:
        return None
    try:
        re.compile(str(value))
    except re.error as error:
        raise ProbeSpecError(f"probe.{name} {value!r} is not a regular expression: {error}.") from error
    return str(value)


def _headers(value: Any) -> dict[str, str]:
    if not isinstance(value, Mapping):
        raise ProbeSpecError("probe.headers is a mapping of names to values.")
    headers = {str(name): str(item) for name, item in value.items()}
    for name, item in headers.items():
        if not HEADER_NAME.fullmatch(name) or re.search(r"[\r\n\x00]", item):
            raise ProbeSpecError(f"probe.headers: {name!r} is not a header, or its value contains a line break.")
        if name.lower() == "host":
            raise ProbeSpecError(
                "probe.headers: give the Host header as probe.host; the certificate is checked by it too."
            )
    return headers


def _seconds(name: str, value: Any, *, at_least: float) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError) as error:
        raise ProbeSpecError(f"probe.{name} is {value!r}; it is a number of seconds.") from error
    if not at_least <= seconds <= 86400:
        raise ProbeSpecError(f"probe.{name} is {seconds:g} seconds; it lies between {at_least:g} and 86400.")
    return seconds


def _integer(name: str, value: Any) -> int:
    try:
        return int(str(value))
    except ValueError as error:
        raise ProbeSpecError(f"probe.{name}: {value!r} is not a whole number.") from error


def _boolean(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ProbeSpecError(f"probe.{name} is {value!r}; it is true or false.")
    return value
