"""The registry of the service's image."""

from __future__ import annotations

import json
from dataclasses import dataclass

import pulumi
from pulumi_aws import ecr

MAX_IMAGES = 100


@dataclass(frozen=True, kw_only=True)
class RegistryArgs:
    """Arguments of a registry."""

    repository_name: str
    """Physical name, chosen and not random: developers' copies and CI look it up by it."""
    key_arn: pulumi.Input[str]
    account_id: pulumi.Input[str]
    protect: bool
    """Refuse to delete the repository while it holds images."""
    copy_region: str | None = None
    """Another region to copy every image to."""


class Registry(pulumi.ComponentResource):
    """A repository with immutable tags.

    Attributes:
        url: Where images are pushed and pulled, without a tag.
        arn: The repository's ARN.
    """

    url: pulumi.Output[str]
    arn: pulumi.Output[str]

    def __init__(self, name: str, args: RegistryArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Registry", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        repository = ecr.Repository(
            name,
            name=args.repository_name,
            force_delete=not args.protect,
            image_tag_mutability="IMMUTABLE",
            image_scanning_configuration={"scan_on_push": True},
            encryption_configurations=[{"encryption_type": "KMS", "kms_key": args.key_arn}],
            opts=child,
        )
        ecr.LifecyclePolicy(
            name,
            repository=repository.name,
            policy=json.dumps(
                {
                    "rules": [
                        {
                            "rulePriority": 1,
                            "description": f"Keep the last {MAX_IMAGES} images",
                            "selection": {
                                "tagStatus": "any",
                                "countType": "imageCountMoreThan",
                                "countNumber": MAX_IMAGES,
                            },
                            "action": {"type": "expire"},
                        }
                    ]
                }
            ),
            opts=child,
        )
        if args.copy_region:
            # One configuration exists per account and region, so a stack with a second region needs its own account.
            ecr.ReplicationConfiguration(
                name,
                replication_configuration={
                    "rules": [
                        {
                            "destinations": [{"region": args.copy_region, "registry_id": args.account_id}],
                            "repository_filters": [{"filter": repository.name, "filter_type": "PREFIX_MATCH"}],
                        }
                    ]
                },
                opts=child,
            )
        self.url = repository.repository_url
        self.arn = repository.arn
        self.register_outputs({"url": self.url})
