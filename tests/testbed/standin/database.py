"""PostgreSQL: a pool of sessions, and listeners for NOTIFY.

Queries with parameters go out as the program's do: an unnamed statement is prepared in one round trip and run in the
next. That holds within a session only, so behind transaction pooling it fails now and then, as it should.
"""

from __future__ import annotations

import os
import select
import ssl
import threading
import time
from collections.abc import Callable
from typing import Any

from pg8000.exceptions import DatabaseError, InterfaceError
from pg8000.native import Connection

from . import log
from .settings import DatabaseSettings

CONNECT_TRIES = 5
CONNECT_PAUSE = 3.0  # seconds
QUERY_TIMEOUT = 5.0  # seconds
Row = dict[str, Any]


class UnavailableError(Exception):
    """The database does not answer."""


def _tls(mode: str) -> ssl.SSLContext | bool | None:
    """Translate an sslmode; None lets the driver try TLS first and do without where the server has none."""
    if mode == "disable":
        return False
    if mode in ("allow", "prefer"):
        return None
    if mode == "require":
        return True
    context = ssl.create_default_context(cafile=os.environ.get("PGSSLROOTCERT"))
    context.check_hostname = mode == "verify-full"
    return context


def connect(settings: DatabaseSettings, *, timeout: float | None, admin: bool = False) -> Connection:
    """Open one session.

    Raises:
        UnavailableError: nobody answers, or the server refuses.
    """
    place: dict[str, Any] = {"host": settings.host, "port": settings.port}
    if settings.host.startswith("/"):
        place = {"unix_sock": f"{settings.host}/.s.PGSQL.{settings.port}"}
    try:
        return Connection(
            settings.admin_user if admin else settings.user,
            password=settings.admin_password if admin else settings.password,
            database=settings.database,
            ssl_context=_tls(settings.ssl_mode),
            application_name="fluxbase",
            timeout=timeout,
            **place,
        )
    except (DatabaseError, InterfaceError, OSError) as error:
        raise UnavailableError(words(error)) from error


def connect_patiently(settings: DatabaseSettings) -> Connection:
    """Open a session for the migrations, trying as often as the program does."""
    for attempt in range(1, CONNECT_TRIES + 1):
        try:
            return connect(settings, timeout=None, admin=True)
        except UnavailableError as error:
            log.warning("Failed to connect to database, retrying", attempt=attempt, of=CONNECT_TRIES, error=str(error))
            if attempt == CONNECT_TRIES:
                raise
        time.sleep(CONNECT_PAUSE)
    raise AssertionError("the loop returns or raises")


def words(error: Exception) -> str:
    """Say an error the way psql does: `ERROR: ... (SQLSTATE 42703)`."""
    if error.args and isinstance(error.args[0], dict):
        fields = error.args[0]
        return f"{fields.get('S')}: {fields.get('M')} (SQLSTATE {fields.get('C')})"
    return str(error)


def session_lost(error: Exception) -> bool:
    """Whether the session is gone, and not only the statement."""
    if isinstance(error, DatabaseError) and error.args and isinstance(error.args[0], dict):
        return error.args[0].get("S") in ("FATAL", "PANIC")
    return True


class Pool:
    """Sessions shared by threads. One that was idle for a second is tried before use, as the program's driver does."""

    def __init__(self, settings: DatabaseSettings, observe: Callable[[float], None]) -> None:
        self.settings = settings
        self._observe = observe
        self._idle: list[tuple[Connection, float]] = []  # with the time since when
        self._lock = threading.Lock()
        self._places = threading.BoundedSemaphore(settings.max_connections)
        self.open = 0

    @property
    def idle(self) -> int:
        """How many sessions wait for work."""
        return len(self._idle)

    def warm_up(self) -> None:
        """Open the sessions that are kept when idle."""
        wanted = min(self.settings.min_connections, self.settings.max_connections)
        while self.open < wanted:
            self._give_back(self._new())

    def query(self, sql: str, **parameters: object) -> list[Row]:
        """Run one statement, in autocommit.

        Raises:
            UnavailableError: the database is away.
            DatabaseError: it refused the statement.
        """
        started = time.monotonic()
        with self._places:
            try:
                return self._run(self._take(), sql, parameters)
            finally:
                self._observe(time.monotonic() - started)

    def _run(self, connection: Connection, sql: str, parameters: dict[str, object]) -> list[Row]:
        try:
            rows = connection.run(sql, **parameters) or []
        except (DatabaseError, InterfaceError, OSError) as error:
            if not session_lost(error):
                self._give_back(connection)
                raise
            self._drop(connection)
            raise UnavailableError(words(error)) from error
        names = [column["name"] for column in connection.columns or []]
        self._give_back(connection)
        return [dict(zip(names, row, strict=True)) for row in rows]

    def _new(self) -> Connection:
        connection = connect(self.settings, timeout=QUERY_TIMEOUT)
        with self._lock:
            self.open += 1
        return connection

    def _take(self) -> Connection:
        while True:
            with self._lock:
                if not self._idle:
                    break
                connection, since = self._idle.pop()
            if time.monotonic() - since < 1:
                return connection
            try:
                connection.run("SELECT 1")
            except (DatabaseError, InterfaceError, OSError):
                self._drop(connection)
            else:
                return connection
        return self._new()

    def _give_back(self, connection: Connection) -> None:
        with self._lock:
            self._idle.append((connection, time.monotonic()))

    def _drop(self, connection: Connection) -> None:
        with self._lock:
            self.open -= 1
        close(connection)


def close(connection: Connection) -> None:
    """Close a session that may be dead already."""
    try:
        connection.close()
    except (DatabaseError, InterfaceError, OSError):
        return


class Listener(threading.Thread):
    """A session that waits for NOTIFY on one channel.

    The realtime one comes back after the database restarted. The one for webhooks never does, and says so once a
    second: that is the trait of 2026.3.6 for which a deployment restarts the program after a failover.
    """

    def __init__(
        self, settings: DatabaseSettings, channel: str, deliver: Callable[[str], None], *, comes_back: bool
    ) -> None:
        super().__init__(name=f"listen-{channel}", daemon=True)
        self.settings = settings
        self.channel = channel
        self.deliver = deliver
        self.comes_back = comes_back
        self.connected = False

    def run(self) -> None:
        """Listen until the process ends."""
        while True:
            try:
                self._listen()
            except (UnavailableError, DatabaseError, InterfaceError, OSError, ValueError) as error:
                self.connected = False
                log.error("Listener lost its connection", channel=self.channel, error=words(error))
            while not self.comes_back:
                log.error("Error waiting for notification: conn closed", channel=self.channel)
                time.sleep(1)
            time.sleep(0.25)

    def _listen(self) -> None:
        connection = connect(self.settings, timeout=QUERY_TIMEOUT)
        try:
            connection.run(f'LISTEN "{self.channel}"')
            self.connected = True
            while True:
                # The driver reads notifications with the answer to a statement: wait for bytes, then ask for one.
                select.select([connection._usock], [], [], 2.0)
                connection.run("SELECT 1")
                while connection.notifications:
                    _process, channel, payload = connection.notifications.popleft()
                    if channel == self.channel:
                        self.deliver(payload)
        finally:
            close(connection)
