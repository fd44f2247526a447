"""The lines at the end of a terminal; here it is a pipe."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator

import pytest
from ansible_collections.selfhost.fleet.plugins.plugin_utils.live_view import LiveView


class Screen:
    def __init__(self) -> None:
        self.end, self.descriptor = os.pipe()
        os.set_blocking(self.end, False)
        self.lines = ["one", "two"]
        self.view = LiveView(self.descriptor, lambda width: [line[:width] for line in self.lines], every=60)

    def shown(self) -> str:
        try:
            return os.read(self.end, 65536).decode()
        except BlockingIOError:
            return ""


@pytest.fixture
def screen() -> Iterator[Screen]:
    made = Screen()
    yield made
    made.view.stop()
    os.close(made.end)
    os.close(made.descriptor)


def test_it_is_drawn_over_itself(screen: Screen) -> None:
    screen.view.draw()
    assert screen.shown() == ""  # it has not begun
    screen.view.start()
    screen.view.draw()
    assert screen.shown() == "\x1b[Jone\r\ntwo\x1b[1A\r"
    screen.lines = ["three"]
    screen.view.draw()
    assert screen.shown() == "\x1b[Jthree\r"
    screen.lines = []
    screen.view.draw()
    assert screen.shown() == "\x1b[J"


def test_what_is_printed_meanwhile_has_the_place_for_itself(screen: Screen) -> None:
    screen.view.start()
    screen.view.draw()
    screen.shown()
    with screen.view.held():
        assert screen.shown() == "\x1b[J"
        screen.view.draw()
        with screen.view.held():
            pass
        screen.view.draw()
        assert screen.shown() == ""
    screen.view.draw()
    assert "one" in screen.shown()


def test_it_leaves_nothing_behind(screen: Screen) -> None:
    screen.view.start()
    screen.view.draw()
    screen.shown()
    screen.view.stop()
    screen.view.stop()
    assert screen.shown() == "\x1b[J"
    screen.view.draw()
    assert screen.shown() == ""


def test_it_is_drawn_by_itself() -> None:
    end, descriptor = os.pipe()
    view = LiveView(descriptor, lambda _width: ["x"], every=0.01)
    view.start()
    deadline = time.monotonic() + 10
    found = b""
    while found.count(b"x") < 3 and time.monotonic() < deadline:
        found += os.read(end, 65536)
    view.stop()
    assert found.count(b"x") >= 3
    os.close(end)
    os.close(descriptor)


def test_a_worker_draws_nothing(screen: Screen, monkeypatch: pytest.MonkeyPatch) -> None:
    screen.view.start()
    screen.view.draw()
    screen.shown()
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with screen.view.held():
        screen.view.stop()
    assert screen.shown() == ""


def test_a_terminal_that_is_gone_stops_nothing() -> None:
    end, descriptor = os.pipe()
    os.close(end)
    view = LiveView(descriptor, lambda _width: ["x"], every=60)
    view.start()
    view.draw()
    view.stop()
    os.close(descriptor)
