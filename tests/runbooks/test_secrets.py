"""No task of a playbook prints a secret, at any verbosity."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from tests.charts.rendering import ROOT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

PLAYBOOKS = ROOT / "runbooks" / "playbooks"
FILES = sorted([*PLAYBOOKS.glob("*.yml"), *PLAYBOOKS.glob("tasks/*.yml")])

#: Files and environment variables whose content is a secret.
SOURCES = re.compile(r"RATES_TOKEN|passwords\.json|rates_folder \}\}/env")
#: Names of variables that contain a secret.
NAMES = re.compile(r"\b\w*(?:password|token|credential)\w*\b", re.IGNORECASE)
EXPRESSION = re.compile(r"\{\{(.*?)\}\}", re.DOTALL)
#: Names of secrets and functions, which are not secrets.
HARMLESS = re.compile(r"rates_database_secrets|ansible\.builtin\.password")
#: Arguments that the modules of these collections hide themselves.
HIDDEN = {"login_password", "password"}
#: Keywords of a task that Ansible does not print with its result.
CONDITIONS = {"name", "when", "failed_when", "changed_when", "until", "register", "loop_control", "tags", "no_log"}


def tasks(nodes: list[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield all tasks of plays and blocks."""
    for node in nodes:
        inner = [part for key in ("tasks", "block", "rescue", "always") for part in node.get(key) or ()]
        if inner:
            yield from tasks(inner)
        else:
            yield node


def plays(text: str) -> list[dict[str, Any]]:
    loaded = yaml.safe_load(text)
    return loaded if isinstance(loaded, list) else []


def secret_variables(nodes: list[dict[str, Any]]) -> set[str]:
    """Return the variables that contain a secret, directly or through another variable."""
    defined: dict[str, str] = {}
    for node in [*nodes, *tasks(nodes)]:
        own = {**(node.get("vars") or {}), **(node.get("ansible.builtin.set_fact") or {})}
        if (name := node.get("register")) and node.get("ansible.builtin.slurp"):
            own[name] = node["ansible.builtin.slurp"]
        defined |= {name: str(value) for name, value in own.items()}
    found: set[str] = set()
    while more := {name for name, value in defined.items() if name not in found and mentions(value, found)}:
        found |= more
    return found


def mentions(text: str, variables: set[str]) -> bool:
    """Return whether a text refers to a secret."""
    expressions = HARMLESS.sub("", " ".join(EXPRESSION.findall(text)))
    known = any(re.search(rf"\b{re.escape(each)}\b", expressions) for each in variables)
    return bool(SOURCES.search(text) or NAMES.search(expressions)) or known


def leaks(text: str) -> list[str]:
    """Return the names of tasks that have a secret among their arguments and are not marked with ``no_log``."""
    nodes = plays(text)
    variables = secret_variables(nodes)
    found = []
    for task in tasks(nodes):
        printed = {}
        for key, value in task.items():
            if key in CONDITIONS:
                continue
            if key == "ansible.builtin.assert":
                value = {**value, "that": f"{{{{ {value['that']} }}}}"}  # noqa: PLW2901 - an expression without braces
            hides = key.startswith("community.postgresql.") and isinstance(value, dict)
            printed[key] = {name: each for name, each in value.items() if name not in HIDDEN} if hides else value
        if mentions(str(printed), variables) and task.get("no_log") is not True:
            found.append(str(task.get("name")))
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_tasks_with_secrets_are_not_logged(path: Path) -> None:
    assert leaks(path.read_text()) == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_removing_a_no_log_is_noticed(path: Path) -> None:
    text = path.read_text()
    marked = [str(task["name"]) for task in tasks(plays(text)) if task.get("no_log")]
    unmarked = re.sub(r"\n *no_log: true", "", text)
    found = leaks(unmarked)
    assert set(found) <= set(marked)
    assert bool(found) == bool(marked)


def test_modules_of_postgresql_hide_passwords() -> None:
    from ansible_collections.community.postgresql.plugins.module_utils.postgres import (  # noqa: PLC0415 - slow
        postgres_common_argument_spec,
    )

    assert postgres_common_argument_spec()["login_password"]["no_log"] is True
