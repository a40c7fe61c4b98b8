"""PostgreSQL is used only with a certificate of the right authority and for the right host name."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import urlsplit

import psycopg
import pytest
import sqlalchemy
from cryptography import x509

from drills.waiting import wait_until
from rates_app.local.server import HOST
from rates_app.settings import Settings
from rates_app.store.connections import connect
from rates_app.store.databases import Databases, Unavailable
from rates_app.store.lease import Lease
from rates_app.store.migrate import migrate
from tests.fixtures.tls import tls_in_front

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from rates_app.local.postgres import PostgresPair
    from tests.fixtures.stores import MigratedDatabase

AUTHORITIES = Path(__file__).parents[2] / "rates_app" / "store" / "rds-ca.pem"


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


@pytest.fixture
def secured(cluster: PostgresPair, database: MigratedDatabase, tmp_path: Path) -> Iterator[Secured]:
    with tls_in_front(tmp_path, cluster.primary.port) as front:
        yield Secured(front.port, database.url, database.role_urls["serving_database_url"], front.right, front.wrong)


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


def test_the_roots_of_rds_are_those_of_its_regions_and_last() -> None:
    """Each is self-signed, for the authority that the program gives the instances."""
    certificates = x509.load_pem_x509_certificates(AUTHORITIES.read_bytes())
    regions = set()
    for certificate in certificates:
        certificate.verify_directly_issued_by(certificate)
        assert certificate.not_valid_after_utc > datetime.now(UTC) + timedelta(days=10 * 365)
        (name,) = certificate.subject.get_attributes_for_oid(x509.NameOID.COMMON_NAME)
        match = re.fullmatch(r"Amazon RDS (?:Beta |Preview )?([a-z0-9-]+) Root CA RSA2048 G1", str(name.value))
        assert match
        regions.add(match[1])
    assert {"us-east-1", "us-west-2", "eu-west-1"} <= regions
