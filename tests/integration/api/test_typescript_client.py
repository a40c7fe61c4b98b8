"""The generated TypeScript client compiles in strict mode, can be installed, and agrees with the service."""

from __future__ import annotations

import json
import re
import subprocess
from datetime import date
from typing import TYPE_CHECKING, Any

import httpx
import pytest

from clients.document import describe
from clients.typescript.build import HERE, TOOLS, build, tool

if TYPE_CHECKING:
    from pathlib import Path

    from drills.pod import Pod
    from tests.fixtures.service import Publisher

#: A program that the compiler accepts only if parameters and members have their types.
PROGRAM = """
import { createClient, ApiError, follow, lines, type LocationsBody } from "freight-rates-client";

const baseUrl = process.argv[2] ?? "";
const client = createClient({ baseUrl });

const found = await client.GET("/v1/rates", {
  params: { query: { origin: "CNGGZ", destination: "EETLL", date_from: "2021-01-01", interval: "week" } },
});
const averages: (number | null)[] = found.data?.rates.map((rate) => rate.average) ?? [];

const days = { date_from: "2021-01-01", date_to: "2021-01-08" };
const exported = await client.GET("/v1/rates/export", { params: { query: days }, parseAs: "stream" });
const rows: string[] = [];
if (exported.data) for await (const line of lines(exported.data)) rows.push(line);

const first = await client.GET("/v1/locations", { params: { query: { sort: "code", limit: 50 } } });
const read = async (next: string) => (await fetch(new URL(next, baseUrl))).json() as Promise<LocationsBody>;
const codes: string[] = [];
if (first.data) {
  for await (const page of follow(first.data, read)) codes.push(...page.locations.map((each) => each.code));
}

let refused: [number, string | undefined] = [0, undefined];
try {
  await client.GET("/v1/locations/{code}", { params: { path: { code: "NOWHERE" } } });
} catch (error) {
  if (error instanceof ApiError) refused = [error.status, error.problem?.title];
}
console.log(JSON.stringify({ averages, rows, codes, refused }));
"""
STRICT = {
    "strict": True,
    "noUncheckedIndexedAccess": True,
    "target": "es2022",
    "lib": ["es2022", "dom", "dom.iterable"],
    "module": "nodenext",
    "types": [],
}


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the client as npm installs it, without a network; its libraries are those of the lock file."""
    archive = build(tmp_path_factory.mktemp("source"))
    assert archive.name == f"freight-rates-client-{describe()['info']['version']}.tgz"
    folder = tmp_path_factory.mktemp("program")
    (folder / "package.json").write_text('{"private": true, "type": "module"}')
    libraries = [TOOLS / "node_modules" / name for name in ("openapi-fetch", "openapi-typescript-helpers")]
    install: list[str | Path] = [
        "npm",
        "install",
        "--offline",
        "--no-audit",
        "--no-fund",
        "--cache",
        folder / "cache",
        archive,
        *libraries,
    ]
    subprocess.run(install, cwd=folder, check=True, capture_output=True)
    (folder / "tsconfig.json").write_text(json.dumps({"compilerOptions": STRICT, "include": ["*.ts"]}))
    (folder / "process.d.ts").write_text("declare const process: { argv: string[] };\n")
    return folder


def compile_program(folder: Path, program: str) -> subprocess.CompletedProcess[str]:
    (folder / "program.ts").write_text(program)
    return subprocess.run([tool("tsc"), "--project", "."], cwd=folder, capture_output=True, text=True, check=False)


def test_wrong_types_do_not_compile(installed: Path) -> None:
    wrong = PROGRAM.replace('interval: "week"', 'interval: "year"').replace("rate.average", "rate.mean")
    done = compile_program(installed, wrong)
    assert done.returncode != 0
    assert '"year"' in done.stdout
    assert "'mean'" in done.stdout


def test_answers_are_those_of_the_service(installed: Path, served: Pod, publisher: Publisher) -> None:
    rows: Any = [("CNGGZ", "EETLL", date(2021, 1, 1 + day), 100_000 + day) for day in range(8) for _ in range(3)]
    publisher.publish(rows)
    compiled = compile_program(installed, PROGRAM)
    assert compiled.returncode == 0, compiled.stdout

    run = subprocess.run(["node", "program.js", served.url], cwd=installed, check=True, capture_output=True, text=True)

    found = json.loads(run.stdout)
    week = httpx.get(f"{served.url}/v1/rates?origin=CNGGZ&destination=EETLL&date_from=2021-01-01&interval=week").json()
    assert found["averages"] == [rate["average"] for rate in week["rates"]]
    exported = httpx.get(f"{served.url}/v1/rates/export?date_from=2021-01-01&date_to=2021-01-08").text
    assert found["rows"] == exported.splitlines()
    assert len(found["codes"]) > 150
    assert found["refused"] == [404, "Not found"]


def test_the_lock_pins_every_package_by_hash_and_names_no_registry() -> None:
    lock = json.loads((HERE / "package-lock.json").read_text())
    packages = {name: each for name, each in lock["packages"].items() if name}
    assert len(packages) > 20
    assert all(re.match(r"sha512-", each["integrity"]) for each in packages.values())
    assert not any("resolved" in each or "hasInstallScript" in each for each in packages.values())
    assert "ignore-scripts=true" in (HERE / ".npmrc").read_text().split()
