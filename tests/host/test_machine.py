"""Requirements of the stack for its machine."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from testinfra.host import Host


def test_it_runs_the_python_that_the_image_has(host: Host) -> None:
    assert host.system_info.type == "linux"
    assert host.check_output("%s --version", sys.executable).startswith("Python 3.11.")


@pytest.mark.parametrize(
    ("name", "least"),
    [
        ("net.core.somaxconn", 128),  # connections that wait while the workers are busy
        ("fs.file-max", 65536),
        ("kernel.pid_max", 32768),
        ("kernel.threads-max", 4096),
    ],
)
def test_kernel_limits_are_sufficient(host: Host, name: str, least: int) -> None:
    assert host.sysctl(name) >= least


def test_memory_overcommit_is_allowed(host: Host) -> None:
    # With 2 (strict), the kernel may refuse shared buffers and workers. Containers run with 0 or 1.
    assert host.sysctl("vm.overcommit_memory") in (0, 1)


def test_the_limit_of_open_files_is_sufficient(host: Host) -> None:
    limit = host.check_output("ulimit -n")
    assert limit == "unlimited" or int(limit) >= 1024


def test_temporary_files_are_safe_from_others(host: Host) -> None:
    folder = host.file("/tmp")
    assert folder.is_directory
    assert folder.mode == 0o1777
