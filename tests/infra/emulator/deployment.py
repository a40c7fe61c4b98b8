"""Deploy a stack's program into an emulated account, within the test's process.

It follows Pulumi's documentation of its engine: a resource is created after those it depends on, replaced by creation
before deletion, and deleted after those that depend on it; ignored changes keep the old input; a preview leaves every
output of a new resource unknown. ``engine.py`` runs the same stacks on the engine itself.
"""

from __future__ import annotations

import copy
import json
import threading
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pulumi.output import Unknown
from pulumi.runtime import mocks, rpc
from rehearsal import plain, run_program

from . import shapes
from .account import Account, CallRefused, kind_of
from .kinds import Properties, inner
from .names import NAME_PREFIXES, NAMES
from .settings import change

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .account import Live


@dataclass(frozen=True)
class Outcome:
    """What one operation did.

    Attributes:
        changes: Numbers of resources: create, update, replace, delete.
        refused: Names of the rules that refused a call.
        message: What was said about the first one.
        touched: Type and name of each resource that changed, with the change in front.
    """

    changes: Mapping[str, int]
    refused: tuple[str, ...] = ()
    message: str = ""
    touched: tuple[str, ...] = ()


@dataclass
class _Deployed:
    name: str
    live: Live
    inputs: Properties
    depends_on: frozenset[str]
    protect: bool
    retain: bool
    trigger: Any = None


class Deployment:
    """One stack with its state.

    Args:
        name: ``dev``, ``staging``, ``prod`` or ``dev-NAME``.
        config: The stack's configuration, values as in its file.
        account: The account to work in; by default a new one with the number in the configuration.
    """

    def __init__(self, name: str, config: Mapping[str, Any], account: Account | None = None) -> None:
        self.name = name
        self.config: dict[str, Any] = copy.deepcopy(dict(config))
        self.account = account or Account(str(config["rates:account"]))
        self.state: dict[str, _Deployed] = {}
        self.outputs: dict[str, Any] = {}

    def set(self, path: str, value: Any) -> None:
        """Change one setting, as ``pulumi config set --path rates:PATH`` does; None removes it."""
        change(self.config, path, value)

    def preview(self) -> Outcome:
        """Run the program as ``pulumi preview`` does."""
        return self._run(preview=True)

    def up(self) -> Outcome:
        """Run the program and deploy, as ``pulumi up`` does."""
        return self._run(preview=False)

    def destroy(self) -> Outcome:
        """Delete everything, as ``pulumi destroy`` does."""
        run = _Run(self, preview=False)
        try:
            run.delete(dict(self.state))
        except CallRefused as refusal:
            return run.outcome(refusal)
        return run.outcome()

    def refresh(self) -> Outcome:
        """Take over what exists now, as ``pulumi refresh`` does."""
        touched = []
        for urn, deployed in list(self.state.items()):
            live = deployed.live
            if (live.region, live.type, live.id) in self.account.live:
                deployed.inputs = copy.deepcopy(live.inputs)
            else:
                del self.state[urn]
                touched.append(f"delete {live.type} {deployed.name}")
        return Outcome({"delete": len(touched)}, touched=tuple(touched))

    def of_type(self, type_: str) -> dict[str, Live]:
        """Return the deployed resources of a type by logical name."""
        return {one.name: one.live for one in self.state.values() if one.live.type == type_}

    def _run(self, *, preview: bool) -> Outcome:
        run = _Run(self, preview=preview)
        try:
            outputs = run_program(self.name, self.config, run, _Monitor(run), preview=preview)
            if not run.refusal:
                run.finish()
        except CallRefused as refusal:
            return run.outcome(refusal)
        except Exception as error:  # noqa: BLE001 - a refused call surfaces as whatever the SDK makes of it
            if not run.refusal:
                return Outcome(run.counts(), ("program",), repr(error))
        if not run.refusal and not preview:
            self.outputs = outputs
        return run.outcome(run.refusal)


class _Monitor(mocks.MockMonitor):
    """Passes each registration on with its options, one at a time."""

    def __init__(self, run: _Run) -> None:
        super().__init__(run)
        self._run = run
        self._lock = threading.RLock()

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - named by the engine's protocol
        with self._lock:
            self._run.request = request
            return super().RegisterResource(request)  # type: ignore[no-untyped-call]


class _Run(mocks.Mocks):
    """One run of the program."""

    def __init__(self, deployment: Deployment, *, preview: bool) -> None:
        self._deployment = deployment
        self._account = deployment.account
        self._preview = preview
        self._providers: dict[str, tuple[str, str]] = {}
        self._seen: set[str] = set()
        self._replaced: dict[str, _Deployed] = {}
        self._touched: list[str] = []
        self.request: Any = None
        self.refusal: CallRefused | None = None

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        inputs = _known(plain(args.inputs))
        if args.typ.startswith("pulumi:providers:"):
            self._provider(args, inputs)
            return f"{args.name}-id", inputs
        if not args.custom:
            return None, inputs
        try:
            return self._register(args, inputs)
        except CallRefused as refusal:
            self.refusal = self.refusal or refusal
            raise

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:  # type: ignore[override]  # what the monitor takes
        region = self._place(args.provider)[0]
        try:
            return self._account.invoke(args.token, plain(dict(args.args)), region)
        except CallRefused as refusal:
            self.refusal = self.refusal or refusal
            raise

    def finish(self) -> None:
        """Delete what was replaced, and what the program no longer asks for."""
        state = self._deployment.state
        gone = {urn: one for urn, one in state.items() if urn not in self._seen}
        if self._preview:
            self._touched += [f"delete {one.live.type} {one.name}" for one in gone.values()]
            return
        self.delete(gone | self._replaced)

    def delete(self, gone: Mapping[str, _Deployed]) -> None:
        """Delete resources, each after those that depend on it."""
        left = dict(gone)
        while left:
            needed = {urn for one in left.values() for urn in one.depends_on}
            # A replaced resource is known by its URN with a mark; its dependants are replaced or updated by now.
            ready = [urn for urn in reversed(left) if urn not in needed] or [next(reversed(left))]
            for urn in ready:
                self._delete(urn, left.pop(urn))

    def counts(self) -> dict[str, int]:
        """Return the numbers of changes by kind."""
        return dict(Counter(entry.partition(" ")[0] for entry in self._touched))

    def outcome(self, refusal: CallRefused | None = None) -> Outcome:
        """Return what has happened so far."""
        touched = tuple(self._touched)
        return Outcome(self.counts(), (refusal.rule,) if refusal else (), str(refusal or ""), touched)

    def _register(self, args: mocks.MockResourceArgs, inputs: Properties) -> tuple[str, dict[str, Any]]:
        request, state = self.request, self._deployment.state
        urn = f"{args.typ}::{args.name}"
        region, cluster = self._place(args.provider)
        if cluster:
            inputs["cluster"] = cluster
        self._seen.add(urn)
        old = state.get(urn)
        self._name(args.typ, args.name, inputs, old)
        _keep_ignored(inputs, old.inputs if old else None, request.ignoreChanges)
        if faults := shapes.faults(kind_of(args.typ), inputs):
            self._account.refusals.append("input-shape")
            raise CallRefused("input-shape", f"{args.typ} {args.name}: {'; '.join(faults)}")
        depends_on = frozenset("::".join(urn.split("::")[2:]).rpartition("$")[2] for urn in request.dependencies)
        trigger = rpc.deserialize_property(request.replacement_trigger) if _has_trigger(request) else None
        made = None if old is None else self._changed(args.typ, old, inputs, trigger)
        if made == "same":
            assert old is not None
            old.depends_on, old.protect, old.retain = depends_on, request.protect, request.retainOnDelete
            return old.live.id, self._returned(args, old.live)
        verb = made or "create"
        self._touched.append(f"{verb} {args.typ} {args.name}")
        if self._preview:
            if old and verb == "update":
                return old.live.id, self._returned(args, old.live)
            return "", args.inputs
        if verb == "update":
            assert old is not None
            live = self._account.update(old.live, inputs)
        else:
            if old is not None and request.deleteBeforeReplace:
                self._account.delete(old.live)
            elif old is not None:
                inputs = self._renamed(args.typ, args.name, inputs, old)
                self._replaced[f"{urn}#replaced"] = old
            live = self._account.create(args.typ, args.name, inputs, region)
        state[urn] = _Deployed(
            args.name,
            live,
            copy.deepcopy(inputs),
            depends_on,
            request.protect,
            request.retainOnDelete,
            trigger,
        )
        return live.id, self._returned(args, live)

    def _returned(self, args: mocks.MockResourceArgs, live: Live) -> dict[str, Any]:
        """Return a resource's properties in the SDK's own values: an archive goes back as the archive it was."""
        named = {key: live.inputs[key] for key in [NAMES.get(live.type, "")] if key in live.inputs}
        return {**named, **args.inputs, **live.outputs}

    def _changed(self, type_: str, old: _Deployed, inputs: Properties, trigger: Any) -> str:
        changed = [key for key in old.inputs.keys() | inputs.keys() if old.inputs.get(key) != inputs.get(key)]
        replaced_by = kind_of(type_).replaced_by
        nested = {path for path in replaced_by if "." in path}
        if any(key in replaced_by for key in changed) or any(
            inner(old.inputs, path) != inner(inputs, path) for path in nested
        ):
            return "replace"
        if trigger != old.trigger:
            return "replace"
        return "update" if changed else "same"

    def _delete(self, urn: str, one: _Deployed) -> None:
        if one.protect:
            self._account.refusals.append("protected-in-pulumi")
            raise CallRefused("protected-in-pulumi", f"{one.live.type} {one.name} is protected")
        if one.retain:
            self._account.kept.setdefault("retained", []).append(f"{one.live.type} {one.live.id}")
        else:
            self._account.delete(one.live)
        if not urn.endswith("#replaced"):
            self._touched.append(f"delete {one.live.type} {one.name}")
            self._deployment.state.pop(urn, None)

    def _provider(self, args: mocks.MockResourceArgs, inputs: Properties) -> None:
        if args.typ == "pulumi:providers:aws":
            allowed = inputs.get("allowedAccountIds")
            try:
                self._account.admit(inputs["region"], json.loads(allowed) if allowed else None)
            except CallRefused as refusal:
                self.refusal = self.refusal or refusal
                raise
            self._providers[args.name] = (inputs["region"], "")
        elif args.typ == "pulumi:providers:kubernetes" and inputs.get("kubeconfig") != shapes.UNKNOWN:
            server = json.loads(inputs["kubeconfig"])["clusters"][0]["cluster"]["server"]
            for cluster in self._account.find("aws:eks/cluster:Cluster"):
                if cluster["endpoint"] == server:
                    self._providers[args.name] = (cluster.region, str(cluster["name"]))

    def _place(self, provider: str | None) -> tuple[str, str]:
        """Return region and cluster of a provider, by the reference that a registration carries."""
        name = (provider or "").rpartition("::")[0].rpartition("::")[2]
        return self._providers.get(name, ("", ""))

    def _name(self, type_: str, name: str, inputs: Properties, old: _Deployed | None) -> None:
        key = NAMES.get(type_)
        if key and not inputs.get(key):
            inputs[key] = old.inputs[key] if old else self._proposed(type_, name, "a")

    def _renamed(self, type_: str, name: str, inputs: Properties, old: _Deployed) -> Properties:
        """Give a replacement a new name, if the program leaves the name to the engine."""
        key = NAMES.get(type_)
        if key and inputs[key] == old.inputs.get(key) == self._proposed(type_, name, "a"):
            return {**inputs, key: self._proposed(type_, name, "b")}
        return inputs

    def _proposed(self, type_: str, name: str, digit: str) -> str:
        return f"{NAME_PREFIXES.get(type_, '')}rates-{self._deployment.name}-{name}-{digit * 6}"


def _known(value: Any) -> Any:
    """Return a value with the protocol's mark in place of everything that a preview does not know."""
    if isinstance(value, Unknown):
        return shapes.UNKNOWN
    if isinstance(value, dict):
        return {key: _known(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_known(item) for item in value]
    return value


def _has_trigger(request: Any) -> bool:
    return "replacement_trigger" in {descriptor.name for descriptor, _ in request.ListFields()}


def _keep_ignored(inputs: Properties, old: Properties | None, paths: Any) -> None:
    """Put the old value of every ignored path in place of the new one."""
    if old is None:
        return
    for path in paths:
        *parents, last = path.split(".")
        target, source = inputs, old
        for parent in parents:
            target, source = target.get(parent) or {}, source.get(parent) or {}
        if last in source:
            target[last] = source[last]
        else:
            target.pop(last, None)
