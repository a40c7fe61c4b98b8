"""Workflows get roles only if a stack's settings name them, and each role only what its jobs need."""

from __future__ import annotations

import json
import re
import subprocess
from typing import TYPE_CHECKING, Any

import pytest
import rules
from pulumi_policy import PolicyResourceOptions, ResourceValidationArgs
from rehearsal import ACCOUNT, ROOT, Rehearsal, rehearse, stack_config
from settings import StackSettingsError, load

from tests.charts.tools import program

from .emulator.account import Account, CallRefused

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.xdist_group("infra")

PROVIDER = "aws:iam/openIdConnectProvider:OpenIdConnectProvider"
ROLE, ROLE_POLICY = "aws:iam/role:Role", "aws:iam/rolePolicy:RolePolicy"
PIPELINE = {
    "repository": "team/rates",
    "environments": ["dev", "dev-preview"],
    "stateBucket": "state-of-rates",
    "stateKey": "arn:aws:kms:us-east-1:123456789012:key/abc",
}


def rehearsed(**more: Any) -> Rehearsal:
    return rehearse("dev", {**stack_config("dev"), "rates:pipeline": {**PIPELINE, **more}})


def trusted(stack: Rehearsal, use: str) -> Mapping[str, Any]:
    (statement,) = json.loads(stack.of_type(ROLE)[f"pipeline-{use}"].inputs["assumeRolePolicy"])["Statement"]
    trust: Mapping[str, Any] = statement
    return trust


def statements(stack: Rehearsal, use: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(stack.of_type(ROLE_POLICY)[f"pipeline-{use}"].inputs["policy"])[
        "Statement"
    ]
    return found


def test_without_the_setting_no_workflow_has_a_role(stack: Rehearsal) -> None:
    assert not stack.of_type(PROVIDER)
    assert not [name for name in stack.of_type(ROLE) if name.startswith("pipeline")]
    policies = [resource.inputs.get("assumeRolePolicy") for resource in stack.of_type(ROLE).values()]
    assert policies
    assert "token.actions" not in json.dumps(policies)
    assert stack.outputs["pipelineRoles"] == {}


def test_only_jobs_in_the_named_environments_push() -> None:
    stack = rehearsed()
    trust = trusted(stack, "push")
    assert trust["Action"] == ["sts:AssumeRoleWithWebIdentity"]
    provider = f"arn:aws:iam:us-east-1:{ACCOUNT}:OpenIdConnectProvider-pipeline"
    assert trust["Principal"] == {"Federated": [provider]}
    assert trust["Condition"] == {
        "StringEquals": {
            "token.actions.githubusercontent.com:aud": "sts.amazonaws.com",
            "token.actions.githubusercontent.com:sub": [
                "repo:team/rates:environment:dev",
                "repo:team/rates:environment:dev-preview",
            ],
        }
    }


def test_only_jobs_of_the_branch_read() -> None:
    condition = trusted(rehearsed(branch="stable"), "read")["Condition"]
    assert condition["StringEquals"]["token.actions.githubusercontent.com:sub"] == [
        "repo:team/rates:ref:refs/heads/stable"
    ]


def test_jobs_of_an_environment_for_previews_read_and_do_not_push() -> None:
    stack = rehearsed(previewEnvironments=["dev-plan"])
    claim = "repo:team/rates:environment:dev-plan"
    subjects = "token.actions.githubusercontent.com:sub"
    assert claim in trusted(stack, "read")["Condition"]["StringEquals"][subjects]
    assert claim not in trusted(stack, "push")["Condition"]["StringEquals"][subjects]


def test_the_pusher_writes_to_the_registry_alone() -> None:
    stack = rehearsed()
    (registry,) = stack.of_type("aws:ecr/repository:Repository").values()
    token, push = statements(stack, "push")
    assert token["Action"] == ["ecr:GetAuthorizationToken"]
    assert push["Resource"] == [f"arn:aws:ecr:us-east-1:123456789012:Repository-{registry.name}"]
    assert {action.partition(":")[0] for action in push["Action"]} == {"ecr"}
    assert registry.inputs["imageTagMutability"] == "IMMUTABLE"


def test_the_reader_changes_nothing_and_reads_no_data_of_the_service() -> None:
    stack = rehearsed()
    allowed = statements(stack, "read")
    actions = [action for statement in allowed for action in statement["Action"]]
    assert all(re.match(r"\w+:(Get|List|Describe|Decrypt)", action) for action in actions)
    objects = [statement["Resource"] for statement in allowed if "s3:GetObject" in statement["Action"]]
    assert objects == [["arn:aws:s3:::state-of-rates/*"]]
    assert not [action for action in actions if action.startswith("secretsmanager:")]


def test_the_reader_reads_the_credential_of_a_private_repository() -> None:
    config = {**stack_config("dev"), "rates:pipeline": PIPELINE, "rates:repositorySecret": "git/rates"}
    found = statements(rehearse("dev", config), "read")[-1]
    assert found["Resource"] == ["arn:aws:secretsmanager:us-east-1:123456789012:secret:git/rates-??????"]


def test_an_account_s_provider_is_used_instead_of_a_second_one() -> None:
    arn = "arn:aws:iam::123456789012:oidc-provider/token.actions.githubusercontent.com"
    stack = rehearsed(provider=arn)
    assert not stack.of_type(PROVIDER)
    assert trusted(stack, "push")["Principal"] == {"Federated": [arn]}


def test_a_second_provider_of_the_same_issuer_is_refused() -> None:
    account = Account()
    inputs = {"url": "https://token.actions.githubusercontent.com", "clientIdLists": ["sts.amazonaws.com"]}
    live = account.create(PROVIDER, "pipeline", inputs, "us-east-1")
    assert live.outputs["arn"].endswith(":oidc-provider/token.actions.githubusercontent.com")
    with pytest.raises(CallRefused, match="AlreadyExists"):
        account.create(PROVIDER, "another", inputs, "us-east-1")


def test_the_policy_pack_accepts_the_roles() -> None:
    found: list[str] = []
    options = PolicyResourceOptions(False, [], None, [], {}, [])  # type: ignore[arg-type]  # none of the rules reads them
    for resource in rehearsed().resources:
        if resource.name.startswith("pipeline"):
            args = ResourceValidationArgs(resource.type, resource.inputs, resource.urn, resource.name, options, None)
            rules.no_wildcard_iam(args, lambda message, urn=None: found.append(message))
    assert found == []


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"repository": "rates"}, r"rates:pipeline\.repository: .*OWNER/NAME"),
        ({"environments": []}, r"rates:pipeline\.environments: "),
        ({"environments": ["dev:ref:refs/heads/x"]}, r"rates:pipeline\.environments"),
        ({"stateKey": "alias/pulumi"}, r"rates:pipeline\.stateKey: .*Key of the secrets"),
    ],
)
def test_a_mistake_in_the_setting_is_named(change: dict[str, Any], message: str) -> None:
    with pytest.raises(StackSettingsError, match=message):
        rehearsed(**change)


def test_a_copy_has_no_workflows() -> None:
    config = {"rates:pipeline": json.dumps(PIPELINE), "rates:account": "123456789012"}
    with pytest.raises(StackSettingsError, match="pipeline: a developer's copy runs its environment's images"):
        load("dev-anna", config, ROOT)


@pytest.mark.parametrize("target", ["drift", "preview"])
def test_workflows_preview_a_stack_by_options_that_pulumi_has(target: str) -> None:
    recipe = subprocess.run(
        ["make", "--no-print-directory", "--dry-run", "--assume-old=.venv/.ready", target, "STACK=prod"],
        capture_output=True, text=True, check=True, cwd=ROOT,
    ).stdout  # fmt: skip
    (preview,) = [line for line in recipe.splitlines() if line.startswith("pulumi preview")]
    assert '--stack "prod"' in preview
    said = subprocess.run([program("pulumi"), "preview", "--help"], capture_output=True, text=True, check=True).stdout
    options = set(re.findall(r"--[a-z-]+", preview))
    assert ("--expect-no-changes" in options) == (target == "drift")
    assert "--show-secrets" not in options
    assert options <= {*re.findall(r"--[a-z-]+", said)}
