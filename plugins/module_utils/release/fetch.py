# Copyright (c) the selfhost.fleet authors
# GNU General Public License v3.0+ (see LICENSE or https://www.gnu.org/licenses/gpl-3.0.txt)
# SPDX-License-Identifier: GPL-3.0-or-later
"""Getting the file: from the host's disk, or over HTTPS; never trusted before its checksum is right."""

from __future__ import annotations

import errno
import hashlib
import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from .model import ReleaseError

CHUNK = 1 << 20
TRIES = 3
STALL = 30.0  # seconds without a byte
OTHERWISE_IN_SHORT = "download the file to the controller and name it there as source"
OTHERWISE = (
    "Nothing was installed. Is the address right, and may this host reach it (its name service, firewalls on the way)? "
    f"Otherwise {OTHERWISE_IN_SHORT}."
)
LOCAL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)


def sha256_of(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def check(found: str, wanted: str, what: str) -> None:
    if f"sha256:{found}" != wanted:
        raise ReleaseError(
            f"{what} has the checksum sha256:{found}, and {wanted} was asked for. Nothing was installed. "
            "Either the file is not the one that was published, or `checksum` is of another version or architecture."
        )


def copy(source: Path, target: Path, wanted: str) -> None:
    """A copy whose own bytes were hashed on the way: the source may change meanwhile."""
    with source.open("rb") as stream, target.open("xb") as out:
        check(_pour(stream, out)[0], wanted, str(source))


def download(
    address: str,
    target: Path,
    wanted: str,
    *,
    context: ssl.SSLContext | None = None,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    parts = urlsplit(address)
    # A user, a password or a query may hold a token.
    shown = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
    handlers = (urllib.request.HTTPSHandler(context=context), _OnlyHttps())
    opener = urllib.request.build_opener(*handlers)
    for attempt in range(1, TRIES + 1):
        try:
            request = urllib.request.Request(address, headers={"User-Agent": "selfhost.fleet release"})  # noqa: S310
            with opener.open(request, timeout=STALL) as answer, target.open("wb") as out:
                found, size = _pour(answer, out)
                length = answer.headers.get("Content-Length")
            if length is not None and int(length) != size:
                raise ReleaseError(_cut_off(shown, f"after {size} of {length} bytes"))
            check(found, wanted, shown)
            return
        except (OSError, http.client.HTTPException, ReleaseError) as error:
            problem = error if isinstance(error, ReleaseError) else ReleaseError(_words(shown, error))
            final = isinstance(error, urllib.error.HTTPError) and error.code < 500
            # A full disk is no fault of the network: the caller has the words for it.
            if isinstance(error, OSError) and error.errno in LOCAL:
                raise
            if attempt == TRIES or final or "has the checksum" in str(problem):
                raise problem from error
            sleep(2.0**attempt)


class _OnlyHttps(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        if not newurl.startswith("https://"):
            raise ReleaseError(f"{req.host} redirects to an address without TLS; name the https address itself.")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _pour(stream: Any, out: IO[bytes]) -> tuple[str, int]:
    digest, size = hashlib.sha256(), 0
    while chunk := stream.read(CHUNK):
        out.write(chunk)
        digest.update(chunk)
        size += len(chunk)
    return digest.hexdigest(), size


def _words(shown: str, error: Exception) -> str:
    if isinstance(error, urllib.error.HTTPError):
        hint = " Is there such a version, and is it public?" if error.code in (401, 403, 404) else ""
        return f"{shown} answered with status {error.code} ({error.reason}).{hint}"
    if isinstance(error, http.client.IncompleteRead):
        return _cut_off(shown, f"in its last part, of which {len(error.partial)} bytes came")
    reason = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(reason, ssl.SSLCertVerificationError):
        hint = (
            f" This host's clock says {time.strftime('%F %R', time.gmtime())} UTC."
            if _of_time(reason.verify_message)
            else ""
        )
        return f"{shown} cannot be trusted: {reason.verify_message}.{hint} Nothing was installed."
    if isinstance(reason, TimeoutError):
        return f"{shown} sent nothing for {STALL:g} s, {TRIES} times. {OTHERWISE}"
    return f"{shown} cannot be fetched by this host: {getattr(reason, 'strerror', None) or reason}. {OTHERWISE}"


def _of_time(verdict: str) -> bool:
    return "not yet valid" in verdict or "expired" in verdict


def _cut_off(shown: str, where: str) -> str:
    return f"{shown} was cut off {where}, {TRIES} times. Nothing was installed. Run again; if it stays so, {OTHERWISE_IN_SHORT}."
