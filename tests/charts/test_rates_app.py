"""The chart rates-app: shutdown, scaling, strategies, order."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest
import yaml
from werkzeug.sansio.utils import host_is_trusted

from rates_app.settings import Settings

from .rendering import (
    REQUIRED,
    ROOT,
    STACKS,
    STRATEGIES,
    KubernetesManifest,
    of_kind,
    render,
    stack,
    strategy,
    the,
    whole_preview,
)

WORKLOADS = ("Deployment", "Rollout")


def workload(manifests: list[KubernetesManifest]) -> KubernetesManifest:
    (found,) = of_kind(manifests, *WORKLOADS)
    return found


def environment_of(manifests: list[KubernetesManifest]) -> dict[str, str]:
    (container,) = workload(manifests)["spec"]["template"]["spec"]["containers"]
    return {variable["name"]: variable["value"] for variable in container["env"]}


@pytest.mark.parametrize(
    "shutdown",
    [{}, {"drainSeconds": 0, "graceSeconds": 1}, {"drainSeconds": 40, "graceSeconds": 120}],
)
def test_the_grace_period_exceeds_the_shutdown_of_a_pod(shutdown: dict[str, int]) -> None:
    manifests = render(
        "rates-app",
        REQUIRED["rates-app"],
        {"shutdown": shutdown, "ingress": {"enabled": True, "host": "rates.example.com"}},
    )
    spec = workload(manifests)["spec"]["template"]["spec"]
    assert "lifecycle" not in spec["containers"][0], "the process drains; a sleeping hook would delay it"
    variables = environment_of(manifests)
    drain, grace = float(variables["RATES_DRAIN_SECONDS"]), float(variables["RATES_GRACE_SECONDS"])
    assert spec["terminationGracePeriodSeconds"] >= drain + grace + 10
    attributes = the(manifests, "Ingress")["metadata"]["annotations"][
        "alb.ingress.kubernetes.io/target-group-attributes"
    ]
    assert f"deregistration_delay.timeout_seconds={int(drain + grace)}," in attributes


@pytest.mark.parametrize("name", STRATEGIES)
def test_strategy_makes_one_workload_that_the_autoscaler_owns(name: str) -> None:
    manifests = strategy(name)
    made = workload(manifests)
    assert made["kind"] == ("Deployment" if name == "rolling" else "Rollout")
    assert "replicas" not in made["spec"]
    target = the(manifests, "HorizontalPodAutoscaler")["spec"]["scaleTargetRef"]
    assert target == {"apiVersion": made["apiVersion"], "kind": made["kind"], "name": made["metadata"]["name"]}


def test_replicas_are_set_without_the_autoscaler() -> None:
    manifests = render("rates-app", REQUIRED["rates-app"], {"autoscaling": {"enabled": False}, "replicas": 5})
    assert workload(manifests)["spec"]["replicas"] == 5
    assert of_kind(manifests, "HorizontalPodAutoscaler") == []


@pytest.mark.parametrize("name", ["rolling", "canary"])
def test_no_update_reduces_capacity(name: str) -> None:
    spec = workload(strategy(name))["spec"]["strategy"]
    update = spec["rollingUpdate"] if name == "rolling" else spec["canary"]
    assert update["maxUnavailable"] == 0


def test_canary_sets_weights_and_is_analysed() -> None:
    manifests = strategy("canary")
    canary = workload(manifests)["spec"]["strategy"]["canary"]
    services = {service["metadata"]["name"] for service in of_kind(manifests, "Service")}
    assert {canary["stableService"], canary["canaryService"]} <= services
    ingress = the(manifests, "Ingress")
    assert canary["trafficRouting"]["alb"]["ingress"] == ingress["metadata"]["name"]
    backend = ingress["spec"]["rules"][0]["http"]["paths"][0]["backend"]["service"]
    assert backend == {"name": canary["stableService"], "port": {"name": "use-annotation"}}
    weights = [step["setWeight"] for step in canary["steps"] if "setWeight" in step]
    assert weights == sorted(weights)
    templates = {one["metadata"]["name"]: one for one in of_kind(manifests, "AnalysisTemplate")}
    measured = [templates[one["templateName"]] for one in canary["analysis"]["templates"]]
    metrics = {metric["name"] for one in measured for metric in one["spec"]["metrics"]}
    assert metrics == {"error-ratio", "latency-p95", "generations-behind"}


def test_canary_without_a_load_balancer_uses_pod_counts() -> None:
    manifests = render("rates-app", REQUIRED["rates-app"], {"strategy": {"type": "canary"}})
    assert not {"trafficRouting", "canaryService"} & workload(manifests)["spec"]["strategy"]["canary"].keys()
    assert {one["metadata"]["name"] for one in of_kind(manifests, "Service")} == {"rates-app", "rates-app-metrics"}


def test_blue_green_queries_a_rate_before_and_is_analysed_after() -> None:
    manifests = strategy("blueGreen")
    update = workload(manifests)["spec"]["strategy"]["blueGreen"]
    services = {service["metadata"]["name"] for service in of_kind(manifests, "Service")}
    assert {update["activeService"], update["previewService"]} <= services
    names = {one["metadata"]["name"] for one in of_kind(manifests, "AnalysisTemplate")}
    used = [
        one["templateName"]
        for when in ("prePromotionAnalysis", "postPromotionAnalysis")
        for one in update[when]["templates"]
    ]
    assert set(used) == names
    smoke = the(manifests, "AnalysisTemplate", "rates-app-smoke")["spec"]["metrics"][0]["provider"]["job"]["spec"]
    variables = {one["name"]: one["value"] for one in smoke["template"]["spec"]["containers"][0]["env"]}
    assert variables["SERVICE"] == update["previewService"]
    for template in of_kind(manifests, "AnalysisTemplate"):
        # Without a count, neither the measurement nor the promotion would end.
        assert all("count" in metric or "job" in metric["provider"] for metric in template["spec"]["metrics"])


def wave(manifest: KubernetesManifest) -> int:
    return int(manifest["metadata"].get("annotations", {}).get("argocd.argoproj.io/sync-wave", 0))


@pytest.mark.parametrize("environment", [*STACKS, "preview"])
def test_argo_cd_migrates_after_the_secret_and_before_the_pods(environment: str) -> None:
    manifests = whole_preview() if environment == "preview" else stack(environment, "rates-app")
    migration = the(manifests, "Job", "rates-app-migrate")
    assert migration["metadata"]["annotations"]["argocd.argoproj.io/hook"] == "Sync"
    needed = of_kind(
        manifests, "ExternalSecret", "SecretStore", "NetworkPolicy", "ServiceAccount", "PriorityClass", "StatefulSet"
    )
    assert (
        max(wave(one) for one in needed)
        < wave(migration)
        < wave(
            the(
                manifests,
                workload([one for one in manifests if one["metadata"]["name"] == "rates-app"])["kind"],
                "rates-app",
            )
        )
    )


@pytest.mark.parametrize("environment", STACKS)
def test_servers_and_the_migration_have_requests_and_the_services_priority(environment: str) -> None:
    manifests = stack(environment, "rates-app")
    (name,) = [one["metadata"]["name"] for one in of_kind(manifests, "PriorityClass")]
    for owner in (workload(manifests), the(manifests, "Job", "rates-app-migrate")):
        spec = owner["spec"]["template"]["spec"]
        assert spec["priorityClassName"] == name
        assert all(one["resources"]["requests"].keys() >= {"cpu", "memory"} for one in spec["containers"])


def test_migration_is_one_pod_of_a_fixed_name() -> None:
    job = the(stack("prod", "rates-app"), "Job")
    assert job["spec"]["parallelism"] == job["spec"]["completions"] == 1
    assert job["metadata"]["annotations"]["argocd.argoproj.io/hook-delete-policy"] == "BeforeHookCreation"
    assert job["spec"]["template"]["spec"]["containers"][0]["args"] == ["migrate"]


@pytest.mark.parametrize(("existing", "hook"), [("", "post-install,pre-upgrade"), ("mine", "pre-install,pre-upgrade")])
def test_helm_migrates_before_a_release_that_finds_its_secret(existing: str, hook: str) -> None:
    manifests = render("rates-app", REQUIRED["rates-app"], {"secrets": {"existing": existing}})
    assert the(manifests, "Job")["metadata"]["annotations"]["helm.sh/hook"] == hook
    assert bool(of_kind(manifests, "ExternalSecret")) is not bool(existing)


def test_pods_of_jobs_get_no_traffic() -> None:
    manifests = stack("prod", "rates-app")
    selector = the(manifests, "Service", "rates-app")["spec"]["selector"]
    labels = the(manifests, "Job")["spec"]["template"]["metadata"]["labels"]
    assert not selector.items() <= labels.items()


def test_autoscaler_scales_up_immediately_and_down_slowly() -> None:
    for environment in STACKS:
        spec = the(stack(environment, "rates-app"), "HorizontalPodAutoscaler")["spec"]
        assert spec["minReplicas"] >= 2
        up, down = spec["behavior"]["scaleUp"], spec["behavior"]["scaleDown"]
        assert up["stabilizationWindowSeconds"] == 0
        assert max(policy["value"] for policy in up["policies"] if policy["type"] == "Percent") >= 100
        assert down["stabilizationWindowSeconds"] >= 300
        assert {metric["type"] for metric in spec["metrics"]} == {"Resource", "Pods"}


@pytest.mark.parametrize("chart", ["rates-app", "spark-ingest"])
def test_settings_of_the_schema_are_settings_of_the_application(chart: str) -> None:
    schema = json.loads((ROOT / "helm" / chart / "values.schema.json").read_text())
    assert schema["properties"]["settings"]["properties"].keys() <= Settings.model_fields.keys()


@pytest.mark.parametrize(
    ("chart", "first", "beyond"),
    [("spark-ingest", "max_upload_bytes", "spark_above_rows"), ("rates-app", "daily_deliveries", "max_rejects")],
)
def test_the_settings_of_batches_are_values_of_the_charts(chart: str, first: str, beyond: str) -> None:
    given = {"data_dir", "incoming_queue_url", "incoming_bucket", "processed_bucket", "rejected_bucket"}
    given |= {"spark_template", "spark_above_rows"}  # by other values
    names = list(Settings.model_fields)
    plausibility = names[names.index("max_days_ahead") :] if chart == "spark-ingest" else ["public_batches"]
    wanted = {*names[names.index(first) : names.index(beyond)], *plausibility} - given
    schema = json.loads((ROOT / "helm" / chart / "values.schema.json").read_text())
    assert wanted <= schema["properties"]["settings"]["properties"].keys()


@pytest.mark.parametrize("chart", ["rates-app", "spark-ingest"])
def test_one_setting_enables_traces_and_permits_their_traffic(chart: str) -> None:
    on = {"settings": {"traces_url": "http://collector.tracing:4318"}}
    for values, there in (({}, False), (on, True)):
        text = yaml.safe_dump_all(render(chart, REQUIRED[chart], values), width=1000)
        assert ("http://collector.tracing:4318" in text) is there
        policies = of_kind(render(chart, REQUIRED[chart], values), "NetworkPolicy")
        opened = [rule for policy in policies for rule in policy["spec"]["egress"] if "4318" in str(rule)]
        assert len(opened) == there


@pytest.mark.parametrize("environment", STACKS)
def test_environment_is_valid_for_the_application(environment: str) -> None:
    """The application's settings accept every value of the chart's environment."""
    variables = environment_of(stack(environment, "rates-app"))
    own = {
        name.removeprefix("RATES_").lower(): value
        for name, value in variables.items()
        if name.removeprefix("RATES_").lower() in Settings.model_fields
    }
    settings = Settings(database_url="postgresql://u:p@h/d", **own)  # type: ignore[arg-type]  # as text, as in a pod
    assert settings.environment == environment
    assert settings.trusted_proxies == 1
    assert settings.require_https is True
    assert settings.data_dir.is_relative_to("/tmp")


def test_a_setting_wins_over_what_the_ingress_implies() -> None:
    manifests = render(
        "rates-app",
        REQUIRED["rates-app"],
        {"ingress": {"enabled": True, "host": "rates.example.com"}, "settings": {"trusted_proxies": 0}},
    )
    assert environment_of(manifests)["RATES_TRUSTED_PROXIES"] == "0"


GATEWAY = {"gateway": {"enabled": True, "name": "public", "host": "rates.example.com"}}
INGRESS = {"ingress": {"enabled": True, "host": "rates.example.com"}}
TARGETS = {"targetGroup": {"arn": "arn:aws:elasticloadbalancing:x"}, "hosts": ["a.example.com"]}


def is_refused(manifests: list[KubernetesManifest], host: str) -> bool:
    """Return whether the service, with the chart's settings, refuses a request because of its host."""
    own = {"allowed_hosts": environment_of(manifests)["RATES_ALLOWED_HOSTS"]}
    settings = Settings.model_validate({"database_url": "postgresql://rates:x@127.0.0.1:1/none", **own})
    return not host_is_trusted(host, settings.allowed_hosts)


@pytest.mark.parametrize(
    ("values", "hosts"),
    [
        (INGRESS, ["rates.example.com"]),
        (GATEWAY, ["rates.example.com"]),
        ({"hosts": ["a.example.com", ".b.example.com"]}, ["a.example.com", "x.b.example.com"]),
        (INGRESS | {"strategy": {"type": "blueGreen"}}, ["rates-app-preview", "rates-app-preview.rates.svc"]),
        (INGRESS | {"strategy": {"type": "canary"}}, ["rates-app-canary.rates"]),
    ],
)
def test_only_the_names_of_a_release_are_accepted_as_hosts(values: KubernetesManifest, hosts: list[str]) -> None:
    manifests = render("rates-app", REQUIRED["rates-app"], values)
    in_cluster = ["rates-app", "rates-app:80", "rates-app.rates", "rates-app.rates.svc.cluster.local"]
    forwarded = ["localhost:8080", "127.0.0.1:8080"]
    for host in (*hosts, *in_cluster, *forwarded):
        assert not is_refused(manifests, host), host
    for host in ("evil.com", "rates.example.com.evil.com", "rates-app.evil", "10.0.0.7:8080"):
        assert is_refused(manifests, host), host


def test_probes_need_no_host() -> None:
    """The kubelet and load balancers send a pod's address as Host, to the port that checks no host."""
    (container,) = workload(strategy("canary"))["spec"]["template"]["spec"]["containers"]
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        assert container[probe]["httpGet"]["port"] == "operations"
    annotations = the(strategy("canary"), "Ingress")["metadata"]["annotations"]
    assert annotations["alb.ingress.kubernetes.io/healthcheck-port"] == "8081"


@pytest.mark.parametrize("values", [INGRESS, GATEWAY, TARGETS])
def test_a_load_balancer_is_one_trusted_proxy(values: KubernetesManifest) -> None:
    assert environment_of(render("rates-app", REQUIRED["rates-app"], values))["RATES_TRUSTED_PROXIES"] == "1"


class CannedServer(BaseHTTPRequestHandler):
    """A server that responds like the service, or like a broken one."""

    answer: Any = None

    def do_GET(self) -> None:
        assert self.path == "/rates?date_from=2021-01-05&date_to=2021-01-05&orig_code=CNSGH&dest_code=SEGOT"
        body = json.dumps(self.answer).encode()
        self.send_response(200)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Suppress the request log."""


@pytest.mark.parametrize(
    ("answer", "require_price", "passes"),
    [
        ({"rates": [{"count": 3, "day": "2021-01-05", "price": 1140}]}, "true", True),
        ({"rates": [{"count": None, "day": "2021-01-05", "price": None}]}, "false", True),
        ({"rates": [{"count": None, "day": "2021-01-05", "price": None}]}, "true", False),
        ({"rates": []}, "false", False),
        ({"rates": [{"count": 3, "day": "2021-01-06", "price": 1140}]}, "false", False),
        ({"rates": [{"day": "2021-01-05"}]}, "false", False),
        ({"error": "no"}, "false", False),
    ],
)
def test_helm_test_queries_a_rate_and_can_fail(answer: Any, require_price: str, passes: bool) -> None:
    (container,) = the(strategy("rolling"), "Pod")["spec"]["containers"]
    server = HTTPServer(("127.0.0.1", 0), type("Answering", (CannedServer,), {"answer": answer}))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        variables = {one["name"]: one["value"] for one in container["env"]}
        variables |= {"SERVICE": f"127.0.0.1:{server.server_port}", "REQUIRE_PRICE": require_price}
        done = subprocess.run(
            [sys.executable, *container["command"][1:]], env=variables, capture_output=True, text=True, check=False
        )
    finally:
        server.shutdown()
        server.server_close()
    assert (done.returncode == 0) is passes, done.stderr
