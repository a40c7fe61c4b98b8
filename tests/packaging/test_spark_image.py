"""The image of drivers and executors: its entry point handles the arguments of Spark on Kubernetes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml
from dockerfile_parse import DockerfileParser

if TYPE_CHECKING:
    from collections.abc import Callable

    Entrypoint = Callable[..., list[str]]

ROOT = Path(__file__).parents[2]


def stage(name: str) -> dict[str, list[str]]:
    """The values of a stage's instructions, by instruction."""
    found: dict[str, list[str]] = {}
    current = None
    with (ROOT / "Dockerfile").open("rb") as file:
        for item in DockerfileParser(fileobj=file).structure:
            if item["instruction"] == "FROM":
                current = item["value"].rpartition(" AS ")[2]
            elif current == name:
                found.setdefault(item["instruction"], []).append(item["value"])
    assert found, f"the Dockerfile has no stage {name}"
    return found


@pytest.fixture
def entrypoint(tmp_path: Path) -> Entrypoint:
    """Run the entry point with programs that print their arguments; return program and arguments."""
    for name in ("spark-submit", "java"):
        program = tmp_path / name
        program.write_text(f"#!{sys.executable}\nimport json, sys\nprint(json.dumps(['{name}', *sys.argv[1:]]))\n")
        program.chmod(0o755)

    def run(*arguments: str, **variables: str) -> list[str]:
        environment = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "SPARK_HOME": "/spark", **variables}
        done = subprocess.run(
            [ROOT / "spark/entrypoint", *arguments], env=environment, capture_output=True, text=True, check=True
        )
        called: list[str] = json.loads(done.stdout)
        return called

    return run


def test_a_driver_is_submitted_in_its_own_pod_and_listens_on_its_address(entrypoint: Entrypoint) -> None:
    given = ("--class", "org.apache.spark.deploy.PythonRunner", "local:///app/spark/ingest.py", "--batch", "7")
    assert entrypoint("driver", *given, SPARK_DRIVER_BIND_ADDRESS="10.1.2.3") == [
        "spark-submit",
        "--deploy-mode",
        "client",
        "--conf",
        "spark.driver.bindAddress=10.1.2.3",
        *given,
    ]


def test_an_executor_gets_every_option_whole_and_in_order(entrypoint: Entrypoint) -> None:
    options = [f"-Dnumber={number}" for number in range(11)] + ["-XX:OnOutOfMemoryError=kill -9 %p"]
    called = entrypoint(
        "executor",
        **{f"SPARK_JAVA_OPT_{number}": option for number, option in enumerate(options)},
        SPARK_EXECUTOR_MEMORY="512m",
        SPARK_DRIVER_URL="spark://driver:7078",
        SPARK_EXECUTOR_ID="3",
        SPARK_EXECUTOR_CORES="1",
        SPARK_APPLICATION_ID="spark-1",
        SPARK_EXECUTOR_POD_IP="10.1.2.4",
        SPARK_RESOURCE_PROFILE_ID="0",
        SPARK_EXECUTOR_POD_NAME="batch-7-exec-3",
    )
    assert called[: len(options) + 3] == ["java", *options, "-Xms512m", "-Xmx512m"]
    assert called[called.index("-cp") + 1] == "/spark/jars/*"
    arguments = dict(zip(called[-14::2], called[-13::2], strict=True))
    assert arguments == {
        "--driver-url": "spark://driver:7078",
        "--executor-id": "3",
        "--cores": "1",
        "--app-id": "spark-1",
        "--hostname": "10.1.2.4",
        "--resourceProfileId": "0",
        "--podName": "batch-7-exec-3",
    }


def test_an_executor_without_a_required_variable_does_not_start(entrypoint: Entrypoint) -> None:
    with pytest.raises(subprocess.CalledProcessError):
        entrypoint("executor", SPARK_EXECUTOR_MEMORY="512m")


def test_anything_else_is_run_as_it_is(entrypoint: Entrypoint) -> None:
    assert entrypoint("java", "-version") == ["java", "-version"]


def test_it_runs_as_the_user_that_the_chart_names_and_brings_what_the_chart_starts() -> None:
    spark = stage("spark")
    values = yaml.safe_load((ROOT / "helm/spark-ingest/values.yaml").read_text())["spark"]
    template = (ROOT / "helm/spark-ingest/templates/_helpers.tpl").read_text()
    (user,) = spark["USER"]
    assert {f"runAsUser: {user.partition(':')[0]}", f"runAsGroup: {user.partition(':')[2]}"} <= set(
        template.split("\n")
    )
    assert any("useradd --uid 10001" in step for step in spark["RUN"])
    copied = [
        Path(target, Path(source).name)
        for line in spark["COPY"]
        for *sources, target in [line.split()]
        for source in sources
    ]
    assert Path(values["mainApplicationFile"].removeprefix("local://")) in copied
    assert Path(json.loads(spark["ENTRYPOINT"][0])[0]) in copied
    assert Path("/opt/decom.sh") in copied  # Spark's default of spark.kubernetes.decommission.script


def test_the_chart_names_the_version_of_spark_that_is_locked() -> None:
    locked = re.search(r"^pyspark==(\S+)", (ROOT / "requirements/spark.txt").read_text(), re.MULTILINE)
    values = yaml.safe_load((ROOT / "helm/spark-ingest/values.yaml").read_text())
    assert locked
    assert values["spark"]["version"] == locked[1]
