"""The GitOps tree creates the expected Applications for the clusters that Pulumi registers."""

from __future__ import annotations

import json
import re

import pytest
import yaml

from .projects import permits
from .rendering import (
    IMAGE,
    ROOT,
    STACKS,
    KubernetesManifest,
    RenderError,
    application_set,
    applications,
    cluster_application,
    cluster_secret,
    facts_of,
    fill,
    gitops_tree,
    of_kind,
    preview,
    preview_environment,
    stack,
    synced,
    the,
)
from .schemas import problems

CHARTS = ("rates-app", "spark-ingest", "monitoring")
EVERYWHERE = {"external-secrets", "kube-prometheus-stack", "argo-rollouts", "prometheus-adapter"}
FIRST = {"cluster-autoscaler", "storage"}
PLATFORM = EVERYWHERE | FIRST | {"aws-load-balancer-controller"}
# Where a signer is registered, images without its signature do not run.
VERIFYING = {"policy-controller", "image-policy"}
# Cluster-scoped kinds that we sync.
CLUSTER_WIDE = {
    "ClusterRole": "rbac.authorization.k8s.io",
    "ClusterRoleBinding": "rbac.authorization.k8s.io",
    "CustomResourceDefinition": "apiextensions.k8s.io",
    "MutatingWebhookConfiguration": "admissionregistration.k8s.io",
    "Namespace": "",
    "PriorityClass": "scheduling.k8s.io",
    "ValidatingAdmissionPolicy": "admissionregistration.k8s.io",
    "ValidatingAdmissionPolicyBinding": "admissionregistration.k8s.io",
    "ValidatingWebhookConfiguration": "admissionregistration.k8s.io",
}


def project(name: str) -> KubernetesManifest:
    spec: KubernetesManifest = the(gitops_tree(), "AppProject", name)["spec"]
    return spec


def wave(application: KubernetesManifest) -> int:
    return int(application["metadata"]["annotations"]["argocd.argoproj.io/sync-wave"])


def test_root_application_fits_its_schema_and_names_the_chart() -> None:
    root = yaml.safe_load((ROOT / "helm/gitops/root-application.yaml").read_text())
    assert problems(root, "1.34") == []
    assert (ROOT / root["spec"]["source"]["path"] / "Chart.yaml").exists()
    assert synced(root["spec"]["source"], namespace="argocd")


def test_clusters_reads_exactly_what_pulumi_registers() -> None:
    text = json.dumps(application_set("clusters")["spec"]["template"]).replace('\\"', '"')
    secret = cluster_secret("prod")["metadata"]
    assert set(re.findall(r'\.metadata\.annotations "(rates\.io/[a-z-]+)"', text)) == set(secret["annotations"])
    labels = {label for label in secret["labels"] if label.startswith("rates.io/")}
    assert set(re.findall(r'\.metadata\.labels "(rates\.io/[a-z-]+)"', text)) == labels


@pytest.mark.parametrize("environment", STACKS)
def test_cluster_gets_the_platform_and_our_charts(environment: str) -> None:
    verifying = VERIFYING if environment == "prod" else set()
    assert applications(environment).keys() == PLATFORM | verifying | set(CHARTS)


def test_cluster_outside_aws_gets_no_aws_and_brings_its_own_secret() -> None:
    secret = cluster_secret("dev")
    facts = facts_of(secret)
    needed = {key: facts[key] for key in ("name", "registry")}
    secret["metadata"]["annotations"] = {"rates.io/facts": json.dumps(needed)}
    filled = fill(application_set("clusters")["spec"]["template"], secret)
    made = {
        one["metadata"]["name"].removeprefix("rates-dev-blue-"): one
        for one in synced(filled["spec"]["source"], namespace="argocd")
    }
    assert made.keys() == EVERYWHERE | {"metrics-server"} | set(CHARTS)
    manifests = synced(made["rates-app"]["spec"]["source"], IMAGE, namespace="rates")
    assert of_kind(manifests, "ExternalSecret", "TargetGroupBinding") == []
    watching = synced(made["monitoring"]["spec"]["source"], IMAGE, namespace="rates")
    assert of_kind(watching, "ExternalSecret") == []
    assert "sns_configs" not in yaml.safe_dump(made["kube-prometheus-stack"])


def test_existing_add_ons_of_a_cluster_are_omitted() -> None:
    def made(provided: str) -> set[str]:
        secret = cluster_secret("dev", providedAddons=provided)
        filled = fill(application_set("clusters")["spec"]["template"], secret)
        return {
            one["metadata"]["name"].removeprefix("rates-dev-blue-")
            for one in synced(filled["spec"]["source"], namespace="argocd")
        }

    assert made("argo-rollouts kube-prometheus-stack") == made("") - {"argo-rollouts", "kube-prometheus-stack"}
    with pytest.raises(RenderError, match="there is no add-on prometheus; see the files in platform/"):
        made("prometheus")


def test_standby_neither_migrates_nor_ingests() -> None:
    filled = fill(application_set("clusters")["spec"]["template"], cluster_secret("prod", standby="true"))
    made = synced(filled["spec"]["source"], namespace="argocd")
    ours = {one["metadata"]["name"].removeprefix("rates-prod-blue-"): one["spec"]["source"] for one in made}
    assert ours.keys() == PLATFORM | VERIFYING | set(CHARTS)
    ingest = synced(ours["spark-ingest"], IMAGE, namespace="rates")
    assert the(ingest, "Deployment", "rates-dispatcher")["spec"]["replicas"] == 0
    assert the(ingest, "CronJob")["spec"]["suspend"] is True
    assert of_kind(synced(ours["rates-app"], IMAGE, namespace="rates"), "Job") == []
    rules = of_kind(synced(ours["monitoring"], IMAGE, namespace="rates"), "PrometheusRule")
    assert {one["metadata"]["name"] for one in rules} == {"rates-service", "rates-stores", "rates-platform"}


@pytest.mark.parametrize("fact", ["notifySecret", "vpcId", "targetGroupArn", "incomingQueueUrl"])
def test_a_missing_fact_is_named_in_aws(fact: str) -> None:
    filled = fill(application_set("clusters")["spec"]["template"], cluster_secret("prod", **{fact: ""}))
    with pytest.raises(RenderError, match=fact):
        synced(filled["spec"]["source"], namespace="argocd")


@pytest.mark.parametrize("environment", STACKS)
def test_every_application_is_permitted_by_a_project_that_exists(environment: str) -> None:
    for application in [cluster_application(environment), *applications(environment).values()]:
        assert permits(project(application["spec"]["project"]), application), application["metadata"]["name"]


def test_projects_keep_applications_apart() -> None:
    elsewhere = {**applications("prod")["rates-app"]}
    assert not permits(project("platform"), elsewhere)
    assert not permits(project("preview-environments"), elsewhere)
    assert not permits(project("rates-prod"), applications("prod")["argo-rollouts"])
    assert "*" not in {repo for one in of_kind(gitops_tree(), "AppProject") for repo in one["spec"]["sourceRepos"]}


@pytest.mark.parametrize("chart", CHARTS)
def test_projects_permit_the_kinds_that_our_charts_make_and_no_wildcard(chart: str) -> None:
    allowed = {(one["group"], one["kind"]) for one in project("rates-prod")["clusterResourceWhitelist"]}
    made = {(CLUSTER_WIDE[one["kind"]], one["kind"]) for one in stack("prod", chart) if one["kind"] in CLUSTER_WIDE}
    assert made <= allowed
    assert ("*", "*") not in allowed


def test_projects_are_created_before_their_applications() -> None:
    waves = {
        kind: {int(one["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0)) for one in found}
        for kind in ("AppProject", "ApplicationSet")
        if (found := list(of_kind(gitops_tree(), kind)))
    }
    assert max(waves["AppProject"]) < min(waves["ApplicationSet"])


@pytest.mark.parametrize("environment", STACKS)
def test_waves_start_an_empty_cluster_in_order(environment: str) -> None:
    made = {name: wave(one) for name, one in applications(environment).items()}
    # Claims need a class, and any pod may need another node.
    assert max(made[name] for name in FIRST) < made["external-secrets"] < made["kube-prometheus-stack"]
    others = PLATFORM - FIRST - {"external-secrets", "kube-prometheus-stack"}
    assert all(made["kube-prometheus-stack"] < made[name] < made["rates-app"] for name in others)
    assert made["rates-app"] < made["spark-ingest"] == made["monitoring"]


@pytest.mark.parametrize("environment", STACKS)
def test_every_application_prunes_heals_and_retries(environment: str) -> None:
    previews = (preview_environment()[0], preview()[0])
    for application in [cluster_application(environment), *applications(environment).values(), *previews]:
        policy = application["spec"]["syncPolicy"]
        assert policy["automated"] == {"prune": True, "selfHeal": True}
        assert policy["retry"]["backoff"]["duration"]
        # Without a limit, a failing sync would never move on to a fix or a revert.
        assert 0 < policy["retry"]["limit"] <= 10


@pytest.mark.parametrize("environment", STACKS)
def test_defaults_of_the_cluster_are_no_differences(environment: str) -> None:
    """A definition adds defaults to an ExternalSecret, so Argo CD would never find it synced."""
    for name, application in applications(environment).items():
        options = application["metadata"]["annotations"]["argocd.argoproj.io/compare-options"]
        assert "ServerSideDiff=true" in options.split(","), name


@pytest.mark.parametrize("environment", STACKS)
def test_deleting_an_application_of_a_cluster_deletes_nothing_that_runs(environment: str) -> None:
    assert application_set("clusters")["spec"]["syncPolicy"]["preserveResourcesOnDeletion"] is True
    for application in [cluster_application(environment), *applications(environment).values()]:
        assert "finalizers" not in application["metadata"]


@pytest.mark.parametrize("environment", STACKS)
def test_fields_of_other_controllers_are_not_reverted(environment: str) -> None:
    spec = applications(environment)["rates-app"]["spec"]
    assert "RespectIgnoreDifferences=true" in spec["syncPolicy"]["syncOptions"]
    ignored = {one["kind"]: one for one in spec["ignoreDifferences"]}
    manifests = stack(environment, "rates-app")
    kind = the(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]["kind"]
    assert ignored[kind]["jsonPointers"] == ["/spec/replicas"]
    webhooks = {one["kind"] for one in applications(environment)["spark-ingest"]["spec"]["ignoreDifferences"]}
    assert webhooks == {
        one["kind"] for one in stack(environment, "spark-ingest") if one["kind"].endswith("WebhookConfiguration")
    }


def test_argo_cd_syncs_at_any_hour() -> None:
    """promote.py limits releases to prod to working hours. Syncs are not limited."""
    assert all("syncWindows" not in one["spec"] for one in of_kind(gitops_tree(), "AppProject"))


def the_class() -> KubernetesManifest:
    """Return the default StorageClass."""
    (path,) = (ROOT / "helm/gitops/storage").iterdir()
    manifest: KubernetesManifest = yaml.safe_load(path.read_text())
    assert manifest["metadata"]["annotations"] == {"storageclass.kubernetes.io/is-default-class": "true"}
    return manifest


@pytest.mark.parametrize("environment", STACKS)
def test_add_ons_are_pinned_and_limited(environment: str) -> None:
    assert the_class()["parameters"]["encrypted"] == "true"
    for name in PLATFORM - {"storage"}:
        source = applications(environment)[name]["spec"]["source"]
        assert re.fullmatch(r"\d+\.\d+\.\d+", source["targetRevision"]), name
        assert "limits" in yaml.safe_dump(source["helm"]["valuesObject"]), name


def test_add_ons_know_their_cluster() -> None:
    made = {
        name: one["spec"]["source"].get("helm", {}).get("valuesObject") for name, one in applications("prod").items()
    }
    facts = facts_of(cluster_secret("prod"))
    balancer = made["aws-load-balancer-controller"]
    assert (balancer["clusterName"], balancer["vpcId"]) == (facts["name"], facts["vpcId"])
    assert made["cluster-autoscaler"]["autoDiscovery"]["clusterName"] == facts["name"]


def test_custom_metric_of_the_autoscaler_is_the_adapters() -> None:
    rules = applications("prod")["prometheus-adapter"]["spec"]["source"]["helm"]["valuesObject"]["rules"]["custom"]
    metrics = the(stack("prod", "rates-app"), "HorizontalPodAutoscaler")["spec"]["metrics"]
    wanted = {metric["pods"]["metric"]["name"] for metric in metrics if metric["type"] == "Pods"}
    assert wanted == {rule["name"]["as"] for rule in rules}


@pytest.mark.parametrize("environment", STACKS)
def test_registered_facts_reach_the_charts(environment: str) -> None:
    facts = facts_of(cluster_secret(environment))
    manifests = stack(environment, "rates-app")
    assert the(manifests, "TargetGroupBinding")["spec"]["targetGroupARN"] == facts["targetGroupArn"]
    watching = stack(environment, "monitoring")
    assert of_kind(watching, "ExternalSecret") == []
    alerting = applications(environment)["kube-prometheus-stack"]["spec"]["source"]["helm"]["valuesObject"]
    assert [one["spec"]["dataFrom"] for one in alerting["extraManifests"] if "extract" in str(one)] == [
        [{"extract": {"key": facts["notifySecret"]}}]
    ]
    replicas = alerting["alertmanager"]["alertmanagerSpec"]["replicas"]
    (container,) = the(watching, "Deployment", "rates-watcher")["spec"]["template"]["spec"]["containers"]
    (urls,) = [one["value"] for one in container["env"] if one["name"] == "RATES_NOTIFY_ALERTMANAGER_URLS"]
    # A pod of the StatefulSet that the operator creates, by its governing Service.
    assert urls.split(",") == [
        f"http://alertmanager-kube-prometheus-stack-alertmanager-{number}.alertmanager-operated.monitoring.svc:9093"
        for number in range(replicas)
    ]
    ingest = yaml.safe_dump(stack(environment, "spark-ingest"), width=1000)
    for fact in ("incomingQueueUrl", "incomingBucket", "processedBucket", "rejectedBucket", "registry"):
        assert facts[fact] in ingest, fact
    for rendered in (yaml.safe_dump(manifests, width=1000), ingest):
        for name in ("AWS_REGION", "AWS_DEFAULT_REGION"):  # read by Arrow, and by boto3
            assert f"name: {name}\n" in rendered


def test_values_of_stacks_do_not_repeat_registered_facts() -> None:
    for path in (ROOT / "helm/gitops").glob("s*/*/*.yaml"):
        text = path.read_text()
        assert not re.search(r"arn:|amazonaws|[a-z]{2}-[a-z]+-\d\b", text), path


def test_values_of_stacks_and_sizes_are_all_used() -> None:
    used = {
        file
        for environment in STACKS
        for chart in CHARTS
        for file in applications(environment)[chart]["spec"]["source"]["helm"]["valueFiles"]
    } | set(preview()[0]["spec"]["source"]["helm"]["valueFiles"])
    assert used == {f"/{path.relative_to(ROOT)}" for path in (ROOT / "helm/gitops").glob("s*/*/*.yaml")}


@pytest.mark.parametrize("environment", STACKS)
def test_application_without_a_released_image_is_refused(environment: str) -> None:
    source = applications(environment)["rates-app"]["spec"]["source"]
    with pytest.raises(RenderError, match="no image was released to this stack yet"):
        synced(source, {"image": {"digest": ""}}, namespace="rates")


def test_argo_cd_has_requests_and_a_priority() -> None:
    values = yaml.safe_load((ROOT / "helm/gitops/argocd-values.yaml").read_text())
    for part in ("controller", "applicationSet", "repoServer", "server", "redis"):
        assert values[part]["resources"]["requests"].keys() >= {"cpu", "memory"}, part
        assert values[part]["resources"]["limits"].keys() >= {"cpu", "memory"}, part
    assert not values["dex"]["enabled"]
    assert not values["notifications"]["enabled"]
    assert values["global"]["priorityClassName"] == "system-cluster-critical"


def test_nodes_with_temporary_volumes_are_removed_when_idle() -> None:
    (container,) = the(stack("prod", "rates-app"), "Rollout")["spec"]["template"]["spec"]["containers"]
    assert "tmp" in {mount["name"] for mount in container["volumeMounts"]}
    arguments = applications("prod")["cluster-autoscaler"]["spec"]["source"]["helm"]["valuesObject"]["extraArgs"]
    assert arguments["skip-nodes-with-local-storage"] is False
    assert arguments["skip-nodes-with-system-pods"] is False


def test_new_services_do_not_depend_on_the_load_balancer_controller() -> None:
    spec = applications("prod")["aws-load-balancer-controller"]["spec"]
    values = spec["source"]["helm"]["valuesObject"]
    assert values["enableServiceMutatorWebhook"] is False
    # Each sync renders another certificate. Secret and webhooks keep the first one.
    assert values["keepTLSSecret"] is True
    assert "RespectIgnoreDifferences=true" in spec["syncPolicy"]["syncOptions"]
    ignored = {one["kind"]: one.get("jsonPointers") or one["jqPathExpressions"] for one in spec["ignoreDifferences"]}
    authority = [".webhooks[]?.clientConfig.caBundle"]
    assert ignored == {
        "Secret": ["/data"],
        "MutatingWebhookConfiguration": authority,
        "ValidatingWebhookConfiguration": authority,
    }


def test_the_password_of_grafana_is_filled_in_by_the_operator() -> None:
    """The chart renders the manifest as a template first, and the operator of the secrets after that."""
    values = applications("prod")["kube-prometheus-stack"]["spec"]["source"]["helm"]["valuesObject"]
    secret = next(one for one in values["extraManifests"] if "grafana-admin" in str(one) and "target" in one["spec"])
    by_the_chart = fill(secret["spec"]["target"]["template"]["data"], {})
    assert fill(by_the_chart, {"password": "word"}) == {"user": "admin", "password": "word"}


def test_argo_cd_is_installed_with_the_settings_of_the_tree() -> None:
    values = yaml.safe_load((ROOT / "helm/gitops/argocd-values.yaml").read_text())
    assert "health.argoproj.io_Application" in "".join(values["configs"]["cm"])
    assert values["configs"]["cm"]["application.resourceTrackingMethod"] == "annotation"
    assert values["notifications"]["enabled"] is False
