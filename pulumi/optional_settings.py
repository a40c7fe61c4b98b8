"""Settings of what a stack has only if they are set: roles of workflows, the signer of images, the probe."""

from __future__ import annotations

from datetime import date
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints
from pydantic.alias_generators import to_camel

KeyArn = Annotated[str, StringConstraints(pattern=r"^arn:aws:kms:[a-z0-9-]+:\d{12}:key/\S+$")]
ProviderArn = Annotated[str, StringConstraints(pattern=r"^arn:aws:iam::\d{12}:oidc-provider/\S+$")]
WorkflowUrl = Annotated[str, StringConstraints(pattern=r"^https://[^@\s]+/\.github/workflows/[\w.-]+\.ya?ml$")]
GithubName = Annotated[str, StringConstraints(pattern=r"^[\w.-]+/[\w.-]+$")]
Https = Annotated[str, StringConstraints(pattern=r"^https://\S+$")]
# A colon would let the name of an environment continue as another claim of the token's subject.
ClaimName = Annotated[str, StringConstraints(pattern=r"^[\w./-]+$")]
PortCode = Annotated[str, StringConstraints(pattern=r"^[A-Z]{2}[A-Z2-9]{3}$")]


class SettingsModel(BaseModel):
    """Settings under their names in camel case, and no others."""

    model_config = ConfigDict(extra="forbid", frozen=True, alias_generator=to_camel)


class PipelineSettings(SettingsModel):
    """Roles of the workflows on GitHub."""

    repository: GithubName = Field(description="Repository whose workflows get roles, as OWNER/NAME.")
    branch: ClaimName = Field(default="main", description="Branch whose workflows may read the stack.")
    environments: tuple[ClaimName, ...] = Field(min_length=1, description="Environments whose jobs may push images.")
    preview_environments: tuple[ClaimName, ...] = Field(default=(), description="Environments whose jobs may read.")
    provider: ProviderArn | None = Field(
        default=None, description="The account's identity provider for GitHub, if another stack has created it."
    )
    state_bucket: Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{3,63}$")] = Field(
        description="Bucket of Pulumi's state."
    )
    state_key: KeyArn = Field(description="Key of the secrets in that state.")


class SignerSettings(SettingsModel):
    """Whose signature an image needs to run."""

    workflow: WorkflowUrl = Field(description="Workflow that signs releases, by its address without a ref.")
    issuer: Https = Field(default="https://token.actions.githubusercontent.com", description="Issuer of its tokens.")
    mode: Literal["enforce", "warn"] = Field(default="enforce", description="Refuse other images, or warn about them.")


class ProbeSettings(SettingsModel):
    """A question with a known answer, which a function asks the public address each minute."""

    origin: PortCode = Field(description="Port of origin.")
    destination: PortCode = Field(description="Port of destination.")
    day: date = Field(description="Day with at least three prices, which no batch changes any more.")
    average: float = Field(gt=0, description="Average price of the day in USD.")
    token_secret: str | None = Field(
        default=None,
        description="Secret in Secrets Manager with the token of a test supplier. None: no test batch is delivered.",
    )
