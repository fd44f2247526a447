# GNU General Public License v3.0+ (see LICENSE)
"""Running a command that somebody else wrote: for so long, as whom it is meant to, with its last words; nothing of it is left behind."""

from __future__ import annotations

import contextlib
import os
import pwd
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import IO, Any

LINES, LENGTH = 15, 300  # of the last words, and characters of each
TAIL = 1 << 16  # bytes
GRACE = 2.0  # seconds between the wish to end and the end
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
# What moves a terminal's cursor or colours it, and what cannot be seen.
UNSEEN = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x08\x0b-\x1f\x7f]")


class CommandError(Exception):
    """The command could not be started; the message says what to do."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """`code` is that of a shell: 128 and the number of the signal that ended it; None where the time was over."""

    code: int | None
    seconds: float
    lines: tuple[str, ...]

    @property
    def ok(self) -> bool:
        return self.code == 0

    def as_result(self) -> dict[str, Any]:
        return {"code": self.code, "lines": list(self.lines), "seconds": round(self.seconds, 2)}

    @property
    def words(self) -> str:
        end = "had not ended" if self.code is None else f"ended with {self.code}"
        end += f" after {self.seconds:.1f} s"
        if self.ok:
            return end
        said = "".join(f"\n  {line}" for line in self.lines)
        return f"{end}. Its last words:{said}" if said else f"{end}, without a word"


def run(
    command: Sequence[str],
    *,
    environment: Mapping[str, str],
    timeout: float,
    user: str | None = None,
    directory: str = "/",
) -> Outcome:
    """`user`: who runs it, for root to say; else whoever runs this. `environment` is all that it has."""
    identity = {} if user is None else _identity(user)
    begun = time.monotonic()
    # A file and no pipe: what the command leaves running may hold a pipe open for ever.
    with tempfile.TemporaryFile() as output:
        try:
            process = subprocess.Popen(
                list(command),
                env=dict(environment),
                cwd=directory,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                **identity,  # type: ignore[call-overload]  # user, group and extra_groups
            )
        except OSError as error:
            raise CommandError(f"{command[0]} cannot be run: {os.strerror(error.errno or 0).lower()}") from error
        try:
            code: int | None = process.wait(timeout)
        except subprocess.TimeoutExpired:
            code = None
            _end(process)
        finally:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        seconds = time.monotonic() - begun
        return Outcome(code=128 - code if code is not None and code < 0 else code, seconds=seconds, lines=_last(output))


def of_a_host(given: Mapping[str, str], user: str) -> dict[str, str]:
    """The environment of a command on a host: nothing of whoever connected to it."""
    home = pwd.getpwnam(user).pw_dir if _known(user) else "/"
    return {"PATH": PATH, "HOME": home, "LANG": "C.UTF-8", **given}


def _end(process: subprocess.Popen[bytes]) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(GRACE)


def _known(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _identity(user: str) -> dict[str, object]:
    if not _known(user):
        raise CommandError(f"there is no user {user} to run it as; make it, or name another one as user")
    entry = pwd.getpwnam(user)
    if entry.pw_uid == os.geteuid():
        return {}
    return {"user": entry.pw_uid, "group": entry.pw_gid, "extra_groups": []}


def _last(output: IO[bytes]) -> tuple[str, ...]:
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - TAIL))
    text = UNSEEN.sub("", output.read().decode("utf-8", "replace"))
    lines = [line.rstrip()[:LENGTH] for line in text.splitlines() if line.strip()]
    return tuple(lines[-LINES:])
