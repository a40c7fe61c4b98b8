"""Publish the age of a database's last restorable time, for which RDS has no metric.

Errors are raised: the alarm treats a missing value as a problem.
"""

from __future__ import annotations

import os
from datetime import UTC, datetime
from typing import Any

import boto3


def handle(_event: Any, _context: Any) -> None:
    """Measure and publish one value in seconds.

    Raises:
        KeyError: RDS states no restorable time: the database has no automated backups.
    """
    (database,) = boto3.client("rds").describe_db_instances(DBInstanceIdentifier=os.environ["DATABASE"])["DBInstances"]
    age = datetime.now(UTC) - database["LatestRestorableTime"]
    boto3.client("cloudwatch").put_metric_data(
        Namespace=os.environ["NAMESPACE"],
        MetricData=[{"MetricName": os.environ["METRIC"], "Value": age.total_seconds(), "Unit": "Seconds"}],
    )
