"""Bootstrap an existing cluster, such as one of kind, in the same way as the clusters in AWS."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes
from components.gitops import ClusterLabels, GitOps, GitOpsArgs, LocalFacts
from settings import load_local

settings = load_local(pulumi.runtime.config.CONFIG.get())

# The context is explicit, so that the stack never changes the cluster that is current by chance.
cluster = pulumi_kubernetes.Provider("cluster", context=settings.context, kubeconfig=settings.kubeconfig)
GitOps(
    "local",
    GitOpsArgs(
        repository=settings.repository,
        revision=settings.revision,
        labels=ClusterLabels(environment=settings.environment, colour="blue", size="small"),
        facts=LocalFacts(
            name=settings.cluster_name,
            registry=settings.registry,
            provided_addons=" ".join(settings.provided_addons),
        ),
        chart=settings.argocd_chart,
    ),
    pulumi.ResourceOptions(providers=[cluster]),
)
