"""Check the stack that ``RATES_STACK`` names in the inventory, or one that is started for the checks.

``RATES_STACK=local pytest tests/host`` checks the stack of `make run`; testinfra's ``--hosts`` selects another machine.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from rates_app.local.account import account

if TYPE_CHECKING:
    from testinfra.host import Host

INVENTORY = Path(__file__).parents[2] / "runbooks" / "playbooks" / "inventory.py"


class Node(NamedTuple):
    """A server with its data in one folder."""

    folder: Path
    port: int
    #: The pid file.
    pid_file: Path
    #: The account of its process.
    owner: str

    def pid(self, host: Host) -> int:
        """Return the process id."""
        return int(host.file(str(self.pid_file)).content_string.split()[0])


def node(folder: Path, pid_file: str) -> Node:
    """Describe the server in a folder from its files."""
    folder = folder.resolve()
    owner = account()
    name = owner.pw_name if owner else folder.owner()
    return Node(folder, int((folder / "port").read_text()), folder / pid_file, name)


@pytest.fixture(scope="session")
def folders(request: pytest.FixtureRequest) -> dict[str, Path]:
    """The folders of the stack's servers."""
    if os.environ.get("RATES_STACK"):
        found: dict[str, Any] = json.loads(subprocess.run([INVENTORY], check=True, capture_output=True).stdout)
        known = found["_meta"]["hostvars"][os.environ["RATES_STACK"]]
        primary, replica = map(Path, known["rates_servers"])
        return {"primary": primary, "replica": replica, "redis": Path(known["rates_folder"]) / "redis"}
    servers = request.getfixturevalue("cluster")
    redis = request.getfixturevalue("redis_server")
    return {"primary": servers.primary.folder, "replica": servers.replica.folder, "redis": redis.folder}


@pytest.fixture(params=["primary", "replica"])
def database(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Node:
    """Each database node in turn."""
    return node(folders[request.param], "data/postmaster.pid")


@pytest.fixture
def redis(folders: dict[str, Path]) -> Node:
    """The cache."""
    return node(folders["redis"], "redis.pid")
