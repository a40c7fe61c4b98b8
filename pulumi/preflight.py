"""Check before the first ``pulumi up`` for problems that would stop it: ``make preflight STACK=dev``.

Every check reads and changes nothing. It compares what the stack's program asks for with what the account, the region
and this machine have, and says what to do about each difference.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import boto3
import yaml
from botocore.exceptions import BotoCoreError, ClientError
from rehearsal import ROOT, Rehearsal, rehearse, stack_config
from settings import StackSettingsError, placeholders

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

# Type of resource, or kind of node, by Service Quotas' service and code of the quota on it.
QUOTAS: Mapping[str, tuple[str, str]] = {
    "aws:ec2/vpc:Vpc": ("vpc", "L-F678F1CE"),
    "aws:ec2/eip:Eip": ("ec2", "L-0263D0A3"),
    "aws:ec2/natGateway:NatGateway": ("vpc", "L-FE5A380F"),
    "aws:eks/cluster:Cluster": ("eks", "L-1194D53C"),
    "aws:lb/loadBalancer:LoadBalancer": ("elasticloadbalancing", "L-53DA6B97"),
    "aws:rds/instance:Instance": ("rds", "L-7B6409FD"),
    "on-demand vCPU": ("ec2", "L-1216C47A"),
    "spot vCPU": ("ec2", "L-34B43A08"),
}
# One action for each service that the program creates resources with, and the two that people forget.
ACTIONS = (
    "acm:RequestCertificate",
    "budgets:ModifyBudget",
    "cloudwatch:PutMetricAlarm",
    "ec2:CreateVpc",
    "ec2:RunInstances",
    "ecr:CreateRepository",
    "eks:CreateCluster",
    "elasticache:CreateReplicationGroup",
    "elasticloadbalancing:CreateLoadBalancer",
    "events:PutRule",
    "iam:CreateRole",
    "iam:PassRole",
    "iam:CreateServiceLinkedRole",
    "kms:CreateKey",
    "lambda:CreateFunction",
    "logs:CreateLogGroup",
    "rds:CreateDBInstance",
    "route53:CreateHostedZone",
    "s3:CreateBucket",
    "secretsmanager:CreateSecret",
    "sns:CreateTopic",
    "sqs:CreateQueue",
)
SHARED_BACKENDS = ("s3://", "https://", "azblob://", "gs://")


@dataclass(frozen=True)
class Blocker:
    """A problem that would stop the deployment.

    Attributes:
        text: The fault, with the value.
        remedy: What to do about it.
    """

    text: str
    remedy: str


@dataclass(frozen=True, kw_only=True)
class Requirements:
    """The requirements of a stack.

    Attributes:
        config: The stack's configuration, values as in its file.
        rehearsal: Every resource that the program creates.
        client: Returns a client of an AWS service in a region.
        file: The stack's file, with what Pulumi has written about its secrets.
        digest: Digest of the image that Argo CD deploys; empty before the first release.
    """

    stack: str
    config: Mapping[str, Any]
    rehearsal: Rehearsal
    client: Callable[[str, str], Any]
    file: Mapping[str, Any]
    digest: str

    @property
    def environment(self) -> str:
        """The environment whose file the stack takes its settings from."""
        return self.stack.partition("-")[0]

    @property
    def zones(self) -> dict[str, list[str]]:
        """Ids of the zones, by region."""
        found = {self.config["rates:region"]: self.config["rates:network"]["zoneIds"]}
        if standby := self.config.get("rates:standby"):
            found[standby["region"]] = standby["zoneIds"]
        return found


def check_tools(plan: Requirements) -> Iterator[Blocker]:
    """Compare the Pulumi command with the SDK, and find kubectl and aws."""
    wanted = version("pulumi")
    path = shutil.which("pulumi")
    if path is None:
        yield Blocker("pulumi is not on the PATH", f"install Pulumi {wanted}, or run 'make engine'")
    else:
        said = subprocess.run([path, "version"], capture_output=True, text=True, check=True).stdout.strip().lstrip("v")
        if said.split(".")[:2] != wanted.split(".")[:2]:
            yield Blocker(f"pulumi is {said}, and its SDK here is {wanted}", f"install Pulumi {wanted}")
    for program in ("aws", "kubectl"):
        if shutil.which(program) is None:
            yield Blocker(f"{program} is not on the PATH", f"install {program}: runbooks and kubeconfigs use it")


def check_settings(plan: Requirements) -> Iterator[Blocker]:
    """Find placeholders that the program refuses."""
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in plan.config.items()}
    for left in placeholders(texts):
        yield Blocker(left, f"set the value in Pulumi.{plan.environment}.yaml")


def check_state(plan: Requirements) -> Iterator[Blocker]:
    """Check that a team's stack keeps its state and secrets where the team can reach them."""
    if plan.environment == "dev":
        return
    provider = str(plan.file.get("secretsprovider", ""))
    if not provider.startswith("awskms://"):
        yield Blocker(
            f"secrets of {plan.stack} are encrypted by {provider or 'a passphrase'}",
            f"pulumi stack init {plan.stack} --secrets-provider 'awskms://alias/NAME?region=REGION'",
        )
    path = shutil.which("pulumi")
    if path is None:
        return
    said = subprocess.run([path, "whoami", "--verbose", "--json"], capture_output=True, text=True, check=False)
    backend = str(json.loads(said.stdout).get("url", "")) if said.returncode == 0 else ""
    if not backend.startswith(SHARED_BACKENDS):
        yield Blocker(
            f"the state backend is {backend or 'not chosen'}", "pulumi login s3://BUCKET, a bucket with versioning"
        )


def check_account(plan: Requirements) -> Iterator[Blocker]:
    """Compare the account of the credentials with the settings."""
    number = plan.client("sts", plan.config["rates:region"]).get_caller_identity()["Account"]
    if number != plan.config["rates:account"]:
        yield Blocker(
            f"the credentials are of account {number}, and rates:account is {plan.config['rates:account']}",
            "use credentials of that account, or set rates:account",
        )


def check_permissions(plan: Requirements) -> Iterator[Blocker]:
    """Simulate one creating action of each service."""
    region = plan.config["rates:region"]
    caller = plan.client("sts", region).get_caller_identity()["Arn"]
    # A session of a role is no policy source; the role is. The root user can't be simulated, and may do everything.
    caller = re.sub(r":sts::(\d+):assumed-role/([^/]+)/.*", r":iam::\1:role/\2", caller)
    if caller.endswith(":root"):
        return
    pages = plan.client("iam", region).get_paginator("simulate_principal_policy")
    for page in pages.paginate(PolicySourceArn=caller, ActionNames=list(ACTIONS)):
        for result in page["EvaluationResults"]:
            if result["EvalDecision"] != "allowed":
                yield Blocker(
                    f"{caller} may not {result['EvalActionName']}: {result['EvalDecision']}", "extend its policy"
                )


def check_zones(plan: Requirements) -> Iterator[Blocker]:
    """Check that the account has the zones, and that they are available."""
    for region, wanted in plan.zones.items():
        zones = plan.client("ec2", region).describe_availability_zones()["AvailabilityZones"]
        available = {zone["ZoneId"] for zone in zones if zone["State"] == "available"}
        for zone in sorted(set(wanted) - available):
            yield Blocker(f"zone {zone} is not available", f"choose another of {', '.join(sorted(available))}")


def check_instance_types(plan: Requirements) -> Iterator[Blocker]:
    """Check that each zone offers the nodes' instance types; Spark needs one of its types."""
    serving = plan.config["rates:nodes"]["instanceType"]
    spark = plan.config["rates:spark"]["instanceTypes"]
    for region, zones in plan.zones.items():
        pages = plan.client("ec2", region).get_paginator("describe_instance_type_offerings")
        offered = {
            (entry["Location"], entry["InstanceType"])
            for page in pages.paginate(
                LocationType="availability-zone-id",
                Filters=[
                    {"Name": "location", "Values": list(zones)},
                    {"Name": "instance-type", "Values": [serving, *spark]},
                ],
            )
            for entry in page["InstanceTypeOfferings"]
        }
        for zone in zones:
            if (zone, serving) not in offered:
                yield Blocker(f"{zone} does not offer {serving}", "choose another zone or nodes.instanceType")
            if not any((zone, one) in offered for one in spark):
                yield Blocker(f"{zone} offers none of {', '.join(spark)}", "choose another zone or spark.instanceTypes")


def check_quotas(plan: Requirements) -> Iterator[Blocker]:
    """Compare the account's quotas with the needs of this stack, with nodes at their maximum."""
    for region in plan.zones:
        needed = Counter(r.type for r in plan.rehearsal.resources if r.region == region and r.type in QUOTAS)
        needed += _cores(plan, region)
        quotas = plan.client("service-quotas", region)
        for what, number in sorted(needed.items()):
            service, code = QUOTAS[what]
            quota = quotas.get_service_quota(ServiceCode=service, QuotaCode=code)["Quota"]
            if quota["Value"] < number:
                yield Blocker(
                    f"{region}: {number} {what} are needed, and the quota '{quota['QuotaName']}' is {quota['Value']:g}",
                    f"aws service-quotas request-service-quota-increase --service-code {service} --quota-code {code} "
                    f"--region {region} --desired-value NUMBER",
                )


def check_versions(plan: Requirements) -> Iterator[Blocker]:
    """Check that EKS offers each version of Kubernetes in standard support, and each add-on at its version."""
    used = {cluster["version"] for cluster in plan.config["rates:clusters"].values()}
    for region in plan.zones:
        eks = plan.client("eks", region)
        for kubernetes in sorted(used):
            pinned = plan.config["rates:kubernetes"][kubernetes]
            found = eks.describe_cluster_versions(clusterVersions=[kubernetes])["clusterVersions"]
            status = found[0]["versionStatus"] if found else "not offered"
            if status != "STANDARD_SUPPORT":
                yield Blocker(f"{region}: Kubernetes {kubernetes} is {status}", "choose a version in standard support")
                continue
            ends = found[0]["endOfStandardSupportDate"].date().isoformat()
            if ends != str(pinned["supportEnds"]):
                yield Blocker(
                    f"standard support of {kubernetes} ends on {ends}, and the settings say {pinned['supportEnds']}",
                    f"set kubernetes.{kubernetes}.supportEnds",
                )
            for name, wanted in sorted(pinned["addons"].items()):
                offers = eks.describe_addon_versions(addonName=name, kubernetesVersion=kubernetes)["addons"]
                versions = [one["addonVersion"] for offer in offers for one in offer["addonVersions"]]
                if wanted not in versions:
                    yield Blocker(
                        f"{region}: {name} {wanted} is not offered for Kubernetes {kubernetes}",
                        f"set kubernetes.{kubernetes}.addons.{name} to one of: {', '.join(versions[:3])}",
                    )


def check_names(plan: Requirements) -> Iterator[Blocker]:
    """Find clusters that have this stack's fixed names and belong to another deployment."""
    for cluster in plan.rehearsal.of_type("aws:eks/cluster:Cluster").values():
        eks, name = plan.client("eks", cluster.region), cluster.inputs["name"]
        try:
            tags = eks.describe_cluster(name=name)["cluster"].get("tags", {})
        except eks.exceptions.ResourceNotFoundException:
            continue
        if tags.get("stack") != plan.stack:
            yield Blocker(f"{cluster.region} has a cluster {name} of {tags or 'no stack'}", "remove or rename it")


def check_domain(plan: Requirements) -> Iterator[Blocker]:
    """Check that the zone above the domain is in the account if the settings say so."""
    parent = plan.config.get("rates:parentZone")
    if not parent:
        return
    zones = plan.client("route53", plan.config["rates:region"]).list_hosted_zones_by_name(DNSName=parent)["HostedZones"]
    if not any(zone["Name"].rstrip(".") == parent and not zone["Config"]["PrivateZone"] for zone in zones):
        yield Blocker(
            f"there is no public hosted zone {parent}", "create it, or remove parentZone and delegate by hand"
        )


def check_image(plan: Requirements) -> Iterator[Blocker]:
    """Check that the registry has the image that the stack's Argo CD deploys."""
    repository = f"rates-{plan.environment}"
    remedy = "pods wait for it: after 'pulumi up' push the image to the output 'registry', then 'make promote TO=dev'"
    if not plan.digest:
        yield Blocker(f"no image was released for {plan.environment}", remedy)
        return
    try:
        plan.client("ecr", plan.config["rates:region"]).describe_images(
            repositoryName=repository, imageIds=[{"imageDigest": plan.digest}]
        )
    except ClientError as error:
        if error.response["Error"]["Code"] not in {"RepositoryNotFoundException", "ImageNotFoundException"}:
            raise
        yield Blocker(f"{repository} has no image {plan.digest}", remedy)


CHECKS: Mapping[str, Callable[[Requirements], Iterator[Blocker]]] = {
    "tools": check_tools,
    "settings": check_settings,
    "state": check_state,
    "account": check_account,
    "permissions": check_permissions,
    "zones": check_zones,
    "instance types": check_instance_types,
    "quotas": check_quotas,
    "versions": check_versions,
    "names": check_names,
    "domain": check_domain,
    "image": check_image,
}


def _cores(plan: Requirements, region: str) -> Counter[str]:
    """Return the vCPUs of a region's node groups at their maximum, by how they are paid."""
    cores: Counter[str] = Counter()
    for group in plan.rehearsal.of_type("aws:eks/nodeGroup:NodeGroup").values():
        if group.region != region:
            continue
        name = group.inputs["instanceTypes"][0]
        kind = plan.client("ec2", region).describe_instance_types(InstanceTypes=[name])["InstanceTypes"][0]
        paid = "spot vCPU" if group.inputs["capacityType"] == "SPOT" else "on-demand vCPU"
        cores[paid] += kind["VCpuInfo"]["DefaultVCpus"] * int(group.inputs["scalingConfig"]["maxSize"])
    return cores


def run(plan: Requirements) -> Iterator[tuple[str, list[Blocker]]]:
    """Run every check.

    Args:
        plan: The stack.

    Yields:
        The name of each check with its problems. A call that AWS refuses is a problem of its check, and the next check
        runs.
    """
    for name, check in CHECKS.items():
        try:
            yield name, list(check(plan))
        except (BotoCoreError, ClientError) as error:
            yield name, [Blocker(f"AWS did not answer: {error}", "check credentials, region and permissions")]


def prepare(stack: str) -> Requirements:
    """Read a stack's file and rehearse its program, with an owner's values in place of placeholders.

    Args:
        stack: ``dev``, ``staging``, ``prod`` or ``dev-NAME``.

    Raises:
        SettingsError: The stack's file is wrong.
    """
    environment = stack.partition("-")[0]
    file = yaml.safe_load((ROOT / f"Pulumi.{environment}.yaml").read_text())
    image = yaml.safe_load((ROOT / f"helm/gitops/stacks/{environment}/image.yaml").read_text())["image"]
    return Requirements(
        stack=stack,
        config=file["config"],
        rehearsal=rehearse(stack, stack_config(environment)),
        client=lambda service, region: boto3.client(service, region_name=region),  # type: ignore[call-overload]
        file=file,
        digest=image["digest"],
    )


def main() -> None:
    """Check the stack named on the command line, print what was found, and fail if there is a problem."""
    try:
        plan = prepare(sys.argv[1])
    except StackSettingsError as error:
        sys.exit(str(error))
    failed = False
    for name, problems in run(plan):
        sys.stdout.write(f"{name}: {'ok' if not problems else f'{len(problems)} to resolve'}\n")
        for problem in problems:
            failed = True
            sys.stdout.write(f"  {problem.text}\n    -> {problem.remedy}\n")
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
