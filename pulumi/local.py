"""A cluster that is there already, such as one of kind, handed to Argo CD as the cloud's clusters are."""

from __future__ import annotations

import pulumi
import pulumi_kubernetes
from components.gitops import ClusterLabels, GitOps, GitOpsArgs, LocalFacts
from settings import load_local

settings = load_local(pulumi.runtime.config.CONFIG.get())

# The context is named, so that the stack never reaches whatever cluster is the current one.
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
