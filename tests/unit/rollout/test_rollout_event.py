"""Telling a webhook: what it gets, and what the operator reads where it does not take it."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from ansible_collections.selfhost.fleet.plugins.action import rollout_event

EVENT = {"event": "done", "service": "fluxbase"}


@contextmanager
def answering(answer: bytes) -> Iterator[tuple[str, list[bytes]]]:
    """A server that says this to one request, and then nothing more; its address, and what it was sent."""
    asked: list[bytes] = []
    ended = threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _peer = server.accept()
            with connection:
                asked.append(connection.recv(65536))
                connection.sendall(answer)
                if not answer.endswith(b"\r\n\r\n"):
                    ended.wait()

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.getsockname()[1]}/T0K3N", asked
        finally:
            ended.set()
            thread.join()


def told(url: str) -> str:
    return rollout_event.tell(lambda: {"url": url, "headers": {"Authorization": "s3cr3t\n"}}, EVENT)


def test_one_that_takes_it() -> None:
    with answering(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n") as (url, asked):
        assert told(url) == ""
    assert asked[0].startswith(b"POST /T0K3N HTTP/1.1\r\n")
    assert b"\r\nAuthorization: s3cr3t\r\n" in asked[0] and b"\r\nContent-Type: application/json\r\n" in asked[0]


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n", "it answered with status 503"),
        (b"HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:9/s3cr3t\r\nContent-Length: 0\r\n\r\n", "status 302"),
        (b"s3cr3t\r\n\r\n", "it cannot be asked (BadStatusLine)"),
    ],
)
def test_one_that_refuses_it(answer: bytes, words: str) -> None:
    with answering(answer) as (url, _asked):
        warning = told(url)
    assert words in warning and "was not told of the event done of fluxbase" in warning
    assert "T0K3N" not in warning and "s3cr3t" not in warning


def test_one_that_is_not_there() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        address = f"http://127.0.0.1:{server.getsockname()[1]}"
    assert told(f"{address}/T0K3N").startswith(
        f"The webhook {address} was not told of the event done of fluxbase: it cannot"
    )


def test_one_that_answers_bit_by_bit_has_no_more_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rollout_event, "TIMEOUT", 0.3)
    with answering(b"HTTP/1.1 200 ") as (url, _asked):
        begun = time.monotonic()
        assert "it did not answer within 0.3 s" in told(url)
        assert time.monotonic() - begun < 3


def test_a_name_that_is_looked_up_for_ever() -> None:
    ended = threading.Event()
    assert rollout_event.within(0.1, lambda: str(ended.wait(5))) == "it did not answer within 0.1 s"
    ended.set()


def test_a_variable_that_is_there_no_more() -> None:
    assert "it cannot be asked (KeyError)" in rollout_event.tell(dict, EVENT)
