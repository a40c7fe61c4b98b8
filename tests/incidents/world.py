"""Everything that runs next to the stack in a rehearsal: Prometheus, Alertmanager, a dispatcher, a small disk."""

from __future__ import annotations

import os
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple

from drills.full_disk import CannotRehearseError
from rates_app.local.server import free_port
from tests.charts.tools import program
from tests.incidents.alerting import Alerting, Target, alerting
from tests.incidents.dispatcher import DispatcherProcess
from tests.incidents.process import RehearsedProgram, wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from drills.stack import RunningStack

DISK_BYTES = 256 * 2**20


class Surroundings(NamedTuple):
    """What a fault can break in addition to the stack."""

    alerting: Alerting
    dispatcher: DispatcherProcess


@contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mount a small file system of the kind that nodes have, in a file next to the folder.

    Raises:
        CannotRehearseError: This account is not permitted to mount.
    """
    if os.geteuid() != 0:
        raise CannotRehearseError("the incidents mount a small file system, which needs root: sudo make incidents")
    folder.mkdir()
    image = folder.with_suffix(".img")
    with image.open("wb") as file:
        file.truncate(DISK_BYTES)
    subprocess.run(["mkfs.ext4", "-q", "-m", "0", image], check=True)
    subprocess.run(["mount", "-o", "loop", image, folder], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "--lazy", folder], check=True)


@contextmanager
def node_exporter(folder: Path, disk: Path) -> Iterator[str]:
    """Run the exporter of nodes' metrics, and yield its address; it reports one file system alone."""
    address = f"127.0.0.1:{free_port()}"
    url = f"http://{address}"
    options = ("--collector.disable-defaults", "--collector.filesystem", f"--web.listen-address={address}")
    only = f"--collector.filesystem.mount-points-include=^{disk}$"
    command = [program("node_exporter"), *options, only]
    with RehearsedProgram(command, folder / "node_exporter.log", f"{url}/metrics").running():
        yield url


@contextmanager
def running_world(stack: RunningStack) -> Iterator[Surroundings]:
    """Run everything next to a stack, whose data folder is a small disk, and wait until Prometheus scrapes it."""
    folder = stack.folder / "alerting"
    folder.mkdir()
    dispatcher = DispatcherProcess(stack)
    with dispatcher.running(), node_exporter(folder, stack.settings.data_dir) as node:
        targets = [
            Target(pod.operations_url, "/metrics", "rates", "rates-app-metrics", f"rates-app-{number}")
            for number, pod in enumerate(stack.pods)
        ]
        targets += [
            Target(dispatcher.url, "/metrics", "rates", "rates-dispatcher-metrics", "rates-dispatcher"),
            Target(node, "/metrics", "monitoring", "kube-prometheus-stack-prometheus-node-exporter", "node"),
        ]
        with alerting(folder, targets) as watching:
            wait_until(lambda: watching.targets() == {"up"}, describe=watching.targets)
            yield Surroundings(watching, dispatcher)
