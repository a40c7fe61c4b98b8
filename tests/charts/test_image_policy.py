"""Where a signer is registered, the cluster admits the images that the release workflow signed, and no others."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

import pytest
import yaml

from release.signing import PROVENANCE
from tests.charts.rendering import (
    REQUIRED,
    ROOT,
    SIGNER,
    KubernetesManifest,
    RenderError,
    application_set,
    applications,
    cluster_secret,
    facts_of,
    fill,
    of_kind,
    pods,
    render,
    stack,
    synced,
    the,
)
from tests.charts.schemas import problems
from tests.charts.tools import module

TAGGED = f"{SIGNER['workflow']}@refs/tags/v1.2.0"


def policies(environment: str = "prod") -> list[KubernetesManifest]:
    """Return the policies of a stack's cluster."""
    application = applications(environment)["image-policy"]["spec"]
    return synced(application["source"], namespace=application["destination"]["namespace"])


def matching(image: str) -> list[str]:
    """Return the policies for an image, whose name policy-controller compares without the tag of a digest."""
    name = re.sub(r":[^/@]+@", "@", image)
    return [
        policy["metadata"]["name"]
        for policy in policies()
        if any(fnmatchcase(name, one["glob"]) for one in policy["spec"]["images"])
    ]


def test_policies_fit_the_definition_of_their_kind() -> None:
    for policy in [*policies(), *render("image-policy", REQUIRED["image-policy"], {"trustRoot": "private"})]:
        assert problems(policy, "1.34") == []
    (signed, _) = policies()
    signed["spec"]["authorities"][0]["keyless"]["identity"] = []
    assert len(problems(signed, "1.34")) == 1


def test_the_release_workflow_s_signature_and_provenance_are_needed() -> None:
    signed = the(policies(), "ClusterImagePolicy", "image-policy-signed")["spec"]
    assert signed["mode"] == "enforce"
    (authority,) = signed["authorities"]
    # What `cosign sign` and `cosign attest --type slsaprovenance1` store.
    assert PROVENANCE == "slsaprovenance1"
    assert [one["predicateType"] for one in authority["attestations"]] == [
        "https://sigstore.dev/cosign/sign/v1",
        "https://slsa.dev/provenance/v1",
    ]
    # The controller refuses bundles of an authority with a key.
    assert authority["signatureFormat"] == "bundle"
    assert "key" not in authority
    (identity,) = authority["keyless"]["identities"]
    assert identity["issuer"] == SIGNER["issuer"]
    assert SIGNER["workflow"].endswith(next((ROOT / ".github/workflows").glob("release.yaml")).name)
    assert re.search(identity["subjectRegExp"], TAGGED)
    for other in (
        TAGGED.replace("release.yaml", "preview.yaml"),
        TAGGED.replace("release.yaml", "releaseXyaml"),
        TAGGED.replace("tags/v1.2.0", "heads/main"),
        TAGGED.replace("v1.2.0", "v1.2.0-x"),
        TAGGED.replace("freight-rates/", "someone/", 1),
        f"https://evil.example/{TAGGED}",
    ):
        assert not re.search(identity["subjectRegExp"], other), other


def test_every_image_in_the_namespace_has_one_policy() -> None:
    images = {
        container["image"]
        for chart in ("rates-app", "spark-ingest", "monitoring")
        for template in pods(stack("prod", chart)).values()
        for container in template["spec"].get("containers", ())
        if "image" in container
    }
    images |= set(
        re.findall(
            r"image: (\S+)",
            the(stack("prod", "spark-ingest"), "ConfigMap", "rates-batch-template")["data"]["sparkapplication.yaml"],
        )
    )
    images |= {
        f"index.{name}" for name in re.findall(r"image=(docker\.io/\S+)", (ROOT / "runbooks/README.md").read_text())
    }
    assert len(images) >= 4
    registry = facts_of(cluster_secret("prod"))["registry"]
    for image in images:
        kind = "signed" if image.startswith(registry) else "unsigned"
        assert matching(image) == [f"image-policy-{kind}"], image
        assert matching(f"{image.partition('@')[0]}@sha256:{'0' * 64}") == [f"image-policy-{kind}"]
    assert matching(f"{registry}-of-another:1") == []
    assert matching("ghcr.io/evil/spark:1") == []


def test_the_namespace_is_selected_unless_the_brake_is_set() -> None:
    made = applications("prod")
    webhook = made["policy-controller"]["spec"]["source"]["helm"]["valuesObject"]["webhook"]
    include, brake = webhook["namespaceSelector"]["matchExpressions"]
    labels = made["rates-app"]["spec"]["syncPolicy"]["managedNamespaceMetadata"]["labels"]
    assert labels[include["key"]] in include["values"]
    assert brake == {"key": "rates.io/admit-unsigned", "operator": "DoesNotExist"}
    assert f"label namespace rates {brake['key']}=" in (ROOT / "runbooks/image-not-admitted.md").read_text()
    assert webhook["configData"] == {"no-match-policy": "deny"}
    # The controller's own label, which it selects by if nothing else is set.
    configured = (module("policy-controller") / "config/500-webhook-configuration.yaml").read_text()
    assert f"key: {include['key']}" in configured
    assert configured.count("failurePolicy: Fail") == 2


def test_the_image_is_pinned_by_its_digest_and_of_the_module_s_version() -> None:
    text = (ROOT / "helm/gitops/cluster/platform/policy-controller.yaml").read_text()
    webhook = applications("prod")["policy-controller"]["spec"]["source"]["helm"]["valuesObject"]["webhook"]
    assert re.fullmatch("sha256:[0-9a-f]{64}", webhook["image"]["version"])
    assert f"policy-controller {module('policy-controller').name.rpartition('@v')[2]}" in text


def test_what_the_controller_writes_is_not_reverted() -> None:
    ignored = applications("prod")["policy-controller"]["spec"]["ignoreDifferences"]
    kinds = {
        one["kind"]
        for path in (module("policy-controller") / "config").glob("50*-*.yaml")
        for one in yaml.safe_load_all(path.read_text())
        if one and one["kind"].endswith("Configuration")
    }
    assert kinds < {one["kind"] for one in ignored}
    options = applications("prod")["spark-ingest"]["metadata"]["annotations"]["argocd.argoproj.io/compare-options"]
    assert options == "ServerSideDiff=true,IncludeMutationWebhook=true"


@pytest.mark.parametrize("environment", ["dev", "staging"])
def test_other_stacks_admit_unsigned_images(environment: str) -> None:
    made = applications(environment)
    assert not {"policy-controller", "image-policy"} & made.keys()
    labels = made["rates-app"]["spec"]["syncPolicy"]["managedNamespaceMetadata"]["labels"]
    assert "policy.sigstore.dev/include" not in labels


@pytest.mark.parametrize(
    ("signer", "message"),
    [
        ({"workflow": SIGNER["workflow"]}, "/cluster/signer"),
        ({**SIGNER, "mode": "audit"}, "value must be one of 'enforce', 'warn'"),
    ],
)
def test_an_incomplete_signer_is_refused(signer: dict[str, str], message: str) -> None:
    filled = fill(application_set("clusters")["spec"]["template"], cluster_secret("prod", signer=signer))
    with pytest.raises(RenderError, match=message):
        synced(filled["spec"]["source"], namespace="argocd")


def test_a_workflow_with_a_ref_is_refused() -> None:
    with pytest.raises(RenderError, match="/signer/workflow"):
        render("image-policy", REQUIRED["image-policy"], {"signer": {"workflow": TAGGED}})
    assert of_kind(render("image-policy", REQUIRED["image-policy"]), "ClusterImagePolicy")
