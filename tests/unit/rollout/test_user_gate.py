"""The controller's half of a gate of one's own: over HTTP, and as a command in the inventory's folder."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from ansible_collections.selfhost.fleet.plugins.action.user_gate import asked, fetch, ran


class Handler(BaseHTTPRequestHandler):
    """Says what it was asked: a query `400` is a bad one, every other one the value that it is."""

    def do_GET(self) -> None:
        (query,) = parse_qs(urlsplit(self.path).query)["query"]
        bad = {"status": "error", "errorType": "bad_data", "error": "parse error"}
        value = {"metric": {"slot": "green"}, "value": [1, query]}
        good = {"status": "success", "data": {"resultType": "vector", "result": [value]}}
        self.send_response(400 if query == "400" else 200)
        self.end_headers()
        self.wfile.write(json.dumps(bad if query == "400" else good).encode())

    def log_message(self, *_words: object) -> None:
        return


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    for name in ("http_proxy", "HTTP_PROXY"):  # nobody is there: it has to be asked without
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    made = HTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def query(url: str, text: str, **bounds: float) -> dict[str, Any]:
    wanted = {"url": url, "query": text, "below": None, "above": None, **bounds}
    return asked({"timeout": 1.0, "prometheus": wanted})


def test_a_value_within_its_bound_and_one_beyond_it(server: str) -> None:
    assert query(server, "0.25", below=1) == {"failed": False, "msg": "0.25: below 1", "values": [0.25], "tries": 1}
    found = query(server, "0.25", above=1)
    assert found["failed"]
    assert found["msg"] == '0.25 is not above 1, of {slot="green"}. The query was: 0.25'


def test_a_refusal_has_prometheus_own_words(server: str) -> None:
    assert query(server, "400", above=1)["msg"].startswith("Prometheus says: bad_data: parse error.")


def test_where_nobody_answers_that_is_said() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(OSError, match="refused"):
            fetch(f"{url}/api/v1/query?query=x")
        found = query(url, "x", above=1)
    assert found["failed"] and f"nobody answers at {url}" in found["msg"] and "Asked 1 time in" in found["msg"]


def test_a_command_runs_in_the_folder_with_the_environment_of_whoever_runs_ansible(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OF_THE_OPERATOR", "mine")
    script = tmp_path / "smoke.sh"
    script.write_text('#!/bin/sh\necho "$OF_THE_OPERATOR $FLEET_SHARE"\npwd\n')
    script.chmod(0o755)
    options = {"command": ["./smoke.sh"], "environment": {"FLEET_SHARE": 50}, "timeout": 20.0}
    found = ran(options, str(tmp_path))
    assert not found["failed"] and found["lines"] == ["mine 50", str(tmp_path)]
    missing = ran({**options, "command": ["./nosuch.sh"]}, str(tmp_path))
    assert missing["failed"]
    assert missing["msg"] == f"./nosuch.sh cannot be run: no such file or directory on the controller, in {tmp_path}"
