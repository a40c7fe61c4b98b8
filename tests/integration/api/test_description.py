"""The OpenAPI description is correct: schemathesis sends valid and invalid requests and checks every response."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from jsonschema import Draft202012Validator
from schemathesis import GenerationMode
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import positive_data_acceptance

if TYPE_CHECKING:
    from flask import Flask
    from flask.testing import FlaskClient


@pytest.mark.parametrize("mode", list(GenerationMode))
def test_every_response_matches_the_description(app: Flask, mode: GenerationMode) -> None:
    schema = schemathesis.openapi.from_wsgi("/openapi.json", app)
    asked: Counter[str] = Counter()
    without_input = 0
    for described in schema.get_all_operations():
        assert isinstance(described, Ok)
        asks = described.ok()
        if mode is GenerationMode.NEGATIVE and not any((*asks.iter_parameters(), *asks.body)):
            without_input += 1  # nothing that could be invalid
            continue
        strategy = asks.as_strategy(generation_mode=mode)

        @settings(
            max_examples=60,
            deadline=None,
            derandomize=True,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(strategy)
        def ask(case: Any) -> None:
            # The test's transport does not decode content codings. An unknown port, or too long a range, is refused
            # though each argument is valid, which the description cannot express.
            case.call_and_validate(headers={"Accept-Encoding": "identity"}, excluded_checks=[positive_data_acceptance])
            asked[case.operation.label] += 1

        ask()
    assert len(asked) + without_input == len(schema)


def test_the_description_is_openapi_3_1_with_valid_schemas(client: FlaskClient) -> None:
    document: Any = client.get("/openapi.json").json

    assert document["openapi"].startswith("3.1.")
    assert {"/rates", "/v1/rates", "/v1/locations", "/v1/locations/{code}", "/v1/lanes"} <= set(document["paths"])
    for model in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(model)
    operations = [each for path in document["paths"].values() for each in path.values()]
    assert len({each["operationId"] for each in operations}) == len(operations)
    assert all(each["summary"] and each["description"] for each in operations)
