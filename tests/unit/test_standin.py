"""The stand-in for Fluxbase: what can be seen of it without a database."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

TESTBED = Path(__file__).resolve().parents[1] / "testbed"
BUILDER = TESTBED / "build_standin.py"
GOOD_SECRET = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"
GOOD = {
    "FLUXBASE_AUTH_JWT_SECRET": GOOD_SECRET,
    "FLUXBASE_ENCRYPTION_KEY": "0123456789abcdef" * 2,
    "FLUXBASE_DATABASE_HOST": "127.0.0.1",
}
Build = Callable[..., Path]
Start = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Build an executable, once for each set of options."""
    folder = tmp_path_factory.mktemp("standin")

    def run(version: str = "2026.3.6", *options: str) -> Path:
        output = folder / "-".join(["fluxbase", version, *(option.strip("-") for option in options)])
        if not output.exists():
            command = [sys.executable, str(BUILDER), "--version", version, *options, "--output", str(output)]
            subprocess.run(command, check=True, capture_output=True)
        return output

    return run


@pytest.fixture
def start(tmp_path: Path) -> Start:
    """Run an executable with exactly this environment, from an empty folder."""

    def run(executable: Path, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(executable), *arguments],
            env={"PATH": "/usr/bin:/bin", **environment},
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture
def closed_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def test_same_inputs_same_bytes(build: Build, tmp_path: Path) -> None:
    again = tmp_path / "again"
    environment = {**os.environ, "TZ": "Asia/Tokyo", "PYTHONHASHSEED": "7"}
    command = [sys.executable, str(BUILDER), "--version", "2026.3.6", "--output", str(again)]
    subprocess.run(command, check=True, capture_output=True, env=environment)
    assert again.read_bytes() == build("2026.3.6").read_bytes()
    assert build("2026.3.6").read_bytes() != build("2026.3.5").read_bytes()


def test_runs_on_any_python(build: Build) -> None:
    executable = build()
    assert executable.read_bytes().startswith(b"#!/usr/bin/python3\n")
    with zipfile.ZipFile(executable) as archive:
        assert not [
            name
            for name in archive.namelist()
            if not name.endswith((".py", ".json", "METADATA", ".html", ".js", ".css", ".svg"))
        ]


@pytest.mark.parametrize(
    ("version", "flag", "status"),
    [("2026.3.6", "-version", 0), ("0.9.4", "--version", 0), ("0.9.4", "-version", 2), ("2026.3.6", "migrate", 2)],
)
def test_version(build: Build, start: Start, version: str, flag: str, status: int) -> None:
    result = start(build(version), flag)
    assert result.returncode == status
    if status == 0:
        assert result.stdout.splitlines()[0] == f"Fluxbase {version}"


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"FLUXBASE_AUTH_JWT_SECRET": ""}, "jwt_secret is required"),
        ({"FLUXBASE_AUTH_JWT_SECRET": "0123456789abcdef" * 4}, "insufficient entropy (4.00 bits"),
        ({"FLUXBASE_AUTH_JWT_SECRET": GOOD_SECRET[:20]}, "at least 32 characters"),
        ({"FLUXBASE_ENCRYPTION_KEY": ""}, "encryption_key is required"),
        ({"FLUXBASE_ENCRYPTION_KEY": "0123456789abcdef" * 2 + "0"}, "exactly 32 bytes for AES-256, got 33"),
        ({"FLUXBASE_ENCRYPTION_KEY": "ü" + "0" * 31}, "got 33 bytes"),
        ({"FLUXBASE_METRICS_PORT": "many"}, "'metrics.port' cannot parse value as 'int'"),
        ({"FLUXBASE_JOBS_ENABLED": "perhaps"}, "'jobs.enabled' cannot parse value as 'bool'"),
        ({"FLUXBASE_DATABASE_PASSWORD": "a/b"}, "failed to parse as URL"),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("-validate",)])
def test_bad_settings(
    build: Build, start: Start, arguments: tuple[str, ...], changed: dict[str, str], words: str
) -> None:
    result = start(build(), *arguments, **{**GOOD, **changed})
    assert result.returncode == 1
    assert words in result.stderr
    assert "Traceback" not in result.stderr
    for secret in changed.values():
        assert len(secret) < 16 or secret not in result.stderr


def test_without_database_it_gives_up(build: Build, start: Start, closed_port: int) -> None:
    started = time.monotonic()
    result = start(build(), **GOOD, FLUXBASE_DATABASE_PORT=str(closed_port))
    assert result.returncode == 1
    assert result.stderr.count("Failed to connect to database, retrying") == 5
    assert result.stderr.splitlines()[-1].split()[1] == "FTL"
    assert 11 < time.monotonic() - started < 20


def test_file_that_does_not_parse_is_a_warning(build: Build, start: Start, tmp_path: Path) -> None:
    (tmp_path / "fluxbase.yaml").write_text("security: [unclosed\n")
    result = start(build(), **{**GOOD, "FLUXBASE_ENCRYPTION_KEY": ""})
    assert "WRN Config file not found or invalid, using defaults" in result.stderr
    assert "encryption_key is required" in result.stderr


def test_settings_from_the_file_come_after_the_environment(build: Build, start: Start, tmp_path: Path) -> None:
    (tmp_path / "fluxbase.yaml").write_text("encryption_key: too-short\nmetrics: {port: nonsense}\n")
    result = start(build(), **GOOD, FLUXBASE_METRICS_PORT="9090")
    assert "INF Config file loaded" in result.stderr
    assert "metrics.port" not in result.stderr
    assert "encryption_key" not in result.stderr


def test_unknown_variant_is_refused(tmp_path: Path) -> None:
    command = [
        sys.executable,
        str(BUILDER),
        "--version",
        "1.0",
        "--variant",
        "nonsense",
        "--output",
        str(tmp_path / "x"),
    ]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert result.returncode == 2
    assert "never-healthy" in result.stderr
