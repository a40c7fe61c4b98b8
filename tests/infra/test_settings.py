"""A stack's settings are checked before anything is created, and a mistake is told by the key's name."""

from __future__ import annotations

import json
from typing import Any

import pytest
from rehearsal import ROOT, stack_config
from settings import Settings, SettingsError, load


def _load(stack: str, config: dict[str, Any]) -> Settings:
    texts = {k: json.dumps(v) if isinstance(v, dict | list) else str(v) for k, v in config.items()}
    return load(stack, texts, ROOT)


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
def test_every_stack_file_loads(name: str) -> None:
    settings = _load(name, stack_config(name))
    assert settings.environment == settings.stack == name


@pytest.mark.parametrize("name", ["dev", "staging", "prod"])
def test_no_stack_file_holds_a_secret(name: str) -> None:
    text = (ROOT / f"Pulumi.{name}.yaml").read_text().lower()
    assert not [word for word in ("password", "token", "secret", "accesskey", "akia") if word in text]


def test_a_copy_takes_its_environment_s_settings_under_a_name_of_its_own() -> None:
    dev, copy = _load("dev", stack_config("dev")), _load("dev-anna", {})
    changed = {"stack": "dev-anna", "domain": "anna.dev.rates.example.com", "parent_zone": dev.domain}
    assert copy == dev.model_copy(update=changed)


def test_a_copy_s_own_settings_win() -> None:
    assert _load("dev-anna", {"rates:logDays": 7, "rates:domain": "anna.example.com"}).log_days == 7


@pytest.mark.parametrize("name", ["test", "prod-anna", "dev-", "dev-Anna", "dev-abcdefghijk", "dev-a_b"])
def test_a_stack_s_name_is_one_of_the_environments_or_a_copy(name: str) -> None:
    with pytest.raises(SettingsError, match="name it dev, staging, prod, or dev-NAME"):
        _load(name, stack_config("dev"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"rates:databse": {}}, r"rates:databse: there is no such setting; allowed here: region, domain, "),
        ({"rates:domain": None}, r"rates:domain: is missing: DNS name of the service"),
        (
            {"rates:cache": {"nodeType": "cache.t4g.micro", "replica": 1, "snapshotDays": 1}},
            r"rates:cache\.replicas: is m",
        ),
        ({"rates:cache": {"nodeType": "t4g", "replicas": 1, "snapshotDays": 1}}, r"rates:cache\.nodeType: .*\^cache"),
        ({"rates:clusters": {"red": {"version": "1.34", "weight": 1}}}, r"rates:clusters\.red: .*'blue' or 'green'"),
        ({"rates:clusters": {"blue": {"version": "1.34", "weight": 0}}}, r"no colour has a weight"),
        ({"rates:clusters": {"blue": {"version": "1.34", "weight": 101}}}, r"clusters\.blue\.weight: .* 100"),
        (
            {"rates:clusters": {"blue": {"version": "1.34", "weight": 9, "nodes": {"min": 1, "max": 2}}}},
            r"blue\.nodes\.min: 1 is too few for a colour that serves",
        ),
        (
            {"rates:nodes": {"instanceType": "t3.medium", "min": 5, "max": 4}},
            r"rates:nodes: .*min \(5\) must not exceed",
        ),
        ({"rates:apiAccess": ["0.0.0.0/0"]}, r"apiAccess must not hold 0\.0\.0\.0/0"),
        ({"rates:logDays": 8}, r"logDays must be one of"),
        ({"rates:environment": "prod"}, r"rates:environment: comes from the stack's name"),
        (
            {"rates:network": {"cidr": "10.0.0.0/20", "natGateways": "one", "interfaceEndpoints": False}},
            r"must be a /16",
        ),
        (
            {"rates:standby": {"region": "us-east-1", "cidr": "10.9.0.0/16", "nodes": {"min": 1, "max": 1}}},
            "another region",
        ),
        (
            {"rates:standby": {"region": "us-west-2", "cidr": "10.16.0.0/16", "nodes": {"min": 1, "max": 1}}},
            "not overlap",
        ),
    ],
)
def test_a_mistake_is_named_with_what_is_allowed(changes: dict[str, Any], message: str) -> None:
    config = {key: value for key, value in {**stack_config("dev"), **changes}.items() if value is not None}
    with pytest.raises(SettingsError, match=message):
        _load("dev", config)
