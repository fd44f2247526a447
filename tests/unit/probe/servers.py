"""Real servers on local ports, each in a thread, that answer as a test says; and a certificate for them."""

from __future__ import annotations

import datetime
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Handler = Callable[[socket.socket, bytes], None]


@contextmanager
def server(handler: Handler, tls: ssl.SSLContext | None = None) -> Iterator[int]:
    """Calls handler(connection, request's head) for each connection, one after the other; yields the port."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.05)
    end = threading.Event()

    def serve() -> None:
        while not end.is_set():
            try:
                connection, _peer = listener.accept()
            except TimeoutError:
                continue
            connection.settimeout(5)
            try:
                if tls is not None:
                    connection = tls.wrap_socket(connection, server_side=True)
                head = b""
                while b"\r\n\r\n" not in head:
                    chunk = connection.recv(4096)
                    if not chunk:
                        break
                    head += chunk
                    if head.startswith(b"\x16"):
                        break  # TLS, which this server was not asked to speak
                handler(connection, head)
            except OSError:
                pass  # the client went away, as some tests want
            finally:
                connection.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        end.set()
        thread.join()
        listener.close()


def says(*answers: bytes) -> Handler:
    """One answer after the other, the last one again and again."""
    left = list(answers)

    def handler(connection: socket.socket, _head: bytes) -> None:
        connection.sendall(left.pop(0) if len(left) > 1 else left[0])

    return handler


def answer(status: str, body: bytes = b"", *headers: str) -> bytes:
    head = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers]
    return "\r\n".join(head).encode() + b"\r\n\r\n" + body


def certificate(folder: Path, name: str) -> tuple[ssl.SSLContext, Path]:
    """A server's context for `name`, and the file that a client has to trust."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path = folder / f"{name}.pem"
    path.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + made.public_bytes(serialization.Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path)
    return context, path
