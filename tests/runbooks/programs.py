"""Check calls against their programs: subcommands and options.

kubectl and helm print their help; the Go modules of argocd and the Rollouts plugin contain theirs;
``rates`` parses the call; for aws, the service's model in botocore names operations and parameters; for pulumi, its SDK
drives the program with the options that it knows.
"""

from __future__ import annotations

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import botocore.session
import jmespath
import pulumi.automation
import yaml
from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from typer.testing import CliRunner

from rates_app.cli import app
from tests.charts.tools import module, program
from tests.runbooks.pages import FOLDER, ROOT

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

#: Of an option: whether it takes a value.
Options = dict[str, bool]

_KUBECTL_OPTION = re.compile(r"^\s+(?:(-\w), )?(--[\w-]+)=(.*):$", re.MULTILINE)
_COBRA_OPTION = re.compile(r"^\s+(?:(-\w), )?(--[\w-]+)(?: (\w+))?(?:\s{2,}|$)", re.MULTILINE)
_SUBCOMMAND = re.compile(r"^  ([a-z][a-z-]+) +\S", re.MULTILINE)

# Subcommands of the AWS CLI that are not operations of a service, with their options and numbers of arguments.
_AWS_OWN: dict[tuple[str, str], tuple[set[str], int]] = {
    ("ecr", "get-login-password"): (set(), 0),
    ("eks", "update-kubeconfig"): ({"name", "region", "alias"}, 0),
    ("s3", "cp"): (set(), 2),
    ("s3", "ls"): (set(), 1),
    ("s3", "mv"): (set(), 2),
}
_AWS_GLOBAL = {"query", "output", "region"}
_AWS_OUTPUTS = {"json", "table", "text", "yaml"}
_PULUMI = {
    "config set": {"--path"},
    "preview": set(),
    "stack output": {"--json"},
    "stack select": set(),
    "up": {"--replace", "--stack", "--yes"},
}
#: Standard Unix programs and the requirements of the index. Their arguments are not checked.
STANDARD = {"curl", "date", "dig", "git", "grep", "head", "jq", "openssl", "psql", "sed", "sort", "tail", "uniq"}


class Wrong(Exception):
    """A call that its program would refuse; the message says which part of it."""


def _pairs(pattern: re.Pattern[str], text: str) -> Options:
    """Read the options that a help text lists."""
    found: Options = {}
    for short, long, kind in pattern.findall(text):
        takes_value = kind not in ("true", "false") if pattern is _KUBECTL_OPTION else bool(kind)
        found |= {name: takes_value for name in (short, long) if name}
    return found


@cache
def _help(name: str, *path: str) -> str:
    done = subprocess.run([program(name), *path, "--help"], capture_output=True, text=True, check=False)
    return done.stdout


@cache
def _kubectl(path: tuple[str, ...]) -> Options | None:
    if path and path[-1] not in _SUBCOMMAND.findall(_help("kubectl", *path[:-1])):
        return None
    everywhere = subprocess.run([program("kubectl"), "options"], capture_output=True, text=True, check=True).stdout
    return _pairs(_KUBECTL_OPTION, everywhere) | _pairs(_KUBECTL_OPTION, _help("kubectl", *path))


@cache
def _helm(path: tuple[str, ...]) -> Options | None:
    if path and path[-1] not in _SUBCOMMAND.findall(_help("helm", *path[:-1])):
        return None
    return _pairs(_COBRA_OPTION, _help("helm", *path))


@cache
def _argocd(path: tuple[str, ...]) -> Options | None:
    page = module("argo-cd") / "docs/user-guide/commands" / ("_".join(("argocd", *path)) + ".md")
    return _pairs(_COBRA_OPTION, page.read_text()) if page.exists() else None


@cache
def _rollouts(path: tuple[str, ...]) -> Options | None:
    folder = module("argo-rollouts") / "docs/generated/kubectl-argo-rollouts"
    page = folder / ("_".join(("kubectl-argo-rollouts", *path)) + ".md")
    return _pairs(_COBRA_OPTION, page.read_text()) if page.exists() else None


def _walk(options_of: Callable[[tuple[str, ...]], Options | None], words: Sequence[str], groups: set[str]) -> None:
    """Read a call as cobra does: subcommands, then arguments, with options anywhere, up to ``--``.

    Args:
        options_of: Gives the options of a subcommand; None if there is no such.
        words: The call, without its program.
        groups: Subcommands that accept only further subcommands, no arguments.

    Raises:
        Wrong: The program would refuse it.
    """
    path: tuple[str, ...] = ()
    arguments = False
    pending = list(words)
    given: list[str] = []
    while pending and (word := pending.pop(0)) != "--":
        options = options_of(path) or {}
        if word.startswith("-") and word != "-":
            name, has_value, _ = word.partition("=")
            if not name.startswith("--") and len(name) > 2:
                name, has_value = name[:2], "="
            given.append(name)
            if options.get(name) and not has_value:
                if not pending:
                    raise Wrong(f"{name} lacks its value")
                pending.pop(0)
        elif not arguments and options_of((*path, word)) is not None:
            path = (*path, word)
        elif path and path[-1] in groups:
            raise Wrong(f"'{' '.join(path)}' has no subcommand {word}")
        else:
            arguments = True
    if not path:
        raise Wrong(f"there is no subcommand {next((word for word in words if not word.startswith('-')), '')!r}")
    if unknown := set(given) - (options_of(path) or {}).keys():
        raise Wrong(f"'{' '.join(path)}' has no option {', '.join(sorted(unknown))}")


def _check_kubectl(words: Sequence[str]) -> None:
    if list(words[:2]) == ["argo", "rollouts"]:
        _walk(_rollouts, words[2:], {"get", "retry", "set", "list"})
        return
    _walk(_kubectl, words, {"auth", "config", "rollout"})
    if "--" in words and (inside := list(words[list(words).index("--") + 1 :]))[0] == "rates":
        _check_rates(inside[1:])


def _check_rates(words: Sequence[str]) -> None:
    done = CliRunner().invoke(app, [*words, "--help"])
    if done.exit_code:
        raise Wrong(done.output)


def _check_aws(words: Sequence[str]) -> None:
    service, operation, *rest = words
    given: dict[str, list[str]] = {"": []}  # words before the first option
    for word in rest:
        if word.startswith("--"):
            given[word[2:]] = []
        else:
            given[list(given)[-1]].append(word)
    if "query" in given:
        jmespath.compile(" ".join(given["query"]))
    if not _AWS_OUTPUTS.issuperset(given.get("output", ())):
        raise Wrong(f"--output: one of {_AWS_OUTPUTS}")
    arguments = given.pop("")
    values = {name: words for name, words in given.items() if name not in _AWS_GLOBAL}
    if own := _AWS_OWN.get((service, operation)):
        if values.keys() - own[0] or len(arguments) != own[1]:
            raise Wrong(f"'aws {service} {operation}' takes {own[1]} arguments and {own[0]}")
    else:
        _check_operation(service, operation, values)


def _check_operation(service: str, operation: str, values: dict[str, list[str]]) -> None:
    try:
        # `aws s3api` has the service's operations, because `aws s3` has commands of the CLI.
        model = botocore.session.get_session().get_service_model({"s3api": "s3"}.get(service, service))
    except UnknownServiceError as error:
        raise Wrong(str(error)) from None
    operations = {xform_name(name, "-"): name for name in model.operation_names}
    if operation not in operations:
        raise Wrong(f"{service} has no operation {operation}")
    shape = model.operation_model(operations[operation]).input_shape
    parameters = {xform_name(name, "-"): name for name in (shape.members if shape else {})}
    # The CLI takes a switch as --force-failover and --no-force-failover.
    unknown = {name for name in values if name not in parameters and name.removeprefix("no-") not in parameters}
    if unknown:
        raise Wrong(f"{service} {operation} has no parameter {', '.join(sorted(unknown))}")
    if shape is None:
        return
    if missing := {name for name, member in parameters.items() if member in shape.required_members} - values.keys():
        raise Wrong(f"{service} {operation} needs {', '.join(sorted(missing))}")
    for name, words in values.items():
        member = shape.members[parameters[name.removeprefix("no-")]]
        allowed = getattr(getattr(member, "member", member), "enum", None)
        if allowed and (wrong := set(words) - {*allowed}):
            raise Wrong(f"--{name} takes no {', '.join(sorted(wrong))}; it takes {', '.join(allowed)}")


def _check_pulumi(words: Sequence[str]) -> None:
    command = next((known for known in _PULUMI if f"{' '.join(words)} ".startswith(f"{known} ")), None)
    options = {word for word in words if word.startswith("-")}
    if command is None or options - _PULUMI[command]:
        raise Wrong(f"pulumi takes {_PULUMI}")
    sdk = "".join(path.read_text() for path in Path(pulumi.automation.__path__[0]).glob("*.py"))
    if unknown := {option for option in options if f'"{option}' not in sdk}:
        raise Wrong(f"the SDK does not know {unknown}")


def _check_make(words: Sequence[str]) -> None:
    targets = re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    if words[0] not in targets:
        raise Wrong(f"the Makefile has no target {words[0]}")


def _check_playbook(words: Sequence[str]) -> None:
    path = FOLDER / "playbooks" / words[0]
    if not path.is_file():
        raise Wrong(f"there is no playbook {path}")
    text = path.read_text()
    rest = list(words[1:])
    while rest:
        word = rest.pop(0)
        if word == "-e":
            variable = rest.pop(0).partition("=")[0]
            if variable not in yaml.safe_load(text)[0]["vars"] and f"{variable} is defined" not in text:
                raise Wrong(f"{words[0]} knows no variable {variable}")
        elif word not in ("--check", "--diff"):
            raise Wrong(f"{word}: pages run playbooks with --check, --diff and -e only")


_CHECKS: dict[str, Callable[[Sequence[str]], None]] = {
    "ansible-playbook": _check_playbook,
    "argocd": lambda words: _walk(_argocd, words, {"app", "cluster", "proj"}),
    "aws": _check_aws,
    "helm": lambda words: _walk(_helm, words, set()),
    "kubectl": _check_kubectl,
    "make": _check_make,
    "pulumi": _check_pulumi,
    "rates": _check_rates,
}
#: Programs whose calls can be checked. The SQL of ``rates_psql`` is run.
KNOWN = {*_CHECKS, *STANDARD, "rates_psql"}


def check(words: Sequence[str]) -> None:
    """Check a call against its program.

    Args:
        words: The program and its arguments.

    Raises:
        Wrong: The program is unknown, or would refuse the call.
    """
    if words[0] not in KNOWN:
        raise Wrong(f"{words[0]} is no program that the index of the pages asks for")
    if words[0] in _CHECKS:
        _CHECKS[words[0]](words[1:])
