"""One life of the process, from its ports to its end."""

from __future__ import annotations

import asyncio
import signal
from concurrent.futures import ThreadPoolExecutor

from . import log
from .app import App
from .database import Listener, UnavailableError
from .http import Handler, HttpConnection, Request, Response, Upgrader, answer

STOP_TIME = 2.0  # seconds from SIGTERM to the end: that is how long the program takes with nothing running


async def _listen(address: str, handler: Handler, upgrader: Upgrader | None = None) -> asyncio.Server | None:
    """Listen, on IPv4 only. A port already taken is only logged, and the process lives on."""
    host, _colon, port = address.rpartition(":")

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await HttpConnection(reader, writer, handler, upgrader).serve()

    try:
        server = await asyncio.start_server(serve, host.strip("[]") or "0.0.0.0", int(port), backlog=1024)
    except (OSError, OverflowError, ValueError) as error:
        log.error("Server failed to start", address=address, error=f"failed to listen: listen tcp4 {address}: {error}")
        return None
    log.info("Server listening", address=address)
    return server


async def _watch_database(app: App) -> None:
    """Keep the idle sessions open, again after the database came back."""
    while True:
        try:
            await asyncio.to_thread(app.pool.warm_up)
        except UnavailableError as error:
            log.warning("Database is away", error=str(error))
        await asyncio.sleep(1)


async def run(app: App) -> None:
    """Serve until SIGTERM."""
    loop = asyncio.get_running_loop()
    loop.set_default_executor(ThreadPoolExecutor(min(app.settings.database.max_connections, 64) + 4))
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)

    if app.build.variant == "slow-start":
        log.info("Starting slowly", seconds=app.build.seconds)
        await asyncio.sleep(app.build.seconds)

    def deliver(payload: str) -> None:
        loop.call_soon_threadsafe(app.deliver, payload)

    Listener(app.settings.database, "app_items", deliver, comes_back=True).start()
    Listener(app.settings.database, "app_webhooks", lambda _payload: None, comes_back=False).start()
    tasks = [asyncio.create_task(_watch_database(app)), asyncio.create_task(app.hub.ping_for_ever())]
    if app.build.generation >= 2026 and app.settings.metrics_enabled:
        await _listen(f"0.0.0.0:{app.settings.metrics_port}", _only_metrics(app))
    await _listen(app.settings.address, app.handle, app.upgrade)

    await stop.wait()
    log.info("Shutting down")
    app.hub.drop_all()
    if app.build.variant == "hang-on-stop":
        await asyncio.Event().wait()
    await asyncio.sleep(STOP_TIME)
    for task in tasks:
        task.cancel()
    log.info("Server exited")


def _only_metrics(app: App) -> Handler:
    async def handle(request: Request) -> Response:
        if request.path == app.settings.metrics_path:
            return await app.metrics_page(request)
        return answer(404, {"error": "Not Found"})

    return handle
