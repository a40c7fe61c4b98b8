"""Ask the public address questions with known answers, and publish which of them failed.

The archive contains ``rates_app.ops.probe``. Errors of the function itself are raised: the alarms treat a missing
value as a problem.
"""

from __future__ import annotations

import json
import logging
import os
from typing import Any

import boto3

from rates_app.ops.check import run_checks
from rates_app.ops.probe import DELIVERY_SECONDS, QUESTION_SECONDS, KnownAnswer, delivery_checks, question_checks

log = logging.getLogger(__name__)


def handle(event: dict[str, Any], _context: Any) -> None:
    """Run the checks once, and publish 0 or 1 for each: 1 is a problem, which the log describes.

    Args:
        event: ``{"batch": true}`` delivers a test batch; otherwise page and API are asked.

    Raises:
        botocore.exceptions.ClientError: The token cannot be read, or the metric cannot be published.
    """
    url, known = os.environ["URL"], KnownAnswer(**json.loads(os.environ["KNOWN_ANSWER"]))
    if event.get("batch"):
        results = run_checks(delivery_checks(url, known, _token()), DELIVERY_SECONDS)
    else:
        results = run_checks(question_checks(url, known), QUESTION_SECONDS)
    for name, result in results.items():
        for problem in result.problems:
            log.error("%s: %s", name, problem.text)
    boto3.client("cloudwatch").put_metric_data(
        Namespace=os.environ["NAMESPACE"],
        MetricData=[
            {
                "MetricName": os.environ["METRIC"],
                "Dimensions": [{"Name": "Question", "Value": name}],
                "Value": float(bool(result.problems)),
                "Unit": "Count",
            }
            for name, result in results.items()
        ],
    )


def _token() -> str:
    secret = boto3.client("secretsmanager").get_secret_value(SecretId=os.environ["TOKEN_SECRET"])
    return str(secret["SecretString"]).strip()
