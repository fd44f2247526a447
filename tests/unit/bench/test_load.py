"""How the load of bench/upgrade.py counts: percentiles, what a client that never retries would have met, messages that got lost."""

from __future__ import annotations

import http.client
import importlib.util
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest


@pytest.fixture(scope="module")
def load() -> ModuleType:
    path = Path(__file__).parents[3] / "bench" / "load.py"
    spec = importlib.util.spec_from_file_location("bench_load", path)
    assert spec and spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)  # where dataclasses look for it
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("values", "share", "found"),
    [
        ([], 99, 0.0),
        ([3.0], 50, 3.0),
        ([4.0, 1.0, 3.0, 2.0], 50, 2.0),
        (list(range(1, 101)), 99, 99),
        ([1.0, 2.0], 100, 2.0),
    ],
)
def test_percentiles(load: ModuleType, values: list[float], share: float, found: float) -> None:
    assert load.percentile(values, share) == found


@pytest.mark.parametrize(
    ("marks", "count"),
    [
        pytest.param({1: (10.0, 10.1)}, 1, id="written while it listened"),
        pytest.param({1: (4.0, 4.1)}, 0, id="before it did"),
        pytest.param({1: (29.0, 29.1)}, 0, id="too short before it was dropped to have come"),
        pytest.param({1: (35.0, 35.1)}, 0, id="while it was away"),
        pytest.param({1: (41.0, 41.1)}, 1, id="after it came back"),
        pytest.param({7: (10.0, 10.1)}, 0, id="one that came"),
    ],
)
def test_what_a_listener_should_have_been_told(
    load: ModuleType, marks: dict[int, tuple[float, float]], count: int
) -> None:
    listener = load.Listener(opened=[5.0, 40.0], dropped=[30.0], marks={7: 10.2})
    assert load.lost(listener, marks) == count


Answers = Callable[[int], bytes]


@pytest.fixture
def server() -> Iterator[Callable[[Answers], int]]:
    """Answers each connection's request by its number, once, and closes it; empty bytes close it without a word."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(answers: Answers) -> None:
        number = 0
        while True:
            try:
                connection, _address = listening.accept()
            except OSError:
                return
            number += 1
            with connection:
                connection.recv(4096)
                connection.sendall(answers(number))

    def start(answers: Answers) -> int:
        threading.Thread(target=serve, args=(answers,), daemon=True).start()
        return int(listening.getsockname()[1])

    yield start
    listening.close()


OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def users(load: ModuleType, port: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    made = load.Users.__new__(load.Users)
    made.address, made.domain, made.stop, made.sources = "127.0.0.1", "localhost", tmp_path / "stop", ["127.0.0.1"]
    made.seen = {kind: load.Seen() for kind in ("read", "write", "upload")}
    made.lock = threading.Lock()

    def connected(_source: str) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=5)
        connection.connect()
        return connection

    monkeypatch.setattr(made, "connected", connected)
    return made


def test_a_kept_connection_that_was_closed_is_no_failure_but_is_counted(
    load: ModuleType, server: Callable[[Answers], int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = users(load, server(lambda _number: OK), monkeypatch, tmp_path)
    kept = made.one("read", None, "", 0.0, False)
    assert kept is not None
    load.select.select([kept.sock], [], [], 5)  # until the server has closed it
    made.one("read", kept, "", 0.0, False)
    data = made.seen["read"].as_data()
    assert (data["requests"], data["failed_requests"], data["failed_requests_no_retry"]) == (2, 0, 1)


def test_a_new_connection_that_is_closed_without_an_answer_is_a_failure(
    load: ModuleType, server: Callable[[Answers], int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made = users(load, server(lambda _number: b""), monkeypatch, tmp_path)
    assert made.one("read", None, "", 0.0, False) is None
    assert made.seen["read"].as_data()["failed_requests"] == 1


def test_a_wrong_status_is_a_failure(
    load: ModuleType, server: Callable[[Answers], int], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    refused = b"HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"
    made = users(load, server(lambda _number: refused), monkeypatch, tmp_path)
    made.one("write", None, "", 0.0, True)
    data = made.seen["write"].as_data()
    assert (data["failed_requests"], data["late"]) == (1, 1)
    assert data["failed"][0][1] == "503"
