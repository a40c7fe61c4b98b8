"""A webhook's server proves its name by a certificate of a known authority, at the address that was checked."""

from __future__ import annotations

import socket
import ssl
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rates_app.alerts.targets import HTTPS_PORT, post
from rates_app.notify.alert import NotDelivered
from tests.fixtures.tls import Authority, authority, issue, pem

if TYPE_CHECKING:
    from pathlib import Path

NAME = "hooks.acme.example"
#: An address of the Internet, which the name has. Connections to it lead to the server of the test.
PUBLIC = "93.184.216.34"


class SecureReceiver:
    """A server with a certificate, and the names by which clients asked for it.

    Attributes:
        connected: Addresses and ports to which clients connected.
        names: Names in the TLS handshakes (SNI).
        hosts: Headers Host of the requests.
    """

    def __init__(self, known: Authority, folder: Path) -> None:
        self.known = known
        self.folder = folder
        self.port = 0
        self.connected: list[tuple[str, int]] = []
        self.names: list[str | None] = []
        self.hosts: list[str | None] = []

    def context(self, signer: Authority, name: str) -> ssl.SSLContext:
        """Return the server's part of TLS with a new certificate."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "webhooks")])
        certificate = issue(subject, key, signer.name, signer.key, x509.SubjectAlternativeName([x509.DNSName(name)]))
        private = key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
        (self.folder / "server").write_bytes(private + pem(certificate))
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.folder / "server")
        context.sni_callback = lambda _socket, asked, _context: self.names.append(asked)
        return context


@pytest.fixture
def secure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SecureReceiver:
    """A receiver whose authority the sender knows, and whose name has a public address."""
    receiver = SecureReceiver(authority("Known authority"), tmp_path)
    (tmp_path / "known").write_bytes(pem(receiver.known.certificate))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "known"))

    def connect_here(address: tuple[str, int], seconds: float) -> socket.socket:
        receiver.connected.append(address)
        connection = socket.socket()
        connection.settimeout(seconds)
        connection.connect(("127.0.0.1", receiver.port))
        return connection

    looked_up = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (PUBLIC, HTTPS_PORT))]
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *_, **__: looked_up if host == NAME else [])
    monkeypatch.setattr(socket, "create_connection", connect_here)
    return receiver


def serve(receiver: SecureReceiver, signer: Authority, name: str) -> ThreadingHTTPServer:
    class SecureHandler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            receiver.hosts.append(self.headers["Host"])
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None: ...  # noqa: A002

    class SecureServer(ThreadingHTTPServer):
        def handle_error(self, request: Any, client_address: Any) -> None: ...  # the client refuses the certificate

    server = SecureServer(("127.0.0.1", 0), SecureHandler)
    context = receiver.context(signer, name)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    receiver.port = server.server_port
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


def send() -> None:
    post(f"https://{NAME}/hook", b"{}", {}, seconds=20, allow_loopback=False)


@pytest.mark.parametrize(
    ("known", "name", "reason"),
    [
        (True, NAME, None),
        (False, NAME, "unable to get local issuer certificate"),
        (True, "other.acme.example", "Hostname mismatch"),
    ],
)
def test_only_a_valid_certificate_for_the_name_is_accepted(
    secure: SecureReceiver, *, known: bool, name: str, reason: str | None
) -> None:
    signer = secure.known if known else authority("Unknown authority")
    server = serve(secure, signer, name)
    try:
        if reason is None:
            send()
        else:
            with pytest.raises(NotDelivered, match=reason):
                send()
    finally:
        server.shutdown()
        server.server_close()
    assert secure.connected == [(PUBLIC, HTTPS_PORT)]  # the address that was checked, and no second lookup
    assert secure.names == [NAME]
    assert secure.hosts == ([NAME] if reason is None else [])
