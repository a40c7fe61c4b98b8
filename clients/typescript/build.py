"""Build the TypeScript client from the OpenAPI document, as a package that npm can install.

    python -m clients.typescript.build DIRECTORY

openapi-typescript generates the types, ``client.ts`` sends the requests with openapi-fetch. `make client-tools`
installs both, in the versions of package-lock.json. See docs/decisions/0128-typescript-client.md.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from clients.document import JSON, describe

HERE = Path(__file__).parent
#: Where `make client-tools` installs the packages of the lock file.
TOOLS = HERE.parents[1] / ".tools" / "typescript"


def _run(*command: str | Path, folder: Path) -> str:
    """Run a tool.

    Raises:
        CalledProcessError: It failed; its output is on standard error.
    """
    done = subprocess.run(command, cwd=folder, check=False, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if done.returncode:
        sys.stderr.write(done.stdout)
    done.check_returncode()
    return done.stdout


def tool(name: str) -> Path:
    """Return the path of an installed program.

    Raises:
        FileNotFoundError: It is not installed.
    """
    path = TOOLS / "node_modules" / ".bin" / name
    if not path.exists():
        raise FileNotFoundError(f"{name} is not installed: run 'make client-tools'")
    return path


def package(version: str) -> dict[str, Any]:
    """Return the package's ``package.json``."""
    fetch = json.loads((HERE / "package.json").read_text())["dependencies"]["openapi-fetch"]
    return {
        "name": "freight-rates-client",
        "version": version,
        "description": "Typed client of the freight-rates API",
        "license": "MIT",
        "type": "module",
        "engines": {"node": ">=18"},
        "exports": {".": {"types": "./dist/client.d.ts", "default": "./dist/client.js"}},
        "files": ["dist"],
        "dependencies": {"openapi-fetch": f"^{fetch}"},
    }


def prefer_json(described: dict[str, Any]) -> dict[str, Any]:
    """Return the document with JSON as the only type of a response that has several.

    Otherwise, the type of each such response would be a union with text. A caller who requests CSV says
    ``parseAs: "text"``, which changes the type.
    """
    for operations in described["paths"].values():
        for operation in operations.values():
            for response in operation["responses"].values():
                content = response.get("content", {})
                if JSON in content:
                    response["content"] = {JSON: content[JSON]}
    return described


def build(folder: Path) -> Path:
    """Generate and compile the package, and pack it.

    Args:
        folder: A folder for the sources and the archive.

    Returns:
        The archive.

    Raises:
        FileNotFoundError: The tools are not installed.
        CalledProcessError: The types cannot be generated or compiled.
    """
    described = describe()
    source = folder / "src"
    source.mkdir(parents=True, exist_ok=True)
    (folder / "openapi.json").write_text(json.dumps(prefer_json(described)))
    _run(
        tool("openapi-typescript"), "openapi.json", "--output", "src/schema.ts", "--root-types",
        "--root-types-no-schema-prefix", folder=folder,
    )  # fmt: skip
    for name, place in (("client.ts", source), ("tsconfig.json", folder)):
        shutil.copy(HERE / name, place)
    (folder / "package.json").write_text(json.dumps(package(described["info"]["version"]), indent=2))
    modules = folder / "node_modules"
    if not modules.exists():
        modules.symlink_to(TOOLS / "node_modules")
    _run(tool("tsc"), "--project", ".", folder=folder)
    return folder / _run("npm", "pack", "--silent", folder=folder).split()[-1]


if __name__ == "__main__":
    sys.stdout.write(f"{build(Path(sys.argv[1]))}\n")
