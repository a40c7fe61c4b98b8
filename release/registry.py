"""Log in to a registry of AWS with a temporary credential."""

from __future__ import annotations

import base64
import re
from typing import Any

import boto3

from release.programs import ReleaseError, run

REGISTRY = re.compile(r"(?P<account>\d{12})\.dkr\.ecr\.(?P<region>[a-z0-9-]+)\.[a-z.]+")


def login(repository: str) -> str:
    """Store a credential of a registry for cosign and crane. It is valid for twelve hours.

    Args:
        repository: A repository with its registry, as the stack's output ``registry`` names it.

    Returns:
        The registry.

    Raises:
        ReleaseError: The registry is not one of AWS, or cosign fails.
    """
    registry = repository.partition("/")[0]
    found = REGISTRY.fullmatch(registry)
    if not found:
        raise ReleaseError(f"'{registry}' is not a registry of AWS: log in to another one with 'cosign login'")
    client: Any = boto3.client("ecr", region_name=found["region"])
    (answer,) = client.get_authorization_token(registryIds=[found["account"]])["authorizationData"]
    user, _, password = base64.b64decode(answer["authorizationToken"]).decode().partition(":")
    run(["cosign", "login", registry, "--username", user, "--password-stdin"], stdin=password)
    return registry
