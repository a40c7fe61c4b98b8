"""Provider plugins for Pulumi's engine that work in an emulated account.

The engine starts one process for each provider instance and connects to the port that it prints. Here that process is
a shell script that asks the test's process for a port, so all instances share one account in memory.
"""

from __future__ import annotations

import json
import socket
import stat
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any

import grpc
from google.protobuf import empty_pb2, json_format, struct_pb2
from pulumi.runtime.proto import plugin_pb2, provider_pb2, provider_pb2_grpc

from . import schema, shapes
from .account import CallRefused, Live, kind_of
from .kinds import Properties, inner
from .names import NAME_PREFIXES, NAMES

if TYPE_CHECKING:
    from pathlib import Path

    from .account import Account

PROVIDERS = ("aws", "random", "kubernetes")
# The protocol marks values that are no plain JSON with a signature, and secrets with one of its values.
SIGNATURE = "4dabf18193072939515e22adb298388d"
SECRET = "1b47061264138c4ac30d75fd1eb44270"


class Provider(provider_pb2_grpc.ResourceProviderServicer):
    """One provider instance: a region of the account, or a cluster in it. The protocol names its methods."""

    def __init__(self, account: Account) -> None:
        self._account = account
        self._region = ""
        self._cluster = ""

    def Handshake(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Announce what this plugin takes."""
        return provider_pb2.ProviderHandshakeResponse(accept_resources=True, supports_autonaming_configuration=True)

    def GetPluginInfo(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return a version that satisfies every SDK."""
        return plugin_pb2.PluginInfo(version="99.0.0")

    def CheckConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Accept a provider's configuration."""
        return provider_pb2.CheckResponse(inputs=request.news)

    def DiffConfig(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Never replace a provider."""
        return provider_pb2.DiffResponse()

    def Configure(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Take the region and check the account, or take the cluster that a kubeconfig names."""
        args = plain(request.args)
        self._region = str(args.get("region") or "")
        allowed = args.get("allowedAccountIds")
        if self._region:
            accounts = json.loads(allowed) if isinstance(allowed, str) else allowed
            self._do(context, self._account.admit, self._region, accounts)
        if kubeconfig := args.get("kubeconfig"):
            server = json.loads(kubeconfig)["clusters"][0]["cluster"]["server"]
            for cluster in self._account.find("aws:eks/cluster:Cluster"):
                if cluster["endpoint"] == server:
                    self._cluster, self._region = cluster["name"], cluster.region
        return provider_pb2.ConfigureResponse(
            supportsPreview=True, acceptResources=True, supports_autonaming_configuration=True
        )

    def Check(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Name what the program leaves unnamed, and check inputs against the schema and the service's model."""
        type_, inputs = type_of(request.urn), plain(request.news)
        key = NAMES.get(type_)
        if key and not inputs.get(key) and f"{key}Prefix" not in inputs:
            prefix = NAME_PREFIXES.get(type_, "")
            inputs[key] = plain(request.olds).get(key) or f"{prefix}{request.autonaming.proposed_name}"
        failures = [
            provider_pb2.CheckFailure(reason=f"{fault} [rule {rule}]")
            for rule, found in (
                ("input-schema", schema.faults(type_, inputs)),
                ("input-shape", shapes.faults(kind_of(type_), inputs)),
            )
            for fault in found
        ]
        return provider_pb2.CheckResponse(inputs=struct(inputs), failures=failures)

    def Diff(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Compare the previous inputs with the new ones; what AWS cannot change in place is replaced."""
        old, new = plain(request.old_inputs), plain(request.news)
        changed = sorted(key for key in old.keys() | new.keys() if old.get(key) != new.get(key))
        replaces = [
            path for path in sorted(kind_of(type_of(request.urn)).replaced_by) if inner(old, path) != inner(new, path)
        ]
        some = provider_pb2.DiffResponse.DIFF_SOME if changed else provider_pb2.DiffResponse.DIFF_NONE
        return provider_pb2.DiffResponse(changes=some, diffs=changed, replaces=replaces)

    def Create(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Create a resource; in a preview return the inputs alone, which leaves every output unknown."""
        inputs = plain(request.properties)
        if request.preview:
            return provider_pb2.CreateResponse(id="", properties=struct(inputs))
        type_, name = type_of(request.urn), request.urn.rpartition("::")[2]
        live = self._do(context, self._account.create, type_, name, self._located(type_, inputs), self._region)
        if faults := schema.output_faults(type_, live.outputs):
            context.abort(grpc.StatusCode.INTERNAL, f"the emulator is wrong: {'; '.join(faults)}")
        return provider_pb2.CreateResponse(id=live.id, properties=struct(state(live)))

    def Update(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Change a resource; in a preview the previous outputs hold, except for those that each update changes."""
        type_, inputs = type_of(request.urn), plain(request.news)
        live = self._existing(context, type_, request.id)
        if request.preview:
            outputs = {key: value for key, value in live.outputs.items() if key not in kind_of(type_).recomputed}
            return provider_pb2.UpdateResponse(properties=struct({**outputs, **inputs}))
        live = self._do(context, self._account.update, live, self._located(type_, inputs))
        return provider_pb2.UpdateResponse(properties=struct(state(live)))

    def Read(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Return what exists now, for a refresh; an empty id means that it is gone."""
        self._do(context, self._account.reach, self._region)
        live = self._account.live.get((self._region, type_of(request.urn), request.id))
        if live is None:
            return provider_pb2.ReadResponse(id="")
        # Without what AWS adds inside an input, such as the security group of a cluster's network settings.
        inputs = without_cluster(live.inputs)
        return provider_pb2.ReadResponse(id=live.id, properties=struct(state(live)), inputs=struct(inputs))

    def Delete(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Delete a resource; one that is gone already is no error, as in the real provider."""
        self._do(context, self._account.reach, self._region)
        live = self._account.live.get((self._region, type_of(request.urn), request.id))
        if live is not None:
            self._do(context, self._account.delete, live)
        return empty_pb2.Empty()

    def Invoke(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Answer a data source."""
        answer = self._do(context, self._account.invoke, request.tok, plain(request.args), self._region)
        return provider_pb2.InvokeResponse(**{"return": struct(answer)})

    def Cancel(self, request: Any, context: Any) -> Any:  # noqa: N802
        """Nothing runs that could be cancelled."""
        return empty_pb2.Empty()

    def _located(self, type_: str, inputs: Properties) -> Properties:
        """Add the cluster that a Kubernetes object is in, so that rules see it."""
        return {**inputs, "cluster": self._cluster} if type_.startswith("kubernetes:") else inputs

    def _existing(self, context: Any, type_: str, id_: str) -> Live:
        live = self._account.live.get((self._region, type_, id_))
        if live is None:
            context.abort(grpc.StatusCode.NOT_FOUND, f"NotFound: {type_} {id_} in {self._region}")
        assert live is not None
        return live

    def _do(self, context: Any, call: Any, *args: Any) -> Any:
        try:
            return call(*args)
        except CallRefused as refusal:
            context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(refusal))


class Plugins:
    """Programs named ``pulumi-resource-NAME`` in a folder, and the servers that they stand for.

    Args:
        account: The account in which all of them work.
        folder: Folder for the programs; it must be on the engine's PATH. A program that is there already stays.
    """

    def __init__(self, account: Account, folder: Path) -> None:
        self._account = account
        self._listener = socket.create_server(("127.0.0.1", 0))
        port = self._listener.getsockname()[1]
        for name in PROVIDERS:
            program = folder / f"pulumi-resource-{name}"
            if program.exists():
                continue
            # The engine ends this process. That closes the connection, and the server stops.
            program.write_text(
                f"#!/bin/bash\nexec 3<>/dev/tcp/127.0.0.1/{port}\nread -r port <&3\necho $port\nread -r _ <&3\n"
            )
            program.chmod(program.stat().st_mode | stat.S_IXUSR)
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Accept no further provider instances."""
        # Closing alone does not wake a thread that waits in accept().
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        server = grpc.server(futures.ThreadPoolExecutor(8), options=[("grpc.max_receive_message_length", 1 << 28)])
        provider_pb2_grpc.add_ResourceProviderServicer_to_server(Provider(self._account), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        with connection:
            connection.sendall(f"{port}\n".encode())
            connection.recv(1)
        server.stop(0)


def type_of(urn: str) -> str:
    """Return the type of a resource from its URN."""
    return urn.split("::")[2].rpartition("$")[2]


def state(live: Live) -> Properties:
    """Return a resource's inputs and outputs, as a provider returns them."""
    return without_cluster({**live.inputs, **live.outputs})


def without_cluster(properties: Properties) -> Properties:
    """Drop the cluster, which the emulator adds to Kubernetes objects for its rules."""
    return {key: value for key, value in properties.items() if key != "cluster"}


def plain(message: Any) -> Properties:
    """Return the protocol's properties as Python's values: secrets as their values, whole numbers as integers."""
    value = _plain(json_format.MessageToDict(message)) if message is not None else {}
    return value if isinstance(value, dict) else {}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        if value.get(SIGNATURE) == SECRET:
            return _plain(value.get("value"))
        return {key: _plain(item) for key, item in value.items() if not key.startswith("__")}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def struct(value: Properties) -> struct_pb2.Struct:
    """Return Python's values as the protocol's properties."""
    return json_format.ParseDict(value, struct_pb2.Struct())
