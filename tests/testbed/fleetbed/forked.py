"""Runs of Ansible that begin where it is imported already: half a second of work less for each.

A process of its own has imported it and does nothing else. It forks for each run that it is asked for: all that such a run reads, and every module of the
collection, is its own. It ends with whoever asked first.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

REQUEST = 1 << 20  # bytes


class Forked:
    """A run, with as much of subprocess.Popen as is asked of it."""

    def __init__(self, said: int) -> None:
        self._said = said
        self._text = b""
        self.pid = int(self._line(None))
        self.returncode: int | None = None

    def _line(self, timeout: float | None) -> bytes:
        """The next one that its watcher writes; empty once the watcher is gone."""
        if not select.select([self._said], [], [], timeout)[0]:
            raise subprocess.TimeoutExpired("ansible-playbook", timeout or 0)
        # Two lines are all there is, and each is written at once.
        while b"\n" not in self._text and (read := os.read(self._said, 100)):
            self._text += read
        line, _newline, self._text = self._text.partition(b"\n")
        return line

    def poll(self) -> int | None:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.wait(0)
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self.returncode is None:
            self.returncode = int(self._line(timeout) or -signal.SIGKILL)
            os.close(self._said)
        return self.returncode


def start(command: Sequence[str], *, cwd: Path, env: Mapping[str, str], output: int) -> Forked:
    """Begin `ansible-playbook ...` in a session of its own, as subprocess.Popen would; `output` is a file's descriptor."""
    settings = tuple(sorted(item for item in env.items() if item[0].startswith("ANSIBLE_")))
    request = json.dumps({"command": list(command), "cwd": str(cwd), "env": dict(env)}).encode()
    said, says = os.pipe()
    try:
        socket.send_fds(_server(settings), [request], [output, says])
    finally:
        os.close(says)
    return Forked(said)


@functools.cache
def _server(settings: tuple[tuple[str, str], ...]) -> socket.socket:
    """Where runs with these settings are asked for: Ansible reads them when it is imported."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with theirs:
        command = [sys.executable, __file__, str(theirs.fileno())]
        environment = {**os.environ, **dict(settings)}
        subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
    return ours


# What follows is the other side: this file as a program.


def _serve(requests: socket.socket) -> None:
    import ansible.executor.playbook_executor
    import ansible.plugins.callback.default
    import ansible.plugins.strategy.linear  # noqa: F401
    from ansible.plugins import loader

    loader.init_plugin_loader()
    loader.callback_loader.get("selfhost.fleet.preload").v2_playbook_on_start(None)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # from a keyboard: whoever asks ends, and this with it
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for those who watch
    while True:
        request, descriptors, _flags, _address = socket.recv_fds(requests, REQUEST, 2)
        if not request:
            return
        if os.fork() == 0:
            requests.close()
            _watch(json.loads(request), *descriptors)
            return
        for descriptor in descriptors:
            os.close(descriptor)


def _watch(request: dict[str, Any], output: int, says: int) -> None:
    """Tell the number of the run's process, and what it ended with. The run itself comes back from here."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    process = os.fork()
    if process == 0:
        os.close(says)
        _run(request, output)
        return
    os.write(says, f"{process}\n".encode())
    os.close(output)
    os.write(says, f"{os.waitstatus_to_exitcode(os.waitpid(process, 0)[1])}\n".encode())
    os._exit(0)


def _run(request: dict[str, Any], output: int) -> None:
    from ansible import constants
    from ansible.cli.playbook import main
    from ansible.utils.path import cleanup_tmp_file

    os.setsid()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    for standard in (1, 2):
        os.dup2(output, standard)
    os.close(output)
    # The folder for what it makes is named when constants are imported, and removed at the end: each run has its own.
    atexit.unregister(cleanup_tmp_file)
    constants.DEFAULT_LOCAL_TMP = constants.config.get_config_value("DEFAULT_LOCAL_TMP", variables=vars(constants))
    warnings.filterwarnings("ignore", message="AnsibleCollectionFinder has already been configured")
    sys.argv = request["command"]
    main(request["command"])


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
