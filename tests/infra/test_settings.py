"""A stack's settings are checked before anything is created, and an error names the key."""

from __future__ import annotations

import json
from datetime import date
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from rehearsal import ROOT, rehearse, stack_config
from settings import StackSettings, StackSettingsError, load, placeholders

if TYPE_CHECKING:
    from pathlib import Path


def _load(stack: str, config: dict[str, Any]) -> StackSettings:
    return load(stack, _texts(config), ROOT)


def _texts(config: dict[str, Any]) -> dict[str, str]:
    """Write settings as Pulumi hands them over: objects as JSON, all else as text."""
    return {k: json.dumps(v) if isinstance(v, dict | list) else str(v) for k, v in config.items()}


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
def test_every_stack_file_loads(name: str) -> None:
    settings = _load(name, stack_config(name))
    assert settings.environment == settings.stack == name


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
def test_no_stack_file_holds_a_secret(name: str) -> None:
    text = (ROOT / f"Pulumi.{name}.yaml").read_text().lower()
    assert not [word for word in ("password", "token", "secret", "accesskey", "akia") if word in text]


def test_a_copy_has_its_environments_settings_and_a_separate_name() -> None:
    dev, copy = _load("dev", stack_config("dev")), _load("dev-anna", {})
    assert dev.domain is None
    # The preset is read from the repository's file, whose account is a placeholder.
    changed: dict[str, object] = {"stack": "dev-anna", "account": copy.account, "alert_email": copy.alert_email}
    changed |= {"repository": copy.repository, "api_access": copy.api_access}
    assert copy == dev.model_copy(update=changed)


def test_a_copy_s_domain_is_below_its_environment_s(tmp_path: Path) -> None:
    preset = {"config": {**stack_config("dev"), "rates:domain": "dev.rehearsal.test"}}
    (tmp_path / "Pulumi.dev.yaml").write_text(yaml.safe_dump(preset))
    copy = load("dev-anna", {}, tmp_path)
    assert (copy.domain, copy.parent_zone) == ("anna.dev.rehearsal.test", "dev.rehearsal.test")
    assert copy.serves_https


def test_a_copy_s_own_settings_win() -> None:
    assert _load("dev-anna", {"rates:logDays": 7, "rates:domain": "anna.example.com"}).log_days == 7


@pytest.mark.parametrize("name", ["test", "prod-anna", "dev-", "dev-Anna", "dev-abcdefghijk", "dev-a_b"])
def test_a_stack_s_name_is_one_of_the_environments_or_a_copy(name: str) -> None:
    with pytest.raises(StackSettingsError, match="name it dev, staging, prod, or dev-NAME"):
        _load(name, stack_config("dev"))


_NETWORK = stack_config("dev")["rates:network"]
_STANDBY: dict[str, object] = {
    "region": "us-west-2",
    "cidr": "10.9.0.0/16",
    "zoneIds": ["usw2-az1", "usw2-az2", "usw2-az3"],
}
_STANDBY |= {"nodes": {"min": 1, "max": 1}}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates:databse": {}}, r"rates:databse: there is no such setting; allowed here: account, region, domain, "),
        ({"rates:owner": None}, r"rates:owner: is missing: Team that answers"),
        (
            {"rates:cache": {"nodeType": "cache.t4g.micro", "replica": 1, "snapshotDays": 1}},
            r"rates:cache\.replicas: is m",
        ),
        ({"rates:cache": {"nodeType": "t4g", "replicas": 1, "snapshotDays": 1}}, r"rates:cache\.nodeType: .*\^cache"),
        ({"rates:clusters": {"red": {"version": "1.35", "weight": 1}}}, r"rates:clusters\.red: .*'blue' or 'green'"),
        ({"rates:clusters": {"blue": {"version": "1.35", "weight": 0}}}, r"no colour has a weight"),
        ({"rates:clusters": {"blue": {"version": "1.35", "weight": 101}}}, r"clusters\.blue\.weight: .* 100"),
        (
            {"rates:clusters": {"blue": {"version": "1.35", "weight": 9, "nodes": {"min": 1, "max": 2}}}},
            r"blue\.nodes\.min: 1 is too few for a colour that serves",
        ),
        (
            {"rates:nodes": {"instanceType": "t3.medium", "pods": 60, "min": 5, "max": 4}},
            r"rates:nodes: .*min \(5\) must not exceed",
        ),
        (
            {"rates:nodes": {"instanceType": "m7g.large", "pods": 60, "min": 3, "max": 4}},
            r"rates:nodes\.instanceType: .* \(EC2 instance type of every serving node, for amd64",
        ),
        (
            {"rates:spark": {"instanceTypes": ["g4dn.xlarge", "m6a.large", "c7gn.large"], "max": 1}},
            r"rates:spark\.instanceTypes\.2: String should match pattern",
        ),
        ({"rates:apiAccess": ["0.0.0.0/0"]}, r"apiAccess must not hold 0\.0\.0\.0/0"),
        ({"rates:logDays": 8}, r"logDays must be one of"),
        ({"rates:environment": "prod"}, r"rates:environment: comes from the stack's name"),
        (
            {"rates:network": {**_NETWORK, "cidr": "10.0.0.0/20"}},
            r"must be a /16",
        ),
        (
            {"rates:domain": "rates.test", "rates:standby": {**_STANDBY, "region": "us-east-1"}},
            "another region",
        ),
        (
            {"rates:domain": "rates.test", "rates:standby": {**_STANDBY, "cidr": "10.16.0.0/16"}},
            "not overlap",
        ),
        ({"rates:standby": _STANDBY}, r"standby: traffic moves to the second region by DNS; set domain"),
        ({"rates:parentZone": "rates.test"}, r"parentZone: there is no domain to delegate"),
        ({"rates:account": "12"}, r"rates:account: .*AWS account of the stack"),
        (
            {"rates:network": {**_NETWORK, "zoneIds": ["use1-az1", "use1-az2", "use1-az3"]}},
            r"EKS creates no cluster in use1-az3",
        ),
        ({"rates:network": {**_NETWORK, "zoneIds": ["use1-az1"] * 3}}, r"three different zones"),
        ({"rates:clusters": {"blue": {"version": "1.36", "weight": 1}}}, r"blue\.version: 1\.36 has no entry in kuber"),
    ],
)
def test_a_mistake_is_named_with_the_allowed_values(changes: dict[str, Any], message: str) -> None:
    config = {key: value for key, value in {**stack_config("dev"), **changes}.items() if value is not None}
    with pytest.raises(StackSettingsError, match=message):
        _load("dev", config)


def test_the_repository_s_own_values_are_refused_by_key() -> None:
    config = yaml.safe_load((ROOT / "Pulumi.prod.yaml").read_text())["config"]
    keys = {line.split(":")[1] for line in placeholders(_texts(config))}
    assert keys == {"account", "domain", "alertEmail", "ticketUrl", "repository", "signer", "apiAccess"}
    assert not placeholders(_texts(stack_config("prod")))


def test_the_program_refuses_the_repository_s_own_values() -> None:
    config = yaml.safe_load((ROOT / "Pulumi.dev.yaml").read_text())["config"]
    with pytest.raises(
        StackSettingsError, match=r"Pulumi\.dev\.yaml is not filled in:\n  rates:account: 0+ is a placeholder"
    ):
        rehearse("dev", config)


@pytest.mark.parametrize(("today", "warned"), [(date(2026, 12, 20), False), (date(2026, 12, 27), True)])
def test_a_quarter_before_support_ends_the_program_warns(today: date, *, warned: bool) -> None:
    warnings = _load("staging", stack_config("staging")).support_warnings(today)
    assert [warning.partition(":")[0] for warning in warnings] == (
        ["clusters.blue", "clusters.green"] if warned else []
    )
