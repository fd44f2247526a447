# GNU General Public License v3.0+ (see LICENSE)
"""A first definition of a service, from a few answers: commented, accepted by the schema, and enough to deploy it."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from .findings import Findings
from .services import DOMAIN
from .versions import DISTRIBUTION

PREFIX = "new_service_"
FIRST_PORT = 8101
NONE = "none"
WORDS = {"yes": True, "true": True, "no": False, "false": False}
NAME = re.compile(r"[a-z][a-z0-9-]{0,30}")
GROUP = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
VERSION = re.compile(r"[0-9][A-Za-z0-9.+~-]*")
PATH = re.compile(r"/[A-Za-z0-9._/-]*")
PACKAGE = re.compile(r"[a-z0-9][a-z0-9+.-]+")
CHECKSUM = re.compile(r"sha256:[0-9a-f]{64}")
# The service's name is its user's and that of its folder in /etc: these are others' there.
TAKEN = frozenset(
    ("admin", "apt", "bin", "daemon", "default", "nginx", "nobody", "pgbouncer", "postgres", "postgresql")
    + ("root", "selfhost", "ssh", "sshd", "ssl", "sys", "systemd", "www-data")
)


@dataclass(frozen=True, kw_only=True)
class Answers:
    """`health` and `websocket` are paths, empty for none; `version_arguments` is empty for a program that does not tell its version."""

    name: str
    description: str
    program: str
    version: str
    checksum: str
    arguments: tuple[str, ...]
    version_arguments: tuple[str, ...]
    port: int
    health: str
    websocket: str
    state: bool
    database: bool
    domain: str
    hosts: str

    @property
    def kind(self) -> str:
        """`address`, `file` or `package`, by the look of it."""
        if self.program.startswith("https://"):
            return "address"
        return "file" if self.program.startswith("/") else "package"

    @property
    def password(self) -> str:
        return f"{self.name.upper().replace('-', '_')}_DATABASE_PASSWORD"


class Form:
    """Answers as they were given, read one by one; what is wrong with one is a finding under its variable."""

    def __init__(self, given: Mapping[str, Any], findings: Findings) -> None:
        self.given = {name: str(value).strip() for name, value in given.items() if value is not None}
        self.findings = findings

    def refuse(self, name: str, problem: str, remedy: str) -> None:
        self.findings.add(PREFIX + name, problem, remedy)

    def text(self, name: str, pattern: re.Pattern[str], remedy: str, default: str = "") -> str:
        value = self.given.get(name) or default
        if not value:
            self.refuse(name, "is missing", remedy)
        elif not pattern.fullmatch(value):
            self.refuse(name, f"is {value}", remedy)
        return value

    def path(self, name: str, default: str) -> str:
        value = self.given.get(name) or default
        return "" if value == NONE else self.text(name, PATH, f"Write a path that begins with /, or {NONE}", default)

    def choice(self, name: str) -> bool:
        value = (self.given.get(name) or "no").lower()
        if value not in WORDS:
            self.refuse(name, f"is {value}", "Answer yes or no")
        return WORDS.get(value, False)

    def words(self, name: str, default: str) -> tuple[str, ...]:
        value = self.given.get(name) or default
        try:
            return () if value == NONE else tuple(shlex.split(value))
        except ValueError as error:
            self.refuse(name, f"cannot be read: {error}", "Close the quotation, as a shell wants it")
            return ()

    def port(self, used: Iterable[int]) -> int:
        taken = set(used)
        value = self.given.get("port")
        if not value:
            return next(number for number in range(FIRST_PORT, 65535, 2) if not {number, number + 1} & taken)
        number = int(value) if value.isdecimal() else 0
        if not 1024 <= number < 65535:
            self.refuse(
                "port", f"is {value}", "Write a number from 1024 to 65534; the one after it is the other slot's"
            )
        elif clash := sorted({number, number + 1} & taken):
            self.refuse(
                "port",
                f"{clash[0]} is another service's",
                "Write another one, or nothing: then one is chosen that is free",
            )
        return number


def read(given: Mapping[str, Any], *, known: Iterable[str], ports: Iterable[int], findings: Findings) -> Answers:
    """`known` are the services that are defined, `ports` those that they have. Not to be used where there are findings."""
    form = Form(given, findings)
    name = form.text("name", NAME, "Write small letters, digits and hyphens, such as notes")
    if name in TAKEN:
        form.refuse("name", f"{name} is a name that hosts use themselves", f"Choose another one, such as my-{name}")
    if name in set(known):
        form.refuse("name", f"there is a definition of {name} already", "Choose another name, or edit that one")
    program = form.given.get("program", "")
    if not program:
        form.refuse(
            "program",
            "is missing",
            "Write an https address, the path of a file on this machine, or the name of a Debian package",
        )
    elif not (program.startswith(("https://", "/")) or PACKAGE.fullmatch(program)):
        form.refuse(
            "program",
            f"{program} is no https address, no absolute path and no name of a Debian package",
            "Write one of these three; a file needs its whole path",
        )
    packaged = not program.startswith(("https://", "/"))
    version = form.text(
        "version",
        re.compile(f"{VERSION.pattern}|{DISTRIBUTION}") if packaged else VERSION,
        "Write the version that the inventory is to ask for, such as 1.4.0",
        DISTRIBUTION if packaged else "",
    )
    return Answers(
        name=name,
        description=form.given.get("description") or name,
        program=program,
        version=version,
        checksum=form.text("checksum", CHECKSUM, "Write sha256: and 64 hexadecimal digits", f"sha256:{'0' * 64}"),
        arguments=form.words("arguments", NONE),
        version_arguments=form.words("version_arguments", "--version"),
        port=form.port(ports),
        health=form.path("health", "/"),
        websocket=form.path("websocket", NONE),
        state=form.choice("state"),
        database=form.choice("database"),
        domain=form.text("domain", DOMAIN, "Write the name under which users reach it, such as notes.example.com"),
        hosts=form.text("hosts", GROUP, "Write the name of a group of the inventory, such as app", "app"),
    )


def inventory_entry(answers: Answers) -> str:
    """What belongs below `fleet_services` in the inventory; without double quotes, which a terminal would show with backslashes."""
    lines = [
        f"{answers.name}:",
        f"  version: '{answers.version}'",
        f"  domain: {answers.domain}",
        f"  hosts: {answers.hosts}",
    ]
    if answers.kind != "package":
        lines.append("  release:")
        lines += [f"    source: {_single(answers.program)}"] if answers.kind == "file" else []
        lines.append(f"    checksum: '{answers.checksum}'")
    if answers.database:
        lookup = f".{answers.name}" if answers.name.isidentifier() else f'["{answers.name}"]'
        lines.append(f"  secrets: '{{{{ fleet_secrets{lookup} }}}}'")
    return "\n".join(lines) + "\n"


def next_steps(answers: Answers, inventory: str) -> list[str]:
    """What is left to do, as commands and words."""
    entry = ["Put this below fleet_services in the inventory's group_vars/all/fleet.yml:", ""]
    entry += [f"    {line}" for line in inventory_entry(answers).splitlines()]
    if answers.kind == "address" and set(answers.checksum) <= set("sha256:0"):
        entry.append("    (the publisher has the checksum beside the file, mostly as .sha256)")
    steps = [entry]
    run = f"ansible-playbook -i {inventory}"
    if answers.database:
        run += " --ask-vault-pass"
        steps.append([f"Make its secrets:         {run} selfhost.fleet.secrets"])
    steps += [
        [f"See what would be done:   {run} selfhost.fleet.plan"],
        [f"Do it:                    {run} selfhost.fleet.site"],
    ]
    lines = []
    for number, (first, *rest) in enumerate(steps, 1):
        lines += [f"{number}. {first}", *(f"   {line}".rstrip() for line in rest)]
        lines += [""] if rest else []
    return lines


def definition(answers: Answers, inventory: str) -> str:
    """The file's text."""
    parts = [*_head(answers, inventory), *_component(answers), *_routes(answers), *_database(answers)]
    parts += [
        "contracts:",
        "  # What differs by version stands here, and is merged over all of the above.",
        '  - versions: ">=0"',
    ]
    return "\n".join(parts) + "\n"


def _head(answers: Answers, inventory: str) -> list[str]:
    steps = [f"#   {line}".rstrip() for line in next_steps(answers, inventory)]
    return [
        f"# {answers.name}: what selfhost.fleet knows of it. Every key is in docs/adding-a-service.md.",
        "#",
        *steps,
        "---",
        f"name: {answers.name}",
        f"description: {_quote(answers.description)}",
        "",
    ]


def _component(answers: Answers) -> list[str]:
    return [
        "components:",
        "  # One process of the service, run as the user of the service's name in a hardened unit.",
        "  server:",
        "    release:",
        *(f"      {line}" for line in _release(answers)),
        "    # {listen}, {port.http}, {domain} and others are filled in. What all users of the host may not see goes into settings.",
        f"    command: {_list(['{executable}', *answers.arguments])}",
        "    # Each slot has a port of its own, so that the old and the new release can run side by side.",
        "    ports:",
        f"      http: {{blue: {answers.port}, green: {answers.port + 1}}}",
        "    # It is up when this is answered, and a run waits for it.",
        f"    probe: {_probe(answers)}",
        "    # Folders that it may write to; all else is read-only.",
        f'    state: [{{path: /var/lib/{answers.name}, mode: "0750"}}]' if answers.state else "    state: []",
        "    # Environment variables.",
        *_settings(answers),
        "    # What it cannot live with of the strict unit, option by option:",
        '    # hardening: {MemoryDenyWriteExecute: {value: false, reason: "its runtime compiles while it runs"}}',
        "",
    ]


def _release(answers: Answers) -> list[str]:
    if answers.kind == "package":
        return [
            "# Debian's package; its own unit is masked, as this one takes its place. dpkg has one version of it, so that both slots share it.",
            f"package: {answers.program}",
            f"# executable: /usr/bin/{answers.program}",
            f"# units: [{answers.program}.service]      # where the package has others",
        ]
    name = answers.name
    lines = [f"executable: {name}"]
    if answers.kind == "address":
        lines = [
            "# {version} and {architecture} (amd64) are filled in. An archive needs the program's path in it as well:",
            f"address: {_quote(answers.program)}",
            f"# member: {name}-{{version}}/{name}",
            *lines,
        ]
    if answers.version_arguments:
        words = _list(["{executable}", *answers.version_arguments])
        return [
            *lines,
            "# Run on the host before the release is taken; it must say the version.",
            f"version_command: {words}",
        ]
    return [*lines, "version_command: []      # it does not say its version"]


def _probe(answers: Answers) -> str:
    return f"{{kind: http, port: http, path: {answers.health}}}" if answers.health else "{kind: tcp, port: http}"


def _settings(answers: Answers) -> list[str]:
    name = answers.name.upper().replace("-", "_")
    if not answers.database:
        return [
            "    settings: {}",
            f'    #   {name}_URL: "https://{{domain}}"',
            f'    #   {name}_LISTEN: "{{listen}}:{{port.http}}"   # where no argument says it',
            *([f"    #   {name}_FOLDER: /var/lib/{answers.name}"] if answers.state else []),
        ]
    address = f"postgres://{{database.user}}:{{secret.{answers.password}}}@{{database.host}}:{{database.port}}/{{database.name}}"
    return [
        "    settings:",
        "      # To the pooler on the same host, which speaks TLS to PostgreSQL. Call it as the program does.",
        f'      DATABASE_URL: "{address}?sslmode=disable"',
    ]


def _routes(answers: Answers) -> list[str]:
    """Most specific first; a WebSocket route takes plain requests too."""
    root = "websocket" if answers.websocket == "/" else "http"
    own = answers.websocket if answers.websocket not in ("", "/") else ""
    return [
        "# Most specific first. Other kinds: streaming (no buffering), closed (answers 404).",
        "routes:",
        *([f"  - {{path: {own}, kind: websocket, timeout: 3600}}"] if own else []),
        f"  - {{path: /, kind: {root}, {'timeout: 3600, ' if root == 'websocket' else ''}limit: {{rate: 50r/s, burst: 100}}}}",
        "",
    ]


def _database(answers: Answers) -> list[str]:
    if not answers.database:
        return []
    return [
        "# A role, a database and a pool of its own.",
        "database:",
        "  connections: 10        # of one instance, at most",
        "  extensions: []",
        "",
        "secrets:",
        f"  {answers.password}:",
        "    description: password of the database role",
        "    environment: false   # it is in DATABASE_URL",
        "    min_length: 24",
        '    alphabet: "A-Za-z0-9_-"',
        "",
    ]


def _list(words: Iterable[str]) -> str:
    return f"[{', '.join(_quote(word) for word in words)}]"


def _single(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _quote(text: str) -> str:
    """A text of JSON is one of YAML."""
    return json.dumps(text, ensure_ascii=False)
