"""The program on the host that hands certbot's files to nginx; systemctl and nginx are played."""

from __future__ import annotations

import json
import runpy
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

PROGRAM = Path(__file__).resolve().parents[3] / "roles" / "acme" / "files" / "deploy.py"


@pytest.fixture
def live(tmp_path: Path) -> Path:
    folder = tmp_path / "live" / "selfhost-api"
    folder.mkdir(parents=True)
    for name in ("privkey.pem", "fullchain.pem", "chain.pem"):
        (folder / name).write_text(f"new {name}")
    return folder


@pytest.fixture
def deploy(tmp_path: Path, live: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, list[str]]]:
    """Runs it, with a command that fails; gives its exit status and the commands that it ran."""
    entries = [{"live": str(live), "directory": str(tmp_path / "tls")}]
    entries.append({"live": str(tmp_path / "not-obtained-yet"), "directory": str(tmp_path / "other")})
    (tmp_path / "certificates.json").write_text(json.dumps(entries))

    def run(failing: str = "none") -> tuple[int, list[str]]:
        program = runpy.run_path(str(PROGRAM))
        commands: list[str] = []

        def played(command: Sequence[str], *, check: bool) -> subprocess.CompletedProcess[str]:
            commands.append(" ".join(command))
            code = 1 if failing in commands[-1] else 0
            if code and check:
                raise subprocess.CalledProcessError(code, command)
            return subprocess.CompletedProcess(command, code)

        monkeypatch.setattr(subprocess, "run", played)
        scope: dict[str, Any] = program["main"].__globals__
        scope |= {"CERTIFICATES": tmp_path / "certificates.json", "LOCK": tmp_path / "lock"}
        return program["main"](), commands

    return run


def test_new_files_are_handed_over_once(deploy: Any, tmp_path: Path) -> None:
    status, commands = deploy()
    assert (status, [command.split()[1] for command in commands]) == (0, ["-t", "is-active", "reload"])
    assert (tmp_path / "tls" / "ca.pem").read_text() == "new chain.pem"
    modes = {path.name: path.stat().st_mode & 0o777 for path in (tmp_path / "tls").iterdir()}
    assert modes == {"privkey.pem": 0o600, "fullchain.pem": 0o644, "ca.pem": 0o644}
    assert not (tmp_path / "other").exists()
    assert deploy() == (0, [])


def test_nginx_that_is_down_is_not_started(deploy: Any) -> None:
    status, commands = deploy("is-active")
    assert status == 0
    assert "reload" not in commands[-1]


@pytest.mark.parametrize("failing", ["nginx -t", "systemctl reload"])
def test_what_nginx_refuses_goes_and_is_tried_again(
    deploy: Any, tmp_path: Path, failing: str, capsys: pytest.CaptureFixture[str]
) -> None:
    deploy()
    for path in (tmp_path / "live" / "selfhost-api").iterdir():
        path.write_text("newer")
    assert deploy(failing)[0] == 1
    assert "back in place" in capsys.readouterr().err
    assert (tmp_path / "tls" / "privkey.pem").read_text() == "new privkey.pem"
    assert deploy()[0] == 0
    assert (tmp_path / "tls" / "privkey.pem").read_text() == "newer"
