# Managed by selfhost.fleet.
"""Puts what certbot has obtained where nginx reads it, and has nginx read it.

certbot calls it after a renewal, and its unit after every run: what could not be put in place the last time is tried again.
All certificates go together; when nginx refuses one, the former files come back and this ends with an error.
"""

from __future__ import annotations

import fcntl
import json
import os
import subprocess
import sys
from pathlib import Path

CERTIFICATES = Path("/etc/selfhost/acme/certificates.json")  # certbot's folder of each certificate, and nginx's
LOCK = Path("/run/selfhost-acme.lock")
# certbot's file, nginx's, its mode.
FILES = (
    ("privkey.pem", "privkey.pem", 0o600),
    ("fullchain.pem", "fullchain.pem", 0o644),
    ("chain.pem", "ca.pem", 0o644),
)


def write(path: Path, content: bytes, mode: int) -> None:
    candidate = path.with_name(f".{path.name}.new")
    candidate.unlink(missing_ok=True)
    with os.fdopen(os.open(candidate, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    candidate.chmod(mode)
    candidate.replace(path)


def differing(live: Path, folder: Path) -> bool:
    return not all(
        (folder / ours).exists() and (folder / ours).read_bytes() == (live / theirs).read_bytes()
        for theirs, ours, _mode in FILES
    )


def put(live: Path, folder: Path) -> dict[Path, tuple[bytes, int]]:
    """Returns what was there before."""
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    former = {path: (path.read_bytes(), mode) for _theirs, ours, mode in FILES if (path := folder / ours).exists()}
    for theirs, ours, mode in FILES:
        write(folder / ours, (live / theirs).read_bytes(), mode)
    return former


def reload() -> None:
    """nginx goes on with what it has where it does not run, or would not start with the new files."""
    subprocess.run(["/usr/sbin/nginx", "-t", "-q"], check=True)
    if subprocess.run(["/usr/bin/systemctl", "is-active", "--quiet", "nginx.service"], check=False).returncode == 0:
        subprocess.run(["/usr/bin/systemctl", "reload", "nginx.service"], check=True)


def main() -> int:
    with LOCK.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        wanted = [(Path(entry["live"]), Path(entry["directory"])) for entry in json.loads(CERTIFICATES.read_text())]
        stale = [
            (live, folder) for live, folder in wanted if (live / "fullchain.pem").exists() and differing(live, folder)
        ]
        if not stale:
            return 0
        former: dict[Path, tuple[bytes, int]] = {}
        try:
            for live, folder in stale:
                former |= put(live, folder)
            reload()
        except (OSError, subprocess.CalledProcessError) as error:
            for path, (content, mode) in former.items():
                write(path, content, mode)
            print(f"{error}; nginx goes on with the former certificates, which are back in place", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
