"""A stack of this repository on Pulumi's engine, in an emulated account."""

from __future__ import annotations

import copy
import os
import re
import runpy
import shutil
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml
from pulumi import automation
from rehearsal import ROOT

from tests.charts.tools import program

from .account import Account
from .deployment import Outcome
from .plugin import Plugins
from .settings import change

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from types import TracebackType

    from .account import Live

_RULE = re.compile(r"\[rule ([a-z-]+)\]")
# The engine's steps that count as changes. The others are parts of a replacement, or change nothing.
VERBS = frozenset({"create", "update", "replace", "delete"})


class Stack:
    """One stack with its state in a temporary folder; it has the operations of ``deployment.Deployment``.

    Args:
        name: ``dev``, ``staging``, ``prod`` or ``dev-NAME``.
        config: The stack's configuration, values as in its file.
        account: The account to work in; by default a new one with the number from the configuration.
        programs: Programs that the engine finds before those on the PATH, such as a real provider instead of an
            emulated one.
    """

    def __init__(
        self,
        name: str,
        config: Mapping[str, Any],
        account: Account | None = None,
        programs: Mapping[str, Path] | None = None,
    ) -> None:
        self.name = name
        self.config: dict[str, Any] = copy.deepcopy(dict(config))
        self.account = account or Account(str(config["rates:account"]))
        self._folder = Path(tempfile.mkdtemp(prefix="engine-"))
        for part in ("state", "work", "plugins", "bin"):
            (self._folder / part).mkdir()
        (self._folder / "bin/pulumi").symlink_to(program("pulumi"))
        for alias, path in (programs or {}).items():
            (self._folder / "plugins" / alias).symlink_to(path)
        self._plugins = Plugins(self.account, self._folder / "plugins")
        self._project = yaml.safe_load((ROOT / "Pulumi.yaml").read_text())
        self._stack = automation.create_stack(
            name,
            self._project["name"],
            _run_program,
            opts=automation.LocalWorkspaceOptions(
                work_dir=str(self._folder / "work"),
                pulumi_command=automation.PulumiCommand(str(self._folder)),
                env_vars=self._variables(),
                project_settings=automation.ProjectSettings(
                    self._project["name"],
                    "python",
                    backend=automation.ProjectBackend(f"file://{self._folder / 'state'}"),
                ),
            ),
        )

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._plugins.close()
        shutil.rmtree(self._folder)

    def set(self, path: str, value: Any) -> None:
        """Change one setting, as ``pulumi config set --path rates:PATH`` does; None removes it."""
        change(self.config, path, value)

    def preview(self) -> Outcome:
        """Run ``pulumi preview``."""
        return self._run(self._stack.preview)

    def up(self) -> Outcome:
        """Run ``pulumi up``."""
        return self._run(self._stack.up)

    def refresh(self) -> Outcome:
        """Run ``pulumi refresh``."""
        return self._run(self._stack.refresh)

    def destroy(self) -> Outcome:
        """Run ``pulumi destroy``."""
        return self._run(self._stack.destroy)

    @property
    def outputs(self) -> dict[str, Any]:
        """The stack's outputs."""
        return {key: output.value for key, output in self._stack.outputs().items()}

    def of_type(self, type_: str) -> dict[str, Live]:
        """Return the deployed resources of a type, by logical name."""
        found = {}
        for resource in self._resources():
            live = self.account.get(type_, resource.get("id", "")) if resource["type"] == type_ else None
            if live is not None:
                found[resource["urn"].rpartition("::")[2]] = live
        return found

    def _resources(self) -> list[dict[str, Any]]:
        deployment = self._stack.export_stack().deployment
        return list((deployment or {}).get("resources") or [])

    def _run(self, operation: Callable[..., Any]) -> Outcome:
        self._configure()
        events: list[automation.events.EngineEvent] = []
        refused_before = len(self.account.refusals)
        failure = ""
        try:
            operation(on_event=events.append)
        except (automation.CommandError, automation.InlineSourceRuntimeError) as error:
            failure = str(error)
        changes: dict[str, int] = {}
        touched = []
        for event in events:
            metadata = event.resource_pre_event.metadata if event.resource_pre_event else None
            verb = metadata.op.value if metadata else ""
            if metadata and verb in VERBS and not metadata.type.startswith(("pulumi:", "rates:")):
                changes[verb] = changes.get(verb, 0) + 1
                touched.append(f"{verb} {metadata.type} {metadata.urn.rpartition('::')[2]}")
        refused = dict.fromkeys([*self.account.refusals[refused_before:], *_RULE.findall(failure)])
        if failure and not refused:
            refused = {"program": None}
        return Outcome(changes, tuple(refused), failure, tuple(touched))

    def _configure(self) -> None:
        """Write the stack's file, and keep in it what the engine has written about its encryption."""
        path = self._folder / "work" / f"Pulumi.{self.name}.yaml"
        written = yaml.safe_load(path.read_text()) if path.exists() else {}
        kept = {key: value for key, value in (written or {}).items() if key != "config"}
        shared = {key: entry["value"] for key, entry in self._project["config"].items()}
        path.write_text(yaml.safe_dump({**kept, "config": {**shared, **self.config}}))

    def _variables(self) -> dict[str, str]:
        """Return the variables with which the engine finds the plugins and nothing else."""
        plugins = self._folder / "plugins"
        return {
            "PATH": os.pathsep.join([str(plugins), os.environ["PATH"]]),
            "PULUMI_HOME": str(self._folder / "home"),
            "PULUMI_CONFIG_PASSPHRASE": "of an emulated stack",
            "PULUMI_SKIP_UPDATE_CHECK": "true",
            "PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION": "true",
            # The state is written once at the end. By default the file backend writes all of it after each step.
            "PULUMI_EXPERIMENTAL": "true",
            "PULUMI_SKIP_CHECKPOINTS": "true",
        }


def _run_program() -> None:
    """Run the program from its folder, as Pulumi runs it."""
    folder = str(ROOT / "pulumi")
    if folder not in sys.path:
        sys.path.insert(0, folder)
    runpy.run_path(str(ROOT / "pulumi" / "__main__.py"), run_name="__main__")
