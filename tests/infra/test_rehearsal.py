"""The program without an engine: settings of one run do not reach the next."""

from __future__ import annotations

import asyncio
from typing import Any

import pulumi
import pytest
from pulumi.runtime import mocks
from rehearsal import THREADS, rehearse
from settings import StackSettingsError

pytestmark = pytest.mark.xdist_group("infra")


class Answers(mocks.Mocks):
    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        return args.name, {}

    def call(self, args: mocks.MockCallArgs) -> Any:
        return {}, None


@pytest.mark.parametrize("preview", [True, False])
def test_threads_of_the_sdk_know_whether_a_preview_runs(preview: bool) -> None:
    mocks.set_mocks(Answers(), preview=not preview)
    mocks.set_mocks(Answers(), preview=preview)
    assert THREADS.submit(pulumi.runtime.is_dry_run).result() is preview


def test_the_program_runs_where_asyncio_run_has_left_no_loop() -> None:
    asyncio.run(asyncio.sleep(0))
    with pytest.raises(StackSettingsError):
        rehearse("dev", {})
