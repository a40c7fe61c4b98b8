"""Silent clients, slow clients and clients that never read hold a connection but no thread."""

from __future__ import annotations

import json
import socket
import threading
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING

import httpx
import psycopg
import pytest

from drills.waiting import wait_until
from tests.security.conftest import QUESTION

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager

    from tests.fixtures.stores import MigratedDatabase
    from tests.security.conftest import PodUnderTest

pytestmark = pytest.mark.xdist_group("slow-clients")  # the last tests count effects of the first ones on the pod

#: Far more than the pod's threads.
ATTACKERS = 40
#: Forty of its responses exceed the kernel's buffers.
LONG = QUESTION.replace("2021-01-01", "2013-01-01")
GOOD = f"GET {QUESTION} HTTP/1.1\r\nHost: rates\r\n\r\n".encode()


@pytest.fixture(scope="module")
def pod(start_pod: Callable[..., AbstractContextManager[PodUnderTest]]) -> Iterator[PodUnderTest]:
    """A pod of two workers with two threads each, and a client timeout of two seconds."""
    patient = {"RATES_SHED_SECONDS": "30", "RATES_PUBLIC_BATCHES": "true"}
    with start_pod(RATES_THREADS="2", RATES_CLIENT_TIMEOUT_SECONDS="2", RATES_UPLOAD_THREADS="2", **patient) as pod:
        yield pod


def delivery(pod: PodUnderTest) -> bytes:
    return (
        f"POST /v1/batches HTTP/1.1\r\nHost: rates\r\nAuthorization: Bearer {pod.token}\r\n"
        "Content-Type: text/csv\r\nContent-Length: 1000000\r\n\r\norig_code,"
    ).encode()


#: Bytes that an attacker sends first, and then repeatedly.
ATTACKS: dict[str, tuple[Callable[[PodUnderTest], bytes], bytes]] = {
    "silent": (lambda _: b"", b""),
    "half-head": (lambda _: GOOD[:40], b""),
    "trickling-head": (lambda _: GOOD[:-2], b"X"),
    "idle-body": (delivery, b""),
    "trickling-body": (delivery, b"x"),
    "not-reading": (lambda _: f"GET {LONG} HTTP/1.1\r\nHost: rates\r\n\r\n".encode() * 40, b""),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_good_clients_are_served_during_attacks(pod: PodUnderTest, attack: str) -> None:
    first, again = ATTACKS[attack]
    stop = threading.Event()
    with ExitStack() as stack:
        attackers = [stack.enter_context(closing(pod.connect(receive_buffer=4096))) for _ in range(ATTACKERS)]

        def keep_on() -> None:
            while not stop.wait(0.2):
                for attacker in attackers:
                    try:
                        attacker.send(again)
                    except OSError:
                        continue

        for attacker in attackers:
            attacker.setblocking(False)
            attacker.send(first(pod))
        trickle = threading.Thread(target=keep_on, daemon=True)
        if again:
            trickle.start()
        try:
            with httpx.Client(timeout=10) as client:
                statuses = [client.get(pod.url + QUESTION).status_code for _ in range(30)]
            assert statuses == [200] * 30
            assert httpx.get(f"{pod.operations_url}/healthz").status_code == 200
            assert httpx.get(f"{pod.operations_url}/readyz").status_code == 200
            pod.wait_for_connections(0)
        finally:
            stop.set()
            if again:
                trickle.join()


def test_each_kind_of_slowness_is_counted(pod: PodUnderTest) -> None:
    reasons = {
        reason: pod.metric("rates_http_connections_closed_total", reason=reason) for reason in ("head", "reader")
    }
    assert reasons["head"] >= 3 * ATTACKERS
    assert reasons["reader"] >= ATTACKERS
    assert pod.metric("rates_http_requests_total", route="/v1/batches", status="408") > 0
    assert pod.metric("rates_http_requests_total", route="/v1/batches", status="503") > 0  # no lane was free


def test_an_unread_body_is_not_received(pod: PodUnderTest) -> None:
    with pod.connect() as client:
        head = "POST /v1/batches HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n"
    assert pod.exchange(f"{head}\r\n".encode()).startswith(b"HTTP/1.1 401 ")
    with pod.connect() as client:
        client.sendall(f"{head}Authorization: Bearer {pod.token}\r\n\r\n".encode())
        assert client.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        client.sendall(b"a,b\n1")
        assert client.recv(100).startswith(b"HTTP/1.1 202 ")


def test_event_streams_hold_no_thread(pod: PodUnderTest, attacked: MigratedDatabase) -> None:
    with psycopg.connect(attacked.url) as connection:
        row = connection.execute(
            """
            INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state)
            VALUES ('open', 'test', sha256('open'), 1, 'csv', 'none', 'staging') RETURNING id
            """
        ).fetchone()
    assert row is not None
    request = f"GET /batches/{row[0]}/events HTTP/1.1\r\nHost: rates\r\n\r\n".encode()
    with ExitStack() as stack:
        followers = [stack.enter_context(closing(pod.connect())) for _ in range(20)]
        for follower in followers:
            follower.sendall(request)
        for follower in followers:
            received = b""
            while b"event: state" not in received:
                received += follower.recv(65536)
        assert [httpx.get(pod.url + QUESTION, timeout=10).status_code for _ in range(20)] == [200] * 20
        received = b""
        while b": unchanged" not in received:  # after the first pause
            received += followers[0].recv(65536)


def test_unread_reports_hold_neither_a_thread_nor_a_snapshot(pod: PodUnderTest, attacked: MigratedDatabase) -> None:
    with psycopg.connect(attacked.url, autocommit=True) as connection:
        row = connection.execute(
            """
            INSERT INTO batches (name, supplier, content_hash, size_bytes, format, compression, state)
            VALUES ('refused', 'test', sha256('refused'), 1, 'csv', 'none', 'refused') RETURNING id
            """
        ).fetchone()
        assert row is not None
        connection.execute("INSERT INTO slices (batch_id, number, start, stop) VALUES (%s, 0, 0, 1)", row)
        connection.execute(
            """
            INSERT INTO rejects (batch_id, slice, line, field, reason, value)
            SELECT %s, 0, line, 'price', 'not a price', repeat('x', 500) FROM generate_series(1, 5000) AS line
            """,
            row,
        )
        request = f"GET /v1/batches/{row[0]}/rejects?format=csv HTTP/1.1\r\nHost: rates\r\n\r\n".encode()
        with ExitStack() as stack:
            readers = [stack.enter_context(closing(pod.connect(receive_buffer=4096))) for _ in range(20)]
            for reader in readers:
                reader.sendall(request)
            for reader in readers:
                assert reader.recv(12) == b"HTTP/1.1 200"
            assert [httpx.get(pod.url + QUESTION, timeout=10).status_code for _ in range(20)] == [200] * 20
            open_transactions = """
                SELECT count(*) FROM pg_stat_activity
                WHERE datname = current_database() AND pid <> pg_backend_pid()
                  AND (xact_start IS NOT NULL OR backend_xmin IS NOT NULL)
                """
            wait_until(
                lambda: connection.execute(open_transactions).fetchone() == (0,),
                describe=lambda: "a transaction is open while no client reads",
            )


def test_trickled_forms_do_not_delay_deliveries(pod: PodUnderTest) -> None:
    """Anyone may send a form. Upload threads are for bodies that need a token."""
    form = b"POST /sign-in HTTP/1.1\r\nHost: rates\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    with ExitStack() as stack:
        for number in range(ATTACKERS):
            attacker = stack.enter_context(closing(pod.connect()))
            chunked = number % 2
            body = b"Transfer-Encoding: chunked\r\n\r\n5\r\ntok" if chunked else b"Content-Length: 4000\r\n\r\ntoken="
            attacker.sendall(form + body)
        for number in range(5):
            content = f"orig_code,dest_code,day,price\nCNGGZ,EETLL,2021-02-0{number + 1},100{number}\n" + " " * 20_000
            headers = {"Authorization": f"Bearer {pod.token}", "Content-Type": "text/csv"}
            answer = httpx.post(f"{pod.url}/v1/batches", content=content, headers=headers, timeout=30)
            assert answer.status_code == 202, answer.text


@pytest.mark.parametrize("pieces", [1, 2, 7])
@pytest.mark.parametrize("size", [1, 100, 16 * 1024, 16 * 1024 + 1, 100_000])
def test_bodies_of_every_size_arrive_in_any_pieces(pod: PodUnderTest, size: int, pieces: int) -> None:
    body = b"token=" + b"x" * (size - 6) if size > 6 else b"x" * size
    head = f"POST /sign-in HTTP/1.1\r\nHost: rates\r\nContent-Length: {size}\r\n"
    message = f"{head}Content-Type: application/x-www-form-urlencoded\r\n\r\n".encode() + body
    step = -(-len(message) // pieces)
    with pod.connect() as client:
        for start in range(0, len(message), step):
            client.sendall(message[start : start + step])
        client.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: client.recv(65536), b""))
    assert answer.split()[1] == (b"401" if size <= 4096 else b"413")


def test_an_incomplete_form_is_the_clients_error(pod: PodUnderTest) -> None:
    head = b"POST /sign-in HTTP/1.1\r\nHost: a\r\nContent-Type: application/x-www-form-urlencoded\r\n"
    assert pod.exchange(head + b"Content-Length: 100\r\n\r\ntoken=x").startswith(b"HTTP/1.1 400 ")


def test_pipelined_requests_are_answered_in_order(pod: PodUnderTest) -> None:
    ask = "GET /v1/locations?limit={} HTTP/1.1\r\nHost: rates\r\nConnection: {}\r\n\r\n"
    requests = "".join(ask.format(number, "close" if number == 9 else "keep-alive") for number in range(1, 10)).encode()
    answer = pod.exchange(requests)
    assert answer.count(b"HTTP/1.1 200 OK") == 9
    assert [part.count(b'"code"') for part in answer.split(b"HTTP/1.1 200 OK")[1:]] == list(range(1, 10))


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (b"GET /rates HTTP/1.1\r\n\r\n", b"400"),
        (b"GET /rates HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", b"400"),
        (b"GET /v1/lanes HTTP/1.0\r\n\r\n", b"200"),
        (b"GET /rates\r\n\r\n", b"400"),
        (b"GET /rates HTTP/1.1\nHost: a\n\n", b"400"),
        (b"GET /" + b"a" * 5000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", b"414"),
        (b"GET /rates HTTP/1.1\r\nHost: a\r\nX: " + b"a" * 70_000, b"431"),
        (b"GET /healthz HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", b"400"),
    ],
)
def test_malformed_heads_get_a_client_error(pod: PodUnderTest, request_: bytes, status: bytes) -> None:
    answer = pod.exchange(request_)
    assert answer.partition(b"\r\n")[0].split()[1] == status
    if status != b"200":
        head, _, body = answer.partition(b"\r\n\r\n")
        assert b"\r\nContent-Type: application/problem+json\r\n" in head
        problem = json.loads(body)
        assert (problem["status"], problem["type"]) == (int(status), "about:blank")
        assert f"X-Request-ID: {problem['request_id']}".encode() in head


@pytest.mark.parametrize("body", [b"zz\r\nabc\r\n0\r\n\r\n", b"5\r\nabcdefg\r\n0\r\n\r\n", b"-1\r\n\r\n"])
def test_malformed_chunks_are_the_clients_error(pod: PodUnderTest, body: bytes) -> None:
    head = f"POST /v1/batches HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {pod.token}\r\n"
    head += "Transfer-Encoding: chunked\r\n\r\n"
    assert pod.exchange(head.encode() + body).startswith(b"HTTP/1.1 400 ")


def test_metrics_and_status_are_private(pod: PodUnderTest) -> None:
    for path in ("/metrics", "/status"):
        assert httpx.get(pod.operations_url + path).status_code == 200
        for disguise in (path, path + "/", f"/{path}", path.replace("s", "%73", 1), f"/.{path}", path + "?a=b"):
            answer = httpx.get(pod.url + disguise)
            assert answer.status_code == 404, disguise
    assert httpx.get(f"{pod.operations_url}{QUESTION}").status_code == 404
    assert httpx.get(f"{pod.url}/readyz").status_code == 200


def test_a_silent_client_of_the_operations_port_does_not_stop_probes(pod: PodUnderTest) -> None:
    address = ("127.0.0.1", int(pod.operations_url.rpartition(":")[2]))
    with ExitStack() as stack:
        for _ in range(ATTACKERS):
            stack.enter_context(closing(socket.create_connection(address)))
        assert httpx.get(f"{pod.operations_url}/healthz").status_code == 200


def test_one_client_cannot_hold_all_connections(start_pod: Callable[..., AbstractContextManager[PodUnderTest]]) -> None:
    with start_pod(RATES_WORKERS="1", RATES_CONNECTIONS_PER_CLIENT="20") as pod, ExitStack() as stack:
        clients = [stack.enter_context(closing(pod.connect())) for _ in range(30)]
        pod.wait_for_metric(10, "rates_http_connections_closed_total", reason="client")
        for client in clients[20:]:
            assert client.recv(1) == b""
        clients[0].sendall(GOOD)
        assert clients[0].recv(12) == b"HTTP/1.1 200"
        for client in clients[:20]:
            client.close()
        pod.wait_for_connections(0)
        assert httpx.get(pod.url + QUESTION).status_code == 200


#: The bytes that fill a worker with connections of one sort, and the end of each response before the next step.
FILLINGS = {
    "silent": b"",
    "idle": GOOD,
    "not-reading": f"GET {LONG} HTTP/1.1\r\nHost: rates\r\n\r\n".encode() * 40,
}


@pytest.mark.parametrize("sort", FILLINGS)
def test_a_full_worker_makes_room(start_pod: Callable[..., AbstractContextManager[PodUnderTest]], sort: str) -> None:
    with start_pod(open_files=300, RATES_WORKERS="1", RATES_SHED_SECONDS="30") as pod, ExitStack() as stack:
        for _ in range(60):
            client = stack.enter_context(closing(pod.connect(receive_buffer=4096)))
            client.setblocking(False)
            if FILLINGS[sort]:
                client.send(FILLINGS[sort])
        pod.wait_for_metric(60 - 44, "rates_http_connections_closed_total", reason="evicted")
        assert [httpx.get(pod.url + QUESTION, timeout=20).status_code for _ in range(5)] == [200] * 5
        assert httpx.get(f"{pod.operations_url}/healthz").status_code == 200


def test_the_kernel_buffers_little_for_a_client_that_does_not_read(pod: PodUnderTest) -> None:
    """Socket memory counts towards the pod's limit; the kernel would accept megabytes for each connection."""
    before = pod.metric("rates_http_requests_total", route="/rates", status="200")
    with pod.connect(receive_buffer=4096) as client:
        client.sendall(FILLINGS["not-reading"])
        pod.wait_for_metric(before + 1, "rates_http_requests_total", route="/rates", status="200")
        pod.wait_for_connections(0)
    # Of the forty responses, it has prepared only those that fit.
    assert pod.metric("rates_http_requests_total", route="/rates", status="200") <= before + 4
