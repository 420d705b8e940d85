"""TLS before a PostgreSQL server that has none: what a server on another machine shows to its clients."""

import ipaddress
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

#: An address that Linux takes for loopback and that nothing else does: to a client it is another machine.
OTHER_MACHINE = "0.0.0.0"  # noqa: S104
_SSL_REQUEST = bytes.fromhex("0000000804d2162f")


def write_certificate(folder: Path, address: str) -> Path:
    """Writes cert.pem, which is its own authority, and key.pem for a server at an IP address. Returns cert.pem."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address(address))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return folder / "cert.pem"


@contextmanager
def tls_proxy(unix_socket: str, folder: Path | None) -> Iterator[int]:
    """Listens on a loopback port, which it yields, and passes on to the server's socket.

    `folder` holds cert.pem and key.pem; None: this server has no TLS.
    """
    context = None
    if folder is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    with socket.create_server(("127.0.0.1", 0)) as listening:
        threading.Thread(target=_serve, args=(listening, unix_socket, context), daemon=True).start()
        yield listening.getsockname()[1]
        listening.shutdown(socket.SHUT_RDWR)


def _serve(listening: socket.socket, unix_socket: str, context: ssl.SSLContext | None) -> None:
    with suppress(OSError):
        while True:
            client, _ = listening.accept()
            threading.Thread(target=_pass_on, args=(client, unix_socket, context), daemon=True).start()


def _pass_on(client: socket.socket, unix_socket: str, context: ssl.SSLContext | None) -> None:
    with ExitStack() as closed, suppress(OSError):
        closed.callback(client.close)
        server = closed.enter_context(socket.socket(socket.AF_UNIX))
        server.connect(unix_socket)
        first = client.recv(8)
        if first != _SSL_REQUEST:
            server.sendall(first)
        else:
            client.sendall(b"S" if context else b"N")
            if context:
                client = closed.enter_context(context.wrap_socket(client, server_side=True))
        back = threading.Thread(target=_copy, args=(server, client))
        back.start()
        _copy(client, server)
        back.join()


def _copy(source: socket.socket, target: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(65_536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
