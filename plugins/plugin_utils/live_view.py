# GNU General Public License v3.0+ (see LICENSE)
"""A few lines at the end of what a terminal shows, drawn again and again in place; whatever else is printed comes above them."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

ERASE = "\x1b[J"  # from the cursor to the end of the screen


class LiveView:
    """Between two drawings the cursor is at the beginning of the first line, so that to erase them all is one sequence.

    Written with os.write alone: Ansible forks while the thread here draws, and a buffer's lock that is held then is never free in the child.
    """

    def __init__(self, descriptor: int, lines: Callable[[int], Sequence[str]], *, every: float = 0.5) -> None:
        self._descriptor, self._lines, self._every = descriptor, lines, every
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._holders = 0
        self._ended = threading.Event()
        self._drawn = False
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        if self._thread is None:
            self._ended.clear()
            self._thread = threading.Thread(target=self._run, daemon=True)
            self._thread.start()

    def stop(self) -> None:
        """What was drawn is gone."""
        if self._thread is None or os.getpid() != self._process:
            return
        self._ended.set()
        self._thread.join()
        self._thread = None
        with self._lock:
            self._erase()

    @contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is drawn meanwhile. No lock is kept: whoever prints takes one of Ansible's."""
        if os.getpid() != self._process:  # a worker, which prints through its parent
            yield
            return
        with self._lock:
            self._holders += 1
            self._erase()
        try:
            yield
        finally:
            with self._lock:
                self._holders -= 1

    def draw(self) -> None:
        with self._lock:
            if self._thread is None or self._holders:
                return
            try:
                width = os.get_terminal_size(self._descriptor).columns or 80
            except OSError:
                width = 80
            lines = self._lines(width)
            if lines:
                up = f"\x1b[{len(lines) - 1}A" if len(lines) > 1 else ""
                self._write(ERASE + "\r\n".join(lines) + up + "\r")
                self._drawn = True
            else:
                self._erase()

    def _run(self) -> None:
        while not self._ended.wait(self._every):
            self.draw()

    def _erase(self) -> None:
        if self._drawn:
            self._write(ERASE)
            self._drawn = False

    def _write(self, text: str) -> None:
        try:
            os.write(self._descriptor, text.encode())
        except OSError:  # the terminal is gone; the rollout is not
            self._ended.set()
