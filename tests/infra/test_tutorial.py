"""Commands of the tutorial: each is one that its program takes, on names that the stack and the image have."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

import pytest
from rehearsal import ROOT

from tests.charts.tools import program
from tests.runbooks.pages import blocks, split
from tests.runbooks.programs import check

if TYPE_CHECKING:
    from rehearsal import Rehearsal

pytestmark = pytest.mark.xdist_group("infra")

PAGE = ROOT / "docs/tutorials/first-deployment.md"
TEXT = PAGE.read_text()
COMMANDS = [command.words for block in blocks(PAGE) for command in split(block.text, PAGE.stem, "cluster")]
# Programs of other projects whose calls are not checked here.
OTHERS = {"docker", "git", "curl"}


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] not in {*OTHERS, "pulumi"}], ids=" ".join)
def test_a_program_of_the_tutorial_takes_its_arguments(words: tuple[str, ...]) -> None:
    check(words)


@pytest.mark.parametrize("words", [words for words in COMMANDS if words[0] == "pulumi"], ids=" ".join)
def test_pulumi_takes_its_arguments(words: tuple[str, ...]) -> None:
    path = [word for word in words[1:] if re.fullmatch("[a-z]+", word)]
    groups = path[:2] if path[0] == "stack" else path[:1]
    said = subprocess.run([program("pulumi"), *groups, "--help"], capture_output=True, text=True, check=True).stdout
    options = {word for word in words if word.startswith("--")}
    assert options <= {*re.findall(r"--[a-z-]+", said)}


def test_the_tutorial_names_outputs_and_clusters_that_the_stack_has(dev: Rehearsal) -> None:
    outputs = set(re.findall(r"pulumi stack output (\w+)", TEXT))
    assert len(outputs) > 3
    assert outputs <= dev.outputs.keys()
    clusters = {cluster.inputs["name"] for cluster in dev.of_type("aws:eks/cluster:Cluster").values()}
    assert set(re.findall(r"rates-dev-(?:blue|green)", TEXT)) == clusters


def test_files_of_the_tutorial_are_in_the_repository_and_in_the_image() -> None:
    image = (ROOT / "Dockerfile").read_text()
    assert "COPY sample_data /opt/rates/share/sample_data" in image
    files = set(re.findall(r"sample_data/[\w.-]+", TEXT))
    assert len(files) == 3
    assert [name for name in files if not (ROOT / name).is_file()] == []
