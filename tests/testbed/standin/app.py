"""The routes: what the stand-in answers."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import os
import pkgutil
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime

from pg8000.exceptions import DatabaseError
from wsproto.utilities import LocalProtocolError, RemoteProtocolError

from . import log
from .accounts import Limit, hash_password, make_token, password_matches, token_subject
from .built_in import BuiltIn
from .database import Pool, Row, UnavailableError, words
from .http import Request, Response, answer
from .metrics import Metrics
from .settings import Settings
from .websocket import Hub, WebSocket

PAGE = {
    "/": ("page/index.html", "text/html; charset=utf-8"),
    "/app.js": ("page/app.js", "text/javascript; charset=utf-8"),
    "/app.svg": ("page/app.svg", "image/svg+xml"),
    "/app.css": ("page/app.css", "text/css; charset=utf-8"),
}
MCP_TICK = 1.0  # seconds
Route = Callable[[Request], Awaitable[Response]]


class App:
    """One running instance."""

    def __init__(self, settings: Settings, build: BuiltIn) -> None:
        self.settings, self.build = settings, build
        self.metrics = Metrics()
        self.pool = Pool(settings.database, self.metrics.query)
        self.hub = Hub(settings.realtime_limit, settings.realtime_limit_per_address)
        self.identity = {
            "version": build.version,
            "slot": os.environ.get("FLEET_SLOT", ""),
            "host": socket.gethostname(),
        }
        self._limits = {"signup": Limit(settings.signup_limit), "signin": Limit(settings.signin_limit)}
        self._api_calls = itertools.count(1)
        self._in_use_since: float | None = None
        self._routes = self._make_routes()

    def _make_routes(self) -> dict[tuple[str, str], Route]:
        routes: dict[tuple[str, str], Route] = {
            ("GET", "/health"): self.health,
            ("GET", "/api/v1/items"): self.items,
            ("POST", "/api/v1/items"): self.add_item,
            ("POST", "/api/v1/auth/signup"): self.sign_up,
            ("POST", "/api/v1/auth/signin"): self.sign_in,
            ("GET", "/api/v1/auth/user"): self.user,
            ("POST", "/api/v1/storage/upload"): self.upload,
            ("GET", "/mcp"): self.mcp,
            ("POST", "/mcp"): self.mcp,
        }
        if self.build.generation < 2026:
            routes["GET", "/ready"] = self.health
            routes["GET", "/metrics"] = self.metrics_page
            routes["POST", "/dashboard/auth/signup"] = self.set_up
        elif self.settings.admin_enabled:
            routes["GET", "/api/v1/admin/setup/status"] = self.setup_status
            routes["POST", "/api/v1/admin/setup"] = self.set_up
        return routes

    # -- what every request meets ----------------------------------------------------------------------------------

    async def handle(self, request: Request) -> Response:
        """Answer one request, whatever happens."""
        started = time.monotonic()
        self.metrics.in_flight += 1
        try:
            response = await self._dispatch(request)
        finally:
            self.metrics.in_flight -= 1
        known = request.path if (request.method, request.path) in self._routes else "other"
        self.metrics.count(
            "fluxbase_http_requests_total", method=request.method, path=known, status=str(response.status)
        )
        self.metrics.requests.observe(time.monotonic() - started)
        return response

    async def _dispatch(self, request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        if method == "GET" and request.path in PAGE:
            return self.page(request.path)
        route = self._routes.get((method, request.path))
        if route is None:
            return answer(404, {"error": "Not Found"})
        if request.path.startswith("/api/v1/"):
            self._used()
            if self.build.variant == "bad-answers" and next(self._api_calls) % 5 == 0:
                return answer(500, {"error": "Internal Server Error"})
        try:
            return await route(request)
        except UnavailableError as error:
            return answer(503, {"error": "database unavailable", "detail": str(error)})
        except DatabaseError as error:
            log.error("Query failed", path=request.path, error=words(error))
            return answer(500, {"error": "query failed", "detail": words(error)})

    def _used(self) -> None:
        """Users are here; some variants do not bear them for long."""
        if self._in_use_since is None:
            self._in_use_since = time.monotonic()
            if self.build.variant == "crash-in-use":
                log.error("Will not bear it for long", seconds=self.build.seconds)
                asyncio.get_running_loop().call_later(self.build.seconds, os._exit, 1)

    def _overused(self) -> bool:
        used = self.build.variant == "fails-in-use" and self._in_use_since is not None
        return used and time.monotonic() - (self._in_use_since or 0.0) > self.build.seconds

    async def query(self, sql: str, **parameters: object) -> list[Row]:
        """Run a statement beside the event loop."""
        return await asyncio.to_thread(self.pool.query, sql, **parameters)

    # -- probes ----------------------------------------------------------------------------------------------------

    def page(self, path: str) -> Response:
        """One of the three files of the page."""
        name, content_type = PAGE[path]
        body = pkgutil.get_data(__package__ or "", name) or b""
        if path == "/":
            for key, value in self.identity.items():
                body = body.replace(b"{{" + key.encode() + b"}}", (value or "none").encode())
        return Response(200, body, content_type)

    async def health(self, _request: Request) -> Response:
        """200 while the database answers, else 503 at once."""
        database = True
        try:
            await self.query("SELECT 1 AS one")
        except (UnavailableError, DatabaseError):
            database = False
        well = database and self.build.variant != "never-healthy" and not self._overused()
        content = {
            "status": "ok" if well else "degraded",
            "services": {"database": database, "realtime": not self.hub.stopping},
            "timestamp": datetime.now(UTC).isoformat(),
            **self.identity,
        }
        return answer(200 if well else 503, content)

    async def metrics_page(self, _request: Request) -> Response:
        """Prometheus's page."""
        text = self.metrics.text(
            {
                "fluxbase_db_connections": self.pool.open,
                "fluxbase_db_connections_idle": self.pool.idle,
                "fluxbase_db_connections_max": self.settings.database.max_connections,
                "fluxbase_realtime_connections": len(self.hub.open),
                "fluxbase_realtime_channels": 1 if self.hub.open else 0,
            }
        )
        return Response(200, text.encode(), "text/plain; version=0.0.4; charset=utf-8")

    # -- rows ------------------------------------------------------------------------------------------------------

    async def items(self, request: Request) -> Response:
        """The newest rows first: ?limit=50, ?after=<id>."""
        limit, after = request.query.get("limit", "50"), request.query.get("after", "0")
        if not (limit.isdecimal() and after.isdecimal()):
            return answer(400, {"error": "limit and after are whole numbers"})
        rows = await self.query(
            "SELECT id, body, written_by, created_at FROM app.items"
            " WHERE id > cast(:after AS bigint) ORDER BY id DESC LIMIT cast(:limit AS integer)",
            after=int(after),
            limit=min(int(limit), 1000),
        )
        return answer(200, rows)

    async def add_item(self, request: Request) -> Response:
        """Insert a row: {"body": "..."}."""
        body = request.json().get("body")
        if not isinstance(body, str) or not 1 <= len(body) <= 2000:
            return answer(400, {"error": "body is a text of 1 to 2000 characters"})
        writer = "/".join(filter(None, (self.identity["version"], self.identity["slot"])))
        rows = await self.query(
            "INSERT INTO app.items (body, written_by) VALUES (:body, :writer)"
            " RETURNING id, body, written_by, created_at",
            body=body,
            writer=writer,
        )
        return answer(201, rows[0])

    async def upload(self, request: Request) -> Response:
        """Take a body of any size and say how long it was."""
        return answer(200, {"size": request.body_size})

    # -- accounts --------------------------------------------------------------------------------------------------

    def _too_many(self, kind: str, request: Request) -> Response | None:
        if not self._limits[kind].exceeded(request.client):
            return None
        self.metrics.count("fluxbase_rate_limit_hits_total", limiter=f"auth_{kind}")
        return answer(429, {"error": "Rate limit exceeded", "message": "Too many requests", "retry_after": 60})

    def _session(self, status: int, user: Row) -> Response:
        token = make_token(str(user["email"]), self.settings.jwt_secret)
        return answer(status, {"access_token": token, "expires_in": 900, "user": {"email": user["email"]}})

    async def sign_up(self, request: Request) -> Response:
        """Make an account: {"email", "password"}."""
        if refused := self._too_many("signup", request):
            return refused
        content = request.json()
        email, password = str(content.get("email") or ""), str(content.get("password") or "")
        if "@" not in email or len(password) < 8:
            return answer(400, {"error": "email and a password of at least 8 characters are required"})
        rows = await self.query(
            "INSERT INTO app.users (email, password) VALUES (:email, :password) ON CONFLICT DO NOTHING RETURNING email",
            email=email,
            password=await asyncio.to_thread(hash_password, password),
        )
        self.metrics.count("fluxbase_auth_attempts_total", method="signup", result="success" if rows else "failure")
        return self._session(201, rows[0]) if rows else answer(400, {"error": "user already exists"})

    async def sign_in(self, request: Request) -> Response:
        """Answer with a token. A statement that fails counts as a wrong password: so does the program's."""
        if refused := self._too_many("signin", request):
            return refused
        content = request.json()
        email, password = str(content.get("email") or ""), str(content.get("password") or "")
        rows: list[Row] = []
        try:
            rows = await self.query("SELECT email, password FROM app.users WHERE email = :email", email=email)
        except DatabaseError as error:
            log.error("Failed to look the user up", error=words(error))
        right = bool(rows) and await asyncio.to_thread(password_matches, password, str(rows[0]["password"]))
        self.metrics.count("fluxbase_auth_attempts_total", method="password", result="success" if right else "failure")
        return self._session(200, rows[0]) if right else answer(401, {"error": "invalid email or password"})

    async def user(self, request: Request) -> Response:
        """Who the token in `Authorization: Bearer` names."""
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        subject = token_subject(token, self.settings.jwt_secret)
        return answer(200, {"email": subject}) if subject else answer(401, {"error": "invalid token"})

    async def _has_admin(self) -> bool:
        return bool(await self.query("SELECT 1 AS one FROM app.users WHERE is_admin LIMIT 1"))

    async def setup_status(self, _request: Request) -> Response:
        """Whether somebody has made the first administrator."""
        done = await self._has_admin()
        return answer(200, {"needs_setup": not done, "has_admin": done})

    async def set_up(self, request: Request) -> Response:
        """Make the first administrator: {"setup_token", "email", "password", "name"}; 2025 asks for no token."""
        content = request.json()
        if self.build.generation >= 2026:
            own, given = self.settings.setup_token, str(content.get("setup_token") or "")
            if not own or not hmac.compare_digest(own.encode(), given.encode()):
                return answer(401, {"error": "Invalid setup token"})
        if await self._has_admin():
            return answer(403, {"error": "Setup has already been completed"})
        email, password = str(content.get("email") or ""), str(content.get("password") or "")
        if "@" not in email or len(password) < 12:
            return answer(400, {"error": "email and a password of at least 12 characters are required"})
        rows = await self.query(
            "INSERT INTO app.users (email, password, is_admin) VALUES (:email, :password, true)"
            " ON CONFLICT (email) DO UPDATE SET is_admin = true RETURNING email",
            email=email,
            password=await asyncio.to_thread(hash_password, password),
        )
        return self._session(201, rows[0])

    # -- streams and WebSockets ------------------------------------------------------------------------------------

    async def mcp(self, request: Request) -> Response:
        """Server-sent events: to a POST one answer, to a GET one event a second for as long as the client stays."""
        once = request.json().get("id") if request.method == "POST" else None
        headers = [("X-Accel-Buffering", "no")]
        return Response(
            200, content_type="text/event-stream", headers=headers, stream=self._events(request.method == "POST", once)
        )

    async def _events(self, only_one: bool, call: object) -> AsyncIterator[bytes]:
        for number in itertools.count(1):
            message = {"jsonrpc": "2.0", "id": call, "result": {"number": number, **self.identity}}
            yield f"event: message\ndata: {json.dumps(message)}\n\n".encode()
            if only_one:
                return
            await asyncio.sleep(MCP_TICK)

    async def upgrade(
        self, request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> Response | None:
        """Turn a connection into a WebSocket; None once it has ended."""
        if request.path not in ("/realtime", "/ai/ws"):
            return answer(404, {"error": "Not Found"})
        if reason := self.hub.refusal(request.client):
            return answer(429 if not self.hub.stopping else 503, {"error": reason})
        try:
            websocket = WebSocket(request, reader, writer)
            websocket.accept()
        except (LocalProtocolError, RemoteProtocolError) as error:
            return answer(400, {"error": str(error)})
        self.hub.open.add(websocket)
        try:
            websocket.send({"type": "connected", "path": request.path, **self.identity})
            await websocket.listen()
        except (LocalProtocolError, RemoteProtocolError):
            websocket.drop()
        finally:
            self.hub.open.discard(websocket)
        return None

    def deliver(self, payload: str) -> None:
        """Pass a notification of the database on; called in the event loop."""
        self.hub.broadcast({"type": "broadcast", "event": "INSERT", "table": "items", "record": json.loads(payload)})
