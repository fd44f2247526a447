"""The command line of both generations."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys

from . import built_in, log, settings
from .app import App
from .built_in import BuiltIn
from .database import UnavailableError, close, connect_patiently
from .migrations import MigrationError, first_start, migrate
from .server import run

COMMANDS = {
    2026: {"-version": "version", "--version": "version", "-validate": "validate", "--validate": "validate"},
    2025: {"--version": "version", "--config-test": "validate", "migrate": "migrate"},
}


def main(arguments: list[str]) -> int:
    """Run one command, or the server; returns the exit status."""
    build = built_in.load()
    command = "serve"
    for argument in arguments:
        if argument not in COMMANDS[build.generation]:
            known = ", ".join(COMMANDS[build.generation])
            print(f"flag provided but not defined: {argument}\nknown: {known}", file=sys.stderr)
            return 2
        command = COMMANDS[build.generation][argument]
    if command == "version":
        print(f"Fluxbase {build.version}\nStand-in for tests, contract of {build.generation}, variant {build.variant}")
        return 0
    try:
        configuration = settings.load(os.environ, generation=build.generation)
    except settings.SettingsError as error:
        log.fatal("Failed to load configuration", error=str(error))
        return 1
    return _start(configuration, build, command)


def _start(configuration: settings.Settings, build: BuiltIn, command: str) -> int:
    log.info("Starting Fluxbase", version=build.version)
    try:
        connection = connect_patiently(configuration.database)
    except UnavailableError as error:
        log.fatal("Failed to connect to database", error=str(error))
        return 1
    try:
        if command == "validate":
            print("Configuration is valid")
            return 0
        log.info("Database migrations finished", applied=migrate(connection, build))
        if command == "migrate":
            return 0
        if build.variant == "crash-at-start" or (build.variant == "crash-once" and first_start(connection, build)):
            log.fatal("Failed to start", error="conn closed")
            return 1
    except MigrationError as error:
        log.fatal("Failed to run migrations", error=str(error))
        return 1
    finally:
        close(connection)
    if configuration.jobs_enabled and build.generation >= 2026 and shutil.which("deno") is None:
        log.fatal(
            "Failed to initialize jobs handler", error="failed to create runtime: deno executable not found in PATH"
        )
        return 1
    asyncio.run(run(App(configuration, build)))
    # Threads may still wait for the database; they own nothing that must be put in order.
    sys.stdout.flush()
    os._exit(0)
