"""Run the program of a stack without a cloud, and record every resource that it registers.

The tests, the snapshots in ``tests/infra/snapshots`` and the cost table in ``docs/capacity.md`` are made from this.
"""

from __future__ import annotations

import json
import runpy
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pulumi
import yaml
from names import LIMITS, RANDOM_PART, autonamed
from pulumi.runtime import mocks, rpc, settings, sync_await

if TYPE_CHECKING:
    from collections.abc import Mapping

ROOT = Path(__file__).resolve().parent.parent
ACCOUNT = "123456789012"
OWNER_VALUES = {"example.com": "rehearsal.test", "203.0.113.0/24": "100.64.0.0/24", "000000000000": ACCOUNT}


@dataclass(frozen=True, kw_only=True)
class Resource:
    """A resource as the program registered it, with simulated outputs."""

    type: str
    name: str
    urn: str
    id: str
    inputs: dict[str, Any]
    region: str
    depends_on: frozenset[str]
    input_depends_on: Mapping[str, frozenset[str]]
    ignore_changes: frozenset[str]
    protect: bool

    @property
    def key(self) -> str:
        """Type and name, which identify a resource in a stack."""
        return f"{self.type} {self.name}"


@dataclass(frozen=True, kw_only=True)
class Rehearsal:
    """The resources that a stack's program registered."""

    stack: str
    resources: list[Resource]
    outputs: dict[str, Any] = field(default_factory=dict)

    def of_type(self, type_: str) -> dict[str, Resource]:
        """The resources of a type, by name."""
        return {resource.name: resource for resource in self.resources if resource.type == type_}


class _Answers(mocks.Mocks):
    """Plausible outputs, all different, so that a value identifies its source."""

    def __init__(self, stack: str) -> None:
        self._stack = stack
        self.regions: dict[str, str] = {}

    def new_resource(self, args: mocks.MockResourceArgs) -> tuple[str | None, dict[str, Any]]:
        slug = args.typ.rpartition(":")[2]
        region = self.region(args)
        name = f"{slug}-{args.name}"
        module = args.typ.split(":")[1].split("/")[0]
        service = {"lb": "elasticloadbalancing"}.get(module, module)
        outputs: dict[str, Any] = {
            "arn": f"arn:aws:{service}:{region}:{ACCOUNT}:{name}",
            "arnSuffix": f"suffix/{name}",
            "address": f"{name}.{region}.rds.test",
            "certificateArn": f"arn:aws:acm:{region}:{ACCOUNT}:certificate/{name}",
            "certificateAuthority": {"data": f"authority-of-{name}"},
            "dnsName": f"{name}.{region}.elb.test",
            "domainValidationOptions": [
                {
                    "resourceRecordName": f"_{name}",
                    "resourceRecordType": "CNAME",
                    "resourceRecordValue": f"{name}.acm.test",
                }
            ],
            "fqdn": args.inputs.get("name", ""),
            "keyId": f"key-{name}",
            "endpoint": f"https://{name}.{region}.eks.test",
            "hex": RANDOM_PART,
            "latestVersion": 1,
            "nameServers": [f"ns-1.{name}.test", f"ns-2.{name}.test"],
            "primaryEndpointAddress": f"{name}.cache.test",
            "repositoryUrl": f"{ACCOUNT}.dkr.ecr.{region}.test/{name}",
            "resources": [{"autoscalingGroups": [{"name": f"eks-{name}"}]}],
            "result": f"secret-of-{name}",
            "url": f"https://sqs.{region}.test/{name}",
            "zoneId": f"Z-{name}",
            **args.inputs,
        }
        if args.typ in LIMITS:
            outputs.setdefault(LIMITS[args.typ].key, autonamed(self._stack, args.name))
        if args.typ == "aws:eks/cluster:Cluster":
            outputs["vpcConfig"] = {**outputs["vpcConfig"], "clusterSecurityGroupId": f"sg-{name}"}
        return f"{name}-id", outputs

    def call(self, args: mocks.MockCallArgs) -> dict[str, Any]:  # type: ignore[override]  # what the monitor takes
        given: dict[str, Any] = dict(args.args)
        answers: dict[str, dict[str, Any]] = {
            "aws:autoscaling/getAmiIds:getAmiIds": {"names": [], "arns": []},
            "aws:ecr/getRepository:getRepository": {"repositoryUrl": f"{ACCOUNT}.dkr.ecr.test/{given.get('name')}"},
            "aws:secretsmanager/getSecretVersion:getSecretVersion": {
                "secretString": json.dumps({"username": "user", "password": f"password-of-{given.get('secretId')}"})
            },
            "aws:route53/getZone:getZone": {"zoneId": f"Z-{given.get('name')}"},
        }
        return answers[args.token]

    def region(self, args: mocks.MockResourceArgs) -> str:
        """The region of the resource's provider."""
        if args.typ == "pulumi:providers:aws":
            self.regions[args.name] = args.inputs["region"]
        return self.regions.get((args.provider or "").rpartition("::")[0].rpartition("::")[2], "")


class _Recorder(mocks.MockMonitor):
    """Records the registration of each resource."""

    def __init__(self, answers: _Answers) -> None:
        super().__init__(answers)
        self.answers = answers
        self.records: list[Resource] = []

    def RegisterResource(self, request: Any) -> Any:  # noqa: N802 - named by the engine's protocol
        response = super().RegisterResource(request)  # type: ignore[no-untyped-call]
        if request.type == "pulumi:pulumi:Stack":
            return response
        args = mocks.MockResourceArgs(request.type, request.name, {}, request.provider)
        self.records.append(
            Resource(
                type=request.type,
                name=request.name,
                urn=response.urn,
                id=response.id,
                inputs=plain(rpc.deserialize_properties(request.object)),
                region=self.answers.regions[request.name]
                if request.type == "pulumi:providers:aws"
                else self.answers.region(args),
                depends_on=frozenset(request.dependencies),
                input_depends_on={key: frozenset(value.urns) for key, value in request.propertyDependencies.items()},
                ignore_changes=frozenset(request.ignoreChanges),
                protect=request.protect,
            )
        )
        return response


def stack_config(name: str) -> dict[str, Any]:
    """Read ``Pulumi.<name>.yaml``, with an owner's values in place of the placeholders that the program refuses.

    Args:
        name: Name of the stack.

    Returns:
        The file's ``config``, as YAML gives it.
    """
    text = (ROOT / f"Pulumi.{name}.yaml").read_text()
    for placeholder, value in OWNER_VALUES.items() if name != "local" else ():
        text = text.replace(placeholder, value)
    content: dict[str, Any] = yaml.safe_load(text)
    return dict(content["config"])


def rehearse(stack: str, config: Mapping[str, Any]) -> Rehearsal:
    """Run the program for a stack.

    Args:
        stack: Name of the stack.
        config: Configuration of the stack, values as in its file.

    Returns:
        The resources in the order they were registered, and the stack's outputs.
    """
    answers = _Answers(stack)
    recorder = _Recorder(answers)
    outputs = run_program(stack, config, answers, recorder, preview=False)
    return Rehearsal(stack=stack, resources=recorder.records, outputs=outputs)


class _Threads(ThreadPoolExecutor):
    """Threads that run each call with the caller's context variables.

    The SDK keeps its settings there, for example whether a preview runs. A thread without the caller's variables would
    read those of the first program that the process has run.
    """

    def submit(self, fn: Any, /, *args: Any, **kwargs: Any) -> Any:
        return super().submit(copy_context().run, fn, *args, **kwargs)


THREADS = _Threads()


def run_program(
    stack: str, config: Mapping[str, Any], answers: mocks.Mocks, monitor: mocks.MockMonitor, *, preview: bool
) -> dict[str, Any]:
    """Run the program without an engine.

    Args:
        stack: Name of the stack.
        config: Configuration of the stack, values as in its file.
        answers: Responses to registrations and invokes.
        monitor: Receives the registrations and asks ``answers``.
        preview: Whether the SDK leaves missing outputs unknown.

    Returns:
        The stack's outputs.
    """
    # The loop that the SDK uses for every run of the process; asyncio.run leaves a thread without one.
    sync_await._ensure_event_loop().set_default_executor(THREADS)  # type: ignore[no-untyped-call]
    pulumi.runtime.set_all_config(
        {key: json.dumps(value) if isinstance(value, dict | list) else str(value) for key, value in config.items()}
    )
    settings.set_root_resource(None)  # type: ignore[arg-type]  # reset the stack of an earlier run
    mocks.set_mocks(answers, project="rates", stack=stack, preview=preview, monitor=monitor)
    outputs: dict[str, Any] = {}

    def run() -> pulumi.Output[None]:
        runpy.run_path(str(ROOT / "pulumi" / "__main__.py"), run_name="__main__")
        root: Any = settings.get_root_resource()
        return pulumi.Output.all(**root.outputs).apply(outputs.update)

    mocks.test(run)()  # type: ignore[no-untyped-call]
    return outputs


def plain(value: Any) -> Any:
    """The value without the engine's marks on secrets, and with files by their paths."""
    if rpc.is_rpc_secret(value):
        return plain(rpc.unwrap_rpc_secret(value))
    if isinstance(value, pulumi.AssetArchive):
        return plain(value.assets)
    if isinstance(value, pulumi.FileAsset):
        path = Path(value.path)
        return str(path.relative_to(ROOT)) if path.is_relative_to(ROOT) else path.name
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [plain(item) for item in value]
    return value
