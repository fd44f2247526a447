"""Log lines in the form of the program's console output: `<time> ERR <message> error="..."`."""

from __future__ import annotations

import json
import sys
from datetime import UTC, datetime


def _write(level: str, message: str, fields: dict[str, object]) -> None:
    now = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    pairs = [f"{key}={json.dumps(value, default=str)}" for key, value in fields.items()]
    print(" ".join([now, level, message, *pairs]), file=sys.stderr, flush=True)


def info(message: str, **fields: object) -> None:
    """Log what happened."""
    _write("INF", message, fields)


def warning(message: str, **fields: object) -> None:
    """Log what the program lives with."""
    _write("WRN", message, fields)


def error(message: str, **fields: object) -> None:
    """Log what failed."""
    _write("ERR", message, fields)


def fatal(message: str, **fields: object) -> None:
    """Log what ends the program."""
    _write("FTL", message, fields)
