"""The policy pack: ``pulumi up --policy-pack pulumi/policies`` refuses what a rule forbids."""

from pulumi_policy import EnforcementLevel, PolicyPack
from rules import POLICIES

PolicyPack("rates", policies=list(POLICIES), enforcement_level=EnforcementLevel.MANDATORY)
