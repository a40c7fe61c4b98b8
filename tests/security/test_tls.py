"""PostgreSQL is used only with a certificate of the right authority and for the right host name."""

from __future__ import annotations

import socket
import socketserver
import ssl
import threading
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from typing import TYPE_CHECKING, ClassVar, NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest
import sqlalchemy
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from drills.waiting import wait_until
from rates_app.local.server import HOST
from rates_app.settings import Settings
from rates_app.store.connections import connect
from rates_app.store.databases import Databases, Unavailable
from rates_app.store.lease import Lease
from rates_app.store.migrate import migrate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from rates_app.local.postgres import PostgresPair
    from tests.fixtures.stores import MigratedDatabase


class Authority(NamedTuple):
    """A certificate authority."""

    name: x509.Name
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def issue(
    subject: x509.Name,
    key: ec.EllipticCurvePrivateKey,
    issuer: x509.Name,
    signer: ec.EllipticCurvePrivateKey,
    extension: x509.ExtensionType,
) -> x509.Certificate:
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(now - timedelta(days=1)).not_valid_after(now + timedelta(days=1))
    return builder.add_extension(extension, critical=False).sign(signer, hashes.SHA256())


def authority(name: str) -> Authority:
    subject, key = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]), ec.generate_private_key(ec.SECP256R1())
    own_certificate = issue(subject, key, subject, key, x509.BasicConstraints(ca=True, path_length=None))
    return Authority(subject, key, own_certificate)


def pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


class Secured(NamedTuple):
    """A server behind TLS, and the certificates of its authority and of another one with the same name."""

    port: int
    owner: str
    serving: str
    right: Path
    wrong: Path

    def url(self, certificates: Path, host: str = HOST) -> str:
        return self._behind_tls(self.serving, certificates, host)

    def owner_url(self, certificates: Path) -> str:
        return self._behind_tls(self.owner, certificates, HOST)

    def _behind_tls(self, url: str, certificates: Path, host: str) -> str:
        parts = urlsplit(url)
        login = parts.netloc.rpartition("@")[0]
        query = f"sslmode=verify-full&sslrootcert={certificates}"
        return parts._replace(netloc=f"{login}@{host}:{self.port}", query=query).geturl()


class Terminator(socketserver.StreamRequestHandler):
    """Accepts TLS as PostgreSQL does, and passes the plain protocol on. The servers of the tests have no OpenSSL."""

    context: ClassVar[ssl.SSLContext]
    upstream: ClassVar[tuple[str, int]]

    def handle(self) -> None:
        if len(self.connection.recv(8)) < 8:  # SSLRequest
            return
        self.connection.sendall(b"S")
        try:
            secured = self.context.wrap_socket(self.connection, server_side=True)
        except (ssl.SSLError, OSError):
            return  # the client has refused the certificate
        with secured, socket.create_connection(self.upstream) as server:
            back = threading.Thread(target=self._copy, args=(server, secured))
            back.start()
            self._copy(secured, server)
            back.join()

    @staticmethod
    def _copy(source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def secured(cluster: PostgresPair, database: MigratedDatabase, tmp_path: Path) -> Iterator[Secured]:
    right, wrong = authority("Test authority"), authority("Test authority")
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "database")])
    names = x509.SubjectAlternativeName([x509.IPAddress(IPv4Address(HOST))])
    for name, each in (("right", right), ("wrong", wrong)):
        (tmp_path / name).write_bytes(pem(each.certificate))
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (tmp_path / "server").write_bytes(private + pem(issue(subject, key, right.name, right.key, names)))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server")
    handler = type("Handler", (Terminator,), {"context": context, "upstream": (HOST, cluster.primary.port)})
    with socketserver.ThreadingTCPServer((HOST, 0), handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        port = server.server_address[1]
        yield Secured(
            port, database.url, database.role_urls["serving_database_url"], tmp_path / "right", tmp_path / "wrong"
        )
        server.shutdown()


def databases(url: str) -> Databases:
    return Databases(Settings.model_validate({"database_url": url, "pool_size": 1}))


def test_every_kind_of_connection_is_encrypted(secured: Secured) -> None:
    url = secured.url(secured.right)
    with connect(url, "test") as connection:
        assert connection.pgconn.ssl_in_use
    pools = databases(url)
    pools.open()
    try:
        assert pools.read(lambda connection: connection.pgconn.ssl_in_use)
    finally:
        pools.close()
    lease = Lease(url, "test")
    lease.start()
    try:
        wait_until(lambda: lease.versions() is not None)
    finally:
        lease.stop()
    assert migrate(secured.owner_url(secured.right))


@pytest.mark.parametrize(
    ("certificates", "host", "reason"),
    [
        ("wrong", HOST, "SSL error: "),
        ("right", "localhost", 'does not match host name "localhost"'),
        ("missing", HOST, "does not exist"),
    ],
)
def test_another_server_gets_no_password(secured: Secured, certificates: str, host: str, reason: str) -> None:
    url = secured.url(secured.right.with_name(certificates), host)
    assert reason in refusal(lambda: connect(url, "test").close())
    assert reason in refusal(lambda: migrate(url))
    pools = databases(url)
    pools.open()
    try:
        with pytest.raises(Unavailable):
            pools.read(lambda connection: connection.execute("SELECT 1").fetchone())
    finally:
        pools.close()


def refusal(attempt: Callable[[], object]) -> str:
    """Return the reason for which a connection is refused; a busy machine may first exceed the timeout of a login."""
    for _ in range(20):
        try:
            attempt()
        except (psycopg.OperationalError, sqlalchemy.exc.OperationalError) as error:
            if "timeout" not in str(error):
                return str(error)
        else:
            pytest.fail("the connection was accepted")
    pytest.fail("every attempt exceeded its timeout")


def test_without_verification_any_server_is_believed(secured: Secured) -> None:
    """The reason for verify-full: sslmode=require without a bundle accepts every certificate."""
    url = secured.url(secured.wrong, "localhost").partition("?")[0]
    with connect(f"{url}?sslmode=require", "test") as connection:
        assert connection.pgconn.ssl_in_use
