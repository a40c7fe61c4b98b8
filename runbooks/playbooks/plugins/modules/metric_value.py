"""Publishes one value of a CloudWatch metric."""

from __future__ import annotations

from ansible_collections.amazon.aws.plugins.module_utils.modules import AnsibleAWSModule
from botocore.exceptions import BotoCoreError, ClientError

DOCUMENTATION = """
module: metric_value
short_description: Publishes one value of a CloudWatch metric
description:
  - Publishes the value with the current time, without dimensions.
options:
  namespace: {description: Namespace of the metric., type: str, required: true}
  name: {description: Name of the metric., type: str, required: true}
  value: {description: The value., type: float, required: true}
extends_documentation_fragment: [amazon.aws.common.modules, amazon.aws.region.modules, amazon.aws.boto3]
"""

RETURN = ""

EXAMPLES = """
- metric_value: {namespace: Rates/rates-prod, name: TakenOver, value: 1}
"""


def main() -> None:
    """Run the module."""
    module = AnsibleAWSModule(
        argument_spec={
            "namespace": {"type": "str", "required": True},
            "name": {"type": "str", "required": True},
            "value": {"type": "float", "required": True},
        },
        supports_check_mode=True,
    )
    namespace, name, value = (module.params[key] for key in ("namespace", "name", "value"))
    if not module.check_mode:
        try:
            module.client("cloudwatch").put_metric_data(
                Namespace=namespace, MetricData=[{"MetricName": name, "Value": value}]
            )
        except (BotoCoreError, ClientError) as error:
            module.fail_json_aws(error, msg=f"The metric {namespace}/{name} could not be published")
    module.exit_json(changed=True)


if __name__ == "__main__":
    main()
