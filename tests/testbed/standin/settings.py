"""Settings from the environment and from the file, with the checks that the program makes of them."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from . import log

CONFIG_FILES = ("fluxbase.yaml", "config/fluxbase.yaml", "/etc/fluxbase/fluxbase.yaml")
MINIMAL_ENTROPY = 4.5  # bits a character
TRUE, FALSE = {"1", "t", "true"}, {"0", "f", "false", ""}
# Keys without a built-in default are ignored as environment variables (a trait of the program's configuration library).
FILE_ONLY = {"security.auth_signup_rate_limit"}


class SettingsError(Exception):
    """A setting that keeps the program from starting."""


@dataclass(frozen=True)
class DatabaseSettings:
    """Where the database is, and who connects."""

    host: str
    port: int
    user: str
    password: str
    database: str
    ssl_mode: str
    max_connections: int
    min_connections: int
    admin_user: str
    admin_password: str


@dataclass(frozen=True)
class Settings:
    """Everything that the stand-in reads."""

    address: str
    metrics_enabled: bool
    metrics_port: int
    metrics_path: str
    jwt_secret: str
    encryption_key: str
    admin_enabled: bool
    setup_token: str
    jobs_enabled: bool
    signin_limit: int
    signup_limit: int
    realtime_limit: int
    realtime_limit_per_address: int
    database: DatabaseSettings


class _Source:
    """Looks settings up: environment before file before default."""

    def __init__(self, environment: Mapping[str, str], content: Mapping[str, Any]) -> None:
        self.environment = environment
        self.content = content

    def raw(self, key: str) -> Any:
        name = "FLUXBASE_" + key.replace(".", "_").upper()
        if key not in FILE_ONLY and self.environment.get(name):
            return self.environment[name]
        value: Any = self.content
        for part in key.split("."):
            value = value.get(part) if isinstance(value, Mapping) else None
        return value

    def text(self, key: str, default: str = "") -> str:
        value = self.raw(key)
        return default if value is None else str(value)

    def number(self, key: str, default: int) -> int:
        value = self.raw(key)
        try:
            return default if value is None else int(value)
        except (TypeError, ValueError):
            raise SettingsError(f"'{key}' cannot parse value as 'int': invalid syntax") from None

    def flag(self, key: str, default: bool) -> bool:
        value = self.raw(key)
        word = str(default if value is None else value).lower()
        if word not in TRUE | FALSE:
            raise SettingsError(f"'{key}' cannot parse value as 'bool': invalid syntax")
        return word in TRUE


def read_file(paths: tuple[str, ...] = CONFIG_FILES) -> dict[str, Any]:
    """Read the first settings file there is. One that does not parse is a warning, and defaults hold."""
    for path in map(Path, paths):
        if not path.is_file():
            continue
        import yaml  # only here: half of the starts have no file, and importing it from a zip takes time

        try:
            content = yaml.safe_load(path.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            log.warning("Config file not found or invalid, using defaults", file=str(path), error=str(error))
            return {}
        if isinstance(content, dict):
            log.info("Config file loaded", file=str(path))
            return content
        if content is not None:
            log.warning("Config file not found or invalid, using defaults", file=str(path), error="not a mapping")
        return {}
    return {}


def entropy(text: str) -> float:
    """Shannon entropy in bits a character."""
    return -sum(n / len(text) * math.log2(n / len(text)) for n in Counter(text).values())


def load(environment: Mapping[str, str], *, generation: int, files: tuple[str, ...] = CONFIG_FILES) -> Settings:
    """Read and check every setting.

    Raises:
        SettingsError: with the words that the program logs.
    """
    source = _Source(environment, read_file(files))
    modern = generation >= 2026
    secret = source.text("auth.jwt_secret") or ("" if modern else environment.get("FLUXBASE_JWT_SECRET", ""))
    settings = Settings(
        address=source.text("server.address", ":8080"),
        metrics_enabled=source.flag("metrics.enabled", True),
        metrics_port=source.number("metrics.port", 9090),
        metrics_path=source.text("metrics.path", "/metrics"),
        jwt_secret=secret,
        encryption_key=source.text("encryption_key"),
        admin_enabled=source.flag("admin.enabled", False),
        setup_token=source.text("security.setup_token"),
        jobs_enabled=source.flag("jobs.enabled", True),
        signin_limit=source.number("security.auth_login_rate_limit", 10),
        signup_limit=source.number("security.auth_signup_rate_limit", 5),
        realtime_limit=source.number("realtime.max_connections", 1000),
        realtime_limit_per_address=source.number("realtime.max_connections_per_ip", 20),
        database=_database(source, None if modern else environment.get("DATABASE_URL")),
    )
    _check_secrets(settings, modern=modern)
    return settings


def _database(source: _Source, url: str | None) -> DatabaseSettings:
    limits = {
        "max_connections": source.number("database.max_connections", 50),
        "min_connections": source.number("database.min_connections", 8),
    }
    if url:
        parts = urlsplit(url)
        user, password = unquote(parts.username or "postgres"), unquote(parts.password or "")
        return DatabaseSettings(
            host=parts.hostname or "localhost",
            port=parts.port or 5432,
            user=user,
            password=password,
            database=parts.path.lstrip("/") or user,
            ssl_mode=parse_qs(parts.query).get("sslmode", ["prefer"])[0],
            admin_user=user,
            admin_password=password,
            **limits,
        )
    user, password = source.text("database.user", "postgres"), source.text("database.password")
    for value in (password, source.text("database.admin_password")):
        # The program builds an address from the password and does not escape it.
        if re.search(r"[\s/?#@:%\[\]]", value):
            raise SettingsError(
                "failed to connect to database: cannot parse `postgresql://...`: failed to parse as URL"
            )
    return DatabaseSettings(
        host=source.text("database.host", "localhost"),
        port=source.number("database.port", 5432),
        user=user,
        password=password,
        database=source.text("database.database", "fluxbase"),
        ssl_mode=source.text("database.ssl_mode", "disable"),
        admin_user=source.text("database.admin_user", user),
        admin_password=source.text("database.admin_password", password),
        **limits,
    )


def _check_secrets(settings: Settings, *, modern: bool) -> None:
    name = "FLUXBASE_AUTH_JWT_SECRET" if modern else "FLUXBASE_JWT_SECRET"
    if not settings.jwt_secret:
        raise SettingsError(f"auth configuration error: jwt_secret is required ({name})")
    if not modern:
        return
    if len(settings.jwt_secret) < 32:
        raise SettingsError("auth configuration error: jwt_secret must be at least 32 characters long")
    measured = entropy(settings.jwt_secret)
    if measured < MINIMAL_ENTROPY:
        raise SettingsError(
            f"auth configuration error: jwt_secret has insufficient entropy ({measured:.2f} bits per character,"
            f" minimum {MINIMAL_ENTROPY})"
        )
    size = len(settings.encryption_key.encode())
    if size == 0:
        raise SettingsError("encryption_key is required (FLUXBASE_ENCRYPTION_KEY)")
    if size != 32:
        raise SettingsError(f"encryption_key must be exactly 32 bytes for AES-256, got {size} bytes")
