"""The kinds of resources that the emulated providers know: how AWS names each, what replaces it, what it returns."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

Properties = dict[str, Any]

ARN = "arn:aws:{service}:{region}:{account}:{resource}"


@dataclass(frozen=True)
class ResourceType:
    """One type of resource.

    Attributes:
        operation: botocore's service and the operation that creates the resource, whose input shape checks the inputs.
        id: Form of the id that AWS gives: a prefix that ends in ``-``, or a template over the inputs and outputs.
        replaced_by: Inputs that AWS cannot change in place.
        arn: Resource part of the ARN, as a template.
        outputs: Further outputs, from the id and the inputs.
        aliases: Member of the operation's shape by input, where the names differ.
        unchecked: Inputs that another operation takes, or the provider itself.
        recomputed: Outputs that each update changes, and that a preview therefore does not know.
    """

    operation: tuple[str, str] | None = None
    id: str = "{name}"
    replaced_by: frozenset[str] = frozenset()
    arn: str = ""
    outputs: Callable[[str, Properties, str], Properties] = lambda id_, inputs, region: {}
    aliases: Mapping[str, str] = field(default_factory=dict)
    unchecked: frozenset[str] = frozenset()
    recomputed: frozenset[str] = frozenset()

    @property
    def service(self) -> str:
        """The service's name in ARNs."""
        name = self.operation[0] if self.operation else ""
        return {"elbv2": "elasticloadbalancing", "cloudwatch": "cloudwatch"}.get(name, name)


def digest(*parts: str, length: int = 17) -> str:
    """Return hexadecimal digits that depend on the parts alone, so that a run can be repeated."""
    return hashlib.sha256("/".join(parts).encode()).hexdigest()[:length]


def inner(value: Any, path: str) -> Any:
    """Return the value at a path of names with dots between them, or None."""
    for part in path.split("."):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def _kind(
    operation: str = "", id_: str = "{name}", replaced_by: str = "", *, arn: str = "", unchecked: str = "", **more: Any
) -> ResourceType:
    service, _, name = operation.partition(" ")
    return ResourceType(
        (service, name) if operation else None,
        id_,
        frozenset(replaced_by.split()),
        arn,
        unchecked=frozenset(unchecked.split()),
        **more,
    )


def _load_balancer(id_: str, inputs: Properties, region: str) -> Properties:
    return {
        "dnsName": f"{inputs['name']}-{digest(id_, length=8)}.{region}.elb.amazonaws.com",
        "zoneId": "Z35SXDOTRQ7X7K",
        "arnSuffix": id_.partition("loadbalancer/")[2],
    }


def _certificate(id_: str, inputs: Properties, region: str) -> Properties:
    domain = inputs["domainName"]
    return {
        "domainValidationOptions": [
            {
                "domainName": domain,
                "resourceRecordName": f"_{digest(domain, length=32)}.{domain}.",
                "resourceRecordType": "CNAME",
                "resourceRecordValue": f"_{digest('value', domain, length=32)}.acm-validations.aws.",
            }
        ]
    }


def _cluster(id_: str, inputs: Properties, region: str) -> Properties:
    return {
        "endpoint": f"https://{digest(id_, region, length=32).upper()}.gr7.{region}.eks.amazonaws.com",
        "certificateAuthority": {"data": "LS0tLS1CRUdJTg=="},
        "status": "ACTIVE",
        "platformVersion": "eks.1",
        "vpcConfig": {
            **inputs["vpcConfig"],
            "clusterSecurityGroupId": f"sg-{digest('cluster', id_, region)}",
            "vpcId": "vpc-of-its-subnets",
        },
    }


def _database(id_: str, inputs: Properties, region: str) -> Properties:
    address = f"{inputs['identifier']}.{digest(id_, length=12)}.{region}.rds.amazonaws.com"
    managed = {"masterUserSecrets": [{"secretArn": f"arn:aws:secretsmanager:{region}:{{account}}:secret:rds!db-{id_}"}]}
    return {
        "address": address,
        "endpoint": f"{address}:5432",
        "port": 5432,
        "resourceId": f"db-{digest(id_, length=26).upper()}",
        "engineVersionActual": f"{inputs.get('engineVersion', '')}.1",
        **(managed if inputs.get("manageMasterUserPassword") else {}),
    }


def _queue(id_: str, inputs: Properties, region: str) -> Properties:
    return {"url": id_}


def scaling_group(id_: str, inputs: Mapping[str, Any]) -> str:
    """Return the name of the scaling group that EKS creates for a node group."""
    return f"eks-{inputs['nodeGroupName']}-{digest(id_, length=8)}"


def _node_group(id_: str, inputs: Properties, region: str) -> Properties:
    return {"resources": [{"autoscalingGroups": [{"name": scaling_group(id_, inputs)}]}]}


KINDS: Mapping[str, ResourceType] = {
    "aws:acm/certificate:Certificate": _kind(
        "acm RequestCertificate",
        "{arn}",
        "domainName subjectAlternativeNames validationMethod",
        arn="certificate/{hex}",
        outputs=_certificate,
    ),
    "aws:acm/certificateValidation:CertificateValidation": _kind("", "{hex}", "certificateArn validationRecordFqdns"),
    "aws:autoscaling/tag:Tag": _kind(
        "autoscaling CreateOrUpdateTags",
        "{autoscalingGroupName},{hex}",
        "autoscalingGroupName tag.key",
        aliases={"tag": "Tags"},
    ),
    "aws:budgets/budget:Budget": _kind("", "{account}:{name}", "name"),
    "aws:cloudwatch/compositeAlarm:CompositeAlarm": _kind(
        "cloudwatch PutCompositeAlarm", "{alarmName}", "alarmName", arn="alarm:{alarmName}"
    ),
    "aws:cloudwatch/dashboard:Dashboard": _kind("cloudwatch PutDashboard", "{dashboardName}", "dashboardName"),
    "aws:cloudwatch/eventRule:EventRule": _kind("events PutRule", "{name}", "name", arn="rule/{name}"),
    "aws:cloudwatch/eventTarget:EventTarget": _kind("", "{rule}-{hex}", "rule targetId"),
    "aws:cloudwatch/logGroup:LogGroup": _kind(
        "logs CreateLogGroup",
        "{name}",
        "name",
        arn="log-group:{name}",
        aliases={"name": "logGroupName"},
        unchecked="retentionInDays skipDestroy",
    ),
    "aws:cloudwatch/logMetricFilter:LogMetricFilter": _kind(
        "logs PutMetricFilter",
        "{name}",
        "name logGroupName",
        aliases={
            "name": "filterName",
            "pattern": "filterPattern",
            "metricTransformation": "metricTransformations",
            "namespace": "metricNamespace",
            "value": "metricValue",
        },
        unchecked="metricTransformation.name",
    ),
    "aws:cloudwatch/metricAlarm:MetricAlarm": _kind(
        "cloudwatch PutMetricAlarm",
        "{name}",
        "name",
        arn="alarm:{name}",
        aliases={"name": "AlarmName", "metricQueries": "Metrics"},
        unchecked="dimensions metricQueries",
    ),
    "aws:ec2/defaultSecurityGroup:DefaultSecurityGroup": _kind("", "sg-", "vpcId"),
    "aws:ec2/eip:Eip": _kind("ec2 AllocateAddress", "eipalloc-", "domain"),
    "aws:ec2/flowLog:FlowLog": _kind(
        "ec2 CreateFlowLogs",
        "fl-",
        "vpcId trafficType logDestination iamRoleArn",
        aliases={"iamRoleArn": "DeliverLogsPermissionArn"},
        unchecked="vpcId",
    ),
    "aws:ec2/internetGateway:InternetGateway": _kind("", "igw-", "vpcId"),
    "aws:ec2/launchTemplate:LaunchTemplate": _kind(
        "",
        "lt-",
        "name",
        arn="launch-template/{id}",
        recomputed=frozenset({"latestVersion"}),
        outputs=lambda id_, inputs, region: {"latestVersion": 1, "defaultVersion": 1},
    ),
    "aws:ec2/natGateway:NatGateway": _kind("ec2 CreateNatGateway", "nat-", "allocationId subnetId connectivityType"),
    "aws:ec2/route:Route": _kind("ec2 CreateRoute", "r-", "routeTableId destinationCidrBlock"),
    "aws:ec2/routeTable:RouteTable": _kind("ec2 CreateRouteTable", "rtb-", "vpcId"),
    "aws:ec2/routeTableAssociation:RouteTableAssociation": _kind("ec2 AssociateRouteTable", "rtbassoc-", "subnetId"),
    "aws:ec2/securityGroup:SecurityGroup": _kind(
        "ec2 CreateSecurityGroup",
        "sg-",
        "name description vpcId",
        arn="security-group/{id}",
        aliases={"name": "GroupName"},
        unchecked="revokeRulesOnDelete",
    ),
    "aws:ec2/subnet:Subnet": _kind(
        "ec2 CreateSubnet",
        "subnet-",
        "vpcId cidrBlock availabilityZone availabilityZoneId",
        unchecked="mapPublicIpOnLaunch",
    ),
    "aws:ec2/vpc:Vpc": _kind("ec2 CreateVpc", "vpc-", "cidrBlock", unchecked="enableDnsSupport enableDnsHostnames"),
    "aws:ec2/vpcEndpoint:VpcEndpoint": _kind("ec2 CreateVpcEndpoint", "vpce-", "vpcId serviceName vpcEndpointType"),
    "aws:ecr/lifecyclePolicy:LifecyclePolicy": _kind(
        "ecr PutLifecyclePolicy",
        "{repository}",
        "repository policy",
        aliases={"repository": "repositoryName", "policy": "lifecyclePolicyText"},
    ),
    "aws:ecr/replicationConfiguration:ReplicationConfiguration": _kind("ecr PutReplicationConfiguration", "{account}"),
    "aws:ecr/repository:Repository": _kind(
        "ecr CreateRepository",
        "{name}",
        "name encryptionConfigurations",
        arn="repository/{name}",
        aliases={"name": "repositoryName", "encryptionConfigurations": "encryptionConfiguration"},
        unchecked="forceDelete",
        outputs=lambda id_, inputs, region: {
            "repositoryUrl": f"{{account}}.dkr.ecr.{region}.amazonaws.com/{id_}",
            "registryId": "{account}",
        },
    ),
    "aws:eks/accessEntry:AccessEntry": _kind(
        "eks CreateAccessEntry", "{clusterName}:{principalArn}", "clusterName principalArn"
    ),
    "aws:eks/accessPolicyAssociation:AccessPolicyAssociation": _kind(
        "eks AssociateAccessPolicy",
        "{clusterName}#{principalArn}#{policyArn}",
        "clusterName principalArn policyArn accessScope",
    ),
    "aws:eks/addon:Addon": _kind(
        "eks CreateAddon",
        "{clusterName}:{addonName}",
        "clusterName addonName",
        unchecked="resolveConflictsOnCreate resolveConflictsOnUpdate preserve",
    ),
    "aws:eks/cluster:Cluster": _kind(
        "eks CreateCluster",
        "{name}",
        "name roleArn accessConfig.bootstrapClusterCreatorAdminPermissions encryptionConfig kubernetesNetworkConfig",
        arn="cluster/{name}",
        aliases={"vpcConfig": "resourcesVpcConfig"},
        unchecked="enabledClusterLogTypes defaultAddonsToRemoves",
        outputs=_cluster,
    ),
    "aws:eks/nodeGroup:NodeGroup": _kind(
        "eks CreateNodegroup",
        "{clusterName}:{nodeGroupName}",
        "clusterName nodeGroupName nodeRoleArn subnetIds amiType capacityType instanceTypes diskSize launchTemplate.id",
        arn="nodegroup/{clusterName}/{nodeGroupName}/{hex}",
        aliases={"nodeGroupName": "nodegroupName", "nodeRoleArn": "nodeRole", "subnetIds": "subnets"},
        unchecked="forceUpdateVersion",
        outputs=_node_group,
    ),
    "aws:eks/podIdentityAssociation:PodIdentityAssociation": _kind(
        "eks CreatePodIdentityAssociation", "a-", "clusterName namespace serviceAccount"
    ),
    "aws:elasticache/parameterGroup:ParameterGroup": _kind("", "{name}", "name family"),
    "aws:elasticache/replicationGroup:ReplicationGroup": _kind(
        "elasticache CreateReplicationGroup",
        "{replicationGroupId}",
        "replicationGroupId atRestEncryptionEnabled kmsKeyId subnetGroupName port",
        arn="replicationgroup:{replicationGroupId}",
        aliases={
            "nodeType": "CacheNodeType",
            "description": "ReplicationGroupDescription",
            "parameterGroupName": "CacheParameterGroupName",
            "subnetGroupName": "CacheSubnetGroupName",
            "multiAzEnabled": "MultiAZEnabled",
            "maintenanceWindow": "PreferredMaintenanceWindow",
        },
        unchecked="applyImmediately authTokenUpdateStrategy",
        outputs=lambda id_, inputs, region: {
            "primaryEndpointAddress": f"master.{id_}.{digest(id_, length=6)}.{region}.cache.amazonaws.com",
            "memberClusters": [f"{id_}-{n:03}" for n in range(1, 1 + int(inputs.get("numCacheClusters") or 1))],
        },
    ),
    "aws:elasticache/subnetGroup:SubnetGroup": _kind("", "{name}", "name"),
    "aws:elasticache/user:User": _kind("elasticache CreateUser", "{userId}", "userId userName", arn="user:{userId}"),
    "aws:elasticache/userGroup:UserGroup": _kind(
        "elasticache CreateUserGroup", "{userGroupId}", "userGroupId", arn="usergroup:{userGroupId}"
    ),
    "aws:iam/openIdConnectProvider:OpenIdConnectProvider": _kind(
        "iam CreateOpenIDConnectProvider",
        "arn:aws:iam::{account}:oidc-provider/{url}",
        "url",
        aliases={"clientIdLists": "ClientIDList", "thumbprintLists": "ThumbprintList"},
        outputs=lambda id_, inputs, region: {"arn": id_.replace("https://", "")},
    ),
    "aws:iam/role:Role": _kind(
        "iam CreateRole",
        "{name}",
        "name",
        arn="role/{name}",
        aliases={"name": "RoleName", "assumeRolePolicy": "AssumeRolePolicyDocument"},
    ),
    "aws:iam/rolePolicy:RolePolicy": _kind(
        "iam PutRolePolicy",
        "{role}:{name}",
        "name role",
        aliases={"role": "RoleName", "name": "PolicyName", "policy": "PolicyDocument"},
    ),
    "aws:iam/rolePolicyAttachment:RolePolicyAttachment": _kind(
        "iam AttachRolePolicy", "{role}/{policyArn}", "role policyArn", aliases={"role": "RoleName"}
    ),
    "aws:kms/alias:Alias": _kind(
        "kms CreateAlias", "{name}", "name", aliases={"name": "AliasName", "targetKeyId": "TargetKeyId"}
    ),
    "aws:kms/key:Key": _kind(
        "kms CreateKey",
        "{hex}",
        arn="key/{id}",
        unchecked="enableKeyRotation deletionWindowInDays",
        outputs=lambda id_, inputs, region: {"keyId": id_},
    ),
    "aws:lambda/function:Function": _kind(
        "lambda CreateFunction",
        "{name}",
        "name",
        arn="function:{name}",
        aliases={"name": "FunctionName", "kmsKeyArn": "KMSKeyArn"},
        unchecked="code",
    ),
    "aws:lambda/functionEventInvokeConfig:FunctionEventInvokeConfig": _kind(
        "lambda PutFunctionEventInvokeConfig", "{functionName}", "functionName"
    ),
    "aws:lambda/permission:Permission": _kind(
        "lambda AddPermission",
        "{hex}",
        "action function principal sourceArn sourceAccount statementId",
        aliases={"function": "FunctionName"},
        unchecked="statementIdPrefix statementId",
    ),
    "aws:lb/listener:Listener": _kind(
        "elbv2 CreateListener",
        "{arn}",
        "loadBalancerArn",
        arn="listener/{hex}",
        unchecked="certificateArn defaultActions",
    ),
    "aws:lb/loadBalancer:LoadBalancer": _kind(
        "elbv2 CreateLoadBalancer",
        "{arn}",
        "name internal loadBalancerType",
        arn="loadbalancer/app/{name}/{hex}",
        aliases={"loadBalancerType": "Type"},
        unchecked="idleTimeout dropInvalidHeaderFields enableDeletionProtection internal",
        outputs=_load_balancer,
    ),
    "aws:lb/targetGroup:TargetGroup": _kind(
        "elbv2 CreateTargetGroup",
        "{arn}",
        "name port protocol vpcId targetType",
        arn="targetgroup/{name}/{hex}",
        unchecked="deregistrationDelay healthCheck slowStart",
        outputs=lambda id_, inputs, region: {"arnSuffix": "targetgroup" + id_.partition("targetgroup")[2]},
    ),
    "aws:rds/instance:Instance": _kind(
        "rds CreateDBInstance",
        "{identifier}",
        "identifier kmsKeyId storageEncrypted username dbName snapshotIdentifier",
        arn="db:{identifier}",
        aliases={
            "identifier": "DBInstanceIdentifier",
            "instanceClass": "DBInstanceClass",
            "password": "MasterUserPassword",
            "username": "MasterUsername",
            "parameterGroupName": "DBParameterGroupName",
            "maintenanceWindow": "PreferredMaintenanceWindow",
            "backupWindow": "PreferredBackupWindow",
            "enabledCloudwatchLogsExports": "EnableCloudwatchLogsExports",
            "performanceInsightsEnabled": "EnablePerformanceInsights",
            "caCertIdentifier": "CACertificateIdentifier",
            "multiAz": "MultiAZ",
        },
        unchecked="applyImmediately finalSnapshotIdentifier skipFinalSnapshot replicateSourceDb deleteAutomatedBackups",
        outputs=_database,
    ),
    "aws:rds/parameterGroup:ParameterGroup": _kind("", "{name}", "name family"),
    "aws:rds/subnetGroup:SubnetGroup": _kind("", "{name}", "name"),
    "aws:route53/healthCheck:HealthCheck": _kind("", "{hex}", "type referenceName"),
    "aws:route53/record:Record": _kind(
        "",
        "{zoneId}_{name}_{type}_{setIdentifier}",
        "zoneId name type setIdentifier",
        outputs=lambda id_, inputs, region: {"fqdn": inputs["name"].rstrip(".")},
    ),
    "aws:route53/zone:Zone": _kind(
        "",
        "Z{hex}",
        "name",
        outputs=lambda id_, inputs, region: {
            "zoneId": id_,
            "nameServers": [f"ns-{digest(id_, str(n), length=3)}.awsdns-0{n}.com" for n in range(1, 5)],
        },
    ),
    "aws:s3/bucket:Bucket": _kind("s3 CreateBucket", "{bucket}", "bucket", arn="{bucket}", unchecked="forceDestroy"),
    "aws:s3/bucketLifecycleConfiguration:BucketLifecycleConfiguration": _kind("", "{bucket}", "bucket"),
    "aws:s3/bucketNotification:BucketNotification": _kind("", "{bucket}", "bucket"),
    "aws:s3/bucketPolicy:BucketPolicy": _kind("s3 PutBucketPolicy", "{bucket}", "bucket"),
    "aws:s3/bucketPublicAccessBlock:BucketPublicAccessBlock": _kind("", "{bucket}", "bucket"),
    "aws:s3/bucketReplicationConfig:BucketReplicationConfig": _kind("", "{bucket}", "bucket"),
    "aws:s3/bucketServerSideEncryptionConfiguration:BucketServerSideEncryptionConfiguration": _kind(
        "", "{bucket}", "bucket"
    ),
    "aws:s3/bucketVersioning:BucketVersioning": _kind("", "{bucket}", "bucket"),
    "aws:secretsmanager/secret:Secret": _kind(
        "secretsmanager CreateSecret",
        "{arn}",
        "name",
        arn="secret:{name}-{hex}",
        unchecked="recoveryWindowInDays",
    ),
    "aws:secretsmanager/secretRotation:SecretRotation": _kind(
        "secretsmanager RotateSecret", "{secretId}", "secretId", aliases={"rotationLambdaArn": "RotationLambdaARN"}
    ),
    "aws:secretsmanager/secretVersion:SecretVersion": _kind(
        "secretsmanager PutSecretValue", "{secretId}|{hex}", "secretId"
    ),
    "aws:sns/topic:Topic": _kind("sns CreateTopic", "{arn}", "name", arn="{name}", unchecked="kmsMasterKeyId"),
    "aws:sns/topicPolicy:TopicPolicy": _kind("", "{arn}", "arn"),
    "aws:sns/topicSubscription:TopicSubscription": _kind(
        "sns Subscribe", "{topic}:{hex}", "topic protocol endpoint", aliases={"topic": "TopicArn"}
    ),
    "aws:sqs/queue:Queue": _kind(
        "sqs CreateQueue",
        "https://sqs.{region}.amazonaws.com/{account}/{name}",
        "name",
        arn="{name}",
        aliases={"name": "QueueName"},
        unchecked="visibilityTimeoutSeconds messageRetentionSeconds receiveWaitTimeSeconds redrivePolicy",
        outputs=_queue,
    ),
    "aws:sqs/queuePolicy:QueuePolicy": _kind("", "{queueUrl}", "queueUrl"),
    "aws:sqs/redriveAllowPolicy:RedriveAllowPolicy": _kind("", "{queueUrl}", "queueUrl"),
    "aws:vpc/securityGroupEgressRule:SecurityGroupEgressRule": _kind("", "sgr-", "securityGroupId"),
    "aws:vpc/securityGroupIngressRule:SecurityGroupIngressRule": _kind("", "sgr-", "securityGroupId"),
    "random:index/randomId:RandomId": _kind(
        "",
        "{hex}",
        "byteLength keepers prefix",
        outputs=lambda id_, inputs, region: {"hex": digest(id_, length=2 * int(inputs["byteLength"]))},
    ),
    "random:index/randomPassword:RandomPassword": _kind(
        "",
        "{hex}",
        "length special keepers",
        outputs=lambda id_, inputs, region: {
            "result": digest("password", json.dumps(inputs), length=int(inputs["length"]))
        },
    ),
    "kubernetes:core/v1:Namespace": _kind("", "{name}"),
    "kubernetes:core/v1:Secret": _kind("", "{name}"),
    "kubernetes:helm.sh/v3:Release": _kind("", "{name}", "name namespace"),
    "kubernetes:argoproj.io/v1alpha1:Application": _kind("", "{name}"),
    "kubernetes:storage.k8s.io/v1:StorageClass": _kind("", "{name}"),
}
