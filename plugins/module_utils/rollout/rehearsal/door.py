# GNU General Public License v3.0+ (see LICENSE)
"""The way from a network that has nothing in it to a copy of the database on another host, and to nothing else.

It is a second PgBouncer with the configuration of the first: the service finds it where it finds its database, and it pools as that one does,
trusts the same authority and knows the same passwords. Its socket is in that network, its program in the host's.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from .lock import RehearsalError
from .place import PREFIX, Place

NETWORK = f"{PREFIX}-network.service"
DOOR = f"{PREFIX}-door"
POOLER = Path("/etc/pgbouncer/pgbouncer.ini")
LISTEN = re.compile(r"^%include .*$", re.MULTILINE)
PORT = re.compile(r"\bport=\d+")


def configuration(live: str, database: str, port: int) -> str:
    """That of the host's pooler, with one database, which is behind another port."""
    line = next((line for line in live.splitlines() if line.startswith(f"{database} = ")), None)
    if line is None:
        raise RehearsalError(f"{POOLER} has no database {database}; site.yml writes it")
    # What it listens on comes from systemd.
    settings = LISTEN.sub("unix_socket_dir =", live.partition("\n[pgbouncer]\n")[2])
    return f"[databases]\n{PORT.sub(f'port={port}', line, count=1)}\n\n[pgbouncer]\n{settings}"


def open_door(
    place: Place, *, database: str, port: int, copy_port: int, read: Callable[[], str] = POOLER.read_text
) -> None:
    """`port`: where the service finds its database, on 127.0.0.1; `copy_port`: where the host of the database has the door to the copy."""
    place.make_folder()
    settings = place.folder / "pgbouncer.ini"
    settings.write_text(configuration(read(), database, copy_port))
    place.unit(
        NETWORK,
        "[Unit]\nDescription=A network for a release that is rehearsed\n\n"
        # Who joins a network joins its /tmp, too.
        "[Service]\nDynamicUser=yes\nPrivateNetwork=yes\nPrivateTmp=yes\nExecStart=/bin/sleep infinity\n",
    )
    place.unit(
        f"{DOOR}.socket",
        f"[Unit]\nJoinsNamespaceOf={NETWORK}\n\n[Socket]\nPrivateNetwork=yes\nListenStream=127.0.0.1:{port}\n",
    )
    place.unit(
        f"{DOOR}.service",
        f"[Service]\nUser=postgres\nNoNewPrivileges=yes\nExecStart=/usr/sbin/pgbouncer {settings}\n",
    )
    place.start(NETWORK)
    place.start(f"{DOOR}.socket")
