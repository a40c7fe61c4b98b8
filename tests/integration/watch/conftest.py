"""A fake cluster and a client for it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from kubernetes import client

from tests.integration.watch.fake_cluster import FakeCluster, serve

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def cluster() -> FakeCluster:
    return FakeCluster()


@pytest.fixture
def api(cluster: FakeCluster) -> Iterator[client.ApiClient]:
    server = serve(cluster)
    configuration = client.Configuration(host=f"http://127.0.0.1:{server.server_port}")
    yield client.ApiClient(configuration)
    cluster.break_connections()
    server.shutdown()
    server.server_close()
