"""The DNS zone of a stack's domain, and the certificates for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pulumi
from pulumi_aws import acm, route53

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import pulumi_aws


@dataclass(frozen=True, kw_only=True)
class ZoneArgs:
    """Arguments of a zone."""

    domain: str
    parent_zone: str | None
    certify: bool
    """Ask for certificates. AWS validates them only once the parent zone leads to this one."""
    providers: Mapping[str, pulumi_aws.Provider] = field(default_factory=dict)
    """Provider of every region that needs a certificate, by the region's name."""


class Zone(pulumi.ComponentResource):
    """A public zone with one certificate per region for the domain and its direct subdomains.

    Attributes:
        zone_id: The zone.
        name_servers: What the parent zone has to delegate the domain to.
        certificate_arns: Validated certificates by region.
    """

    zone_id: pulumi.Output[str]
    name_servers: pulumi.Output[Sequence[str]]
    certificate_arns: Mapping[str, pulumi.Output[str]]

    def __init__(self, name: str, args: ZoneArgs, opts: pulumi.ResourceOptions | None = None) -> None:
        super().__init__("rates:index:Zone", name, None, opts)
        child = pulumi.ResourceOptions(parent=self)
        zone = route53.Zone(name, name=args.domain, comment="Kept by Pulumi", opts=child)
        delegation = []
        if args.parent_zone:
            parent = route53.get_zone_output(name=args.parent_zone, opts=pulumi.InvokeOutputOptions(parent=self))
            delegation = [
                route53.Record(
                    f"{name}-delegation",
                    zone_id=parent.zone_id,
                    name=args.domain,
                    type="NS",
                    ttl=300,
                    records=zone.name_servers,
                    opts=child,
                )
            ]
        self.zone_id = zone.zone_id
        self.name_servers = zone.name_servers
        self.certificate_arns = self._certificates(name, args, zone, delegation) if args.certify else {}
        self.register_outputs({"zone_id": self.zone_id})

    def _certificates(
        self, name: str, args: ZoneArgs, zone: route53.Zone, delegation: Sequence[pulumi.Resource]
    ) -> Mapping[str, pulumi.Output[str]]:
        child = pulumi.ResourceOptions(parent=self)
        certificates = {
            region: acm.Certificate(
                f"{name}-{region}",
                domain_name=args.domain,
                subject_alternative_names=[f"*.{args.domain}"],
                validation_method="DNS",
                opts=pulumi.ResourceOptions(parent=self, provider=provider),
            )
            for region, provider in args.providers.items()
        }
        # The domain's validation record is also valid for its wildcard and for the other region's certificate.
        option = next(iter(certificates.values())).domain_validation_options[0]
        proof = route53.Record(
            f"{name}-proof",
            zone_id=zone.zone_id,
            name=option.resource_record_name,
            type=option.resource_record_type,
            records=[option.resource_record_value],
            ttl=300,
            opts=child,
        )
        return {
            region: acm.CertificateValidation(
                f"{name}-{region}",
                certificate_arn=certificate.arn,
                validation_record_fqdns=[proof.fqdn],
                opts=pulumi.ResourceOptions(parent=self, provider=args.providers[region], depends_on=list(delegation)),
            ).certificate_arn
            for region, certificate in certificates.items()
        }
