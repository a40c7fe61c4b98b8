"""The commands of runbooks on a cluster: which test runs each, or why none does."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tests.cluster.kube import Namespace
from tests.runbooks.pages import INDEX, blocks, cluster_commands

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from tests.runbooks.pages import Command

#: Timeout of a command, in seconds.
SECONDS = 300

#: Names of a stack's clusters in the first and the second region.
COLOUR, STANDBY = "blue", "standby"


class Where(StrEnum):
    """The tests that run commands, by the resources that exist."""

    GITOPS = "a cluster as Argo CD makes it"
    SPARK = "after batches on Spark"
    UPGRADES = "after an upgrade by Argo Rollouts"


CLOUD = "asks AWS or a public name"
FILTER = "works on what the command before it prints"
PLUGIN = "needs the Rollouts plugin, and is held to its documents"
ADDON = "asks an add-on whose public chart the tests' cluster does without"
CHANGES = "takes away or restarts what an operator has decided on; the tests of faults and batches do the like"
OPERATOR = "needs the Secrets of the roles, which come from Secrets Manager"
ELSEWHERE = "is for one's own machine or the cloud's stack, and has tests there"

#: The first matching pattern decides.
RULES: tuple[tuple[str, Where | str], ...] = (
    *((f"{program} *", CLOUD) for program in ("aws", "curl", "dig", "openssl")),
    *((f"{program}*", FILTER) for program in ("date", "grep", "head", "jq", "sed", "sort", "tail", "uniq")),
    *((f"{program} *", ELSEWHERE) for program in ("make", "pulumi")),
    ("git log *", Where.GITOPS),
    *((f"kubectl -n rates * {name}*", OPERATOR) for name in ("job operator", "job/operator", "-l job-name=operator")),
    ("kubectl -n rates run psql-*", "is part of rates_psql"),
    ("rates_psql*", Where.GITOPS),
    ("rates *", Where.SPARK),
    ("kubectl argo rollouts *", PLUGIN),
    ("kubectl *externalsecret*", ADDON),
    ("kubectl -n external-secrets *", ADDON),
    ("kubectl -n cosign-system *", ADDON),
    ("kubectl get clusterimagepolicies *", ADDON),
    ("kubectl -n kube-system logs deploy/cluster-autoscaler*", ADDON),
    ("kubectl -n monitoring *", ADDON),
    *((f"kubectl {verb} *", CHANGES) for verb in ("cordon", "delete", "drain", "label", "patch")),
    *((f"kubectl -n rates {verb} *", CHANGES) for verb in ("delete", "rollout", "scale")),
    ("kubectl * analysisrun*", Where.UPGRADES),
    ("kubectl *sparkapplication*", Where.SPARK),
    ("kubectl *BATCH*", Where.SPARK),
    ("kubectl *rates-batch", Where.SPARK),
    ("kubectl -n rates logs NAME-driver *", Where.SPARK),
    ("kubectl -n rates exec deploy/rates-dispatcher *", Where.SPARK),
    ("kubectl config set-context *", Where.GITOPS),
    ("argocd login *", Where.GITOPS),
    ("kubectl -n rates create job *", Where.GITOPS),
    ("argocd app *", Where.GITOPS),
    ("kubectl *", Where.GITOPS),
)
#: On a healthy cluster these commands print nothing.
MAY_BE_EMPTY = (
    "argocd app diff *",
    "argocd app sync *",
    "git log *",
    "kubectl -n argocd get application NAME -o jsonpath={.status.conditions}",
    "kubectl get pvc -A",
    "kubectl get events*",
    "kubectl get pods -A *--field-selector status.phase*",
    "rates_psql*",
)


def rule(command: Command) -> tuple[str, Where | str]:
    """Return the rule that matches a command.

    Raises:
        LookupError: No rule matches.
    """
    text = " ".join(command.words)
    for pattern, decided in RULES:
        if fnmatchcase(text, pattern):
            return pattern, decided
    raise LookupError(f"{command}: no rule of tests/cluster/runbooks.py says whether it is run on a cluster")


def chosen(where: Where) -> list[Command]:
    """List the commands that one test runs, in the order of their rules."""
    order = [pattern for pattern, _ in RULES]
    found = [command for command in cluster_commands() if rule(command)[1] is where]
    return sorted(found, key=lambda command: order.index(rule(command)[0]))


class RunbookShell:
    """Runs commands of runbooks, with a separate kubeconfig and home directory.

    Args:
        folder: For the two.
        namespace: Where the service is, in place of ``rates``.
        names: Values of the placeholders.
        psql_image: The image that ``rates_psql`` runs.
    """

    def __init__(self, folder: Path, namespace: str, names: Mapping[str, str], psql_image: str = "") -> None:
        self._namespace = namespace
        self._names = {"COLOUR": COLOUR, **names}
        self._psql_image = psql_image
        file = folder / "kubeconfig"
        write_kubeconfig(file)
        self._environment = {**os.environ, "KUBECONFIG": str(file), "HOME": str(folder)}

    def run(self, command: Command) -> str:
        """Run a command and return its problem, or an empty text.

        It must succeed, and print something unless its rule expects nothing.
        """
        words = list(self._filled(command.words))
        if words[0] == "rates":
            words = ["kubectl", "-n", self._namespace, "exec", "deploy/rates-dispatcher", "--", *words]
        script, given = shlex.join(words), self._fill(command.given)
        if words[0] == "rates_psql":
            script = f"{self._rates_psql()}\n{script}"
        try:
            done = subprocess.run(
                ["bash", "-euc", script],
                input=given,
                env=self._environment,
                capture_output=True,
                text=True,
                check=False,
                timeout=SECONDS,
            )
        except subprocess.TimeoutExpired:
            return f"{command}: not done within {SECONDS} s"
        printed = f"{done.stdout}{done.stderr}"
        if done.returncode:
            return f"{command}: {printed[-2000:]}"
        found = printed.strip() and "No resources found" not in printed
        text = " ".join(command.words)
        empty = not found and not any(fnmatchcase(text, pattern) for pattern in MAY_BE_EMPTY)
        return f"{command}: found nothing" if empty else ""

    def run_all(self, commands: Iterable[Command]) -> None:
        """Run all commands, and fail with all their problems."""
        wrong = [fault for command in commands if (fault := self.run(command))]
        assert not wrong, "\n".join(wrong)

    def _filled(self, words: tuple[str, ...]) -> Iterator[str]:
        before = ""
        for word in words:
            yield self._namespace if (before, word) == ("-n", "rates") else self._fill(word)
            before = word

    def _fill(self, text: str) -> str:
        return re.sub(r"[A-Z]+", lambda found: self._names.get(found[0], found[0]), text)

    def _rates_psql(self) -> str:
        """Return the pages' shell function, with an image of the cluster."""
        function = next(block.text for block in blocks(INDEX) if "rates_psql()" in block.text)
        image = r"docker\.io/library/postgres:[\w.-]+"
        assert re.search(image, function)
        return re.sub(image, self._psql_image, function) if self._psql_image else function


def write_kubeconfig(file: Path) -> None:
    """Copy the kubeconfig, with contexts named like a stack's."""
    text = Namespace("default").kubectl("config", "view", "--raw", "--flatten", "--minify", "--output", "json")
    config = json.loads(text)
    context = config["contexts"][0]["context"]
    config["contexts"] = [{"name": name, "context": context} for name in (COLOUR, STANDBY)]
    config["current-context"] = COLOUR
    file.write_text(json.dumps(config))
    file.chmod(0o600)
