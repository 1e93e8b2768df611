"""What is traced of each protocol, and why not more: one text for whoever attaches and whoever inspects."""

from __future__ import annotations

import attrs

from pytraceprop.probes import Plan, ProtocolPlan


@attrs.frozen
class Protocol:
    """What is traced of one protocol in one program: each side, and where not, why."""

    client: bool
    server: bool
    reason: str


def protocols_of(plan: Plan) -> dict[str, Protocol]:
    """Every protocol by its name ("http/1.1", "http/2")."""
    return {name: _protocol(part) for name, part in plan.protocols.items()}


def _protocol(plan: ProtocolPlan) -> Protocol:
    client, server = plan.client.reason, plan.server.reason
    reason = client
    if client != server:
        reason = "; ".join(f"{side}: {why}" for side, why in (("client", client), ("server", server)) if why)
    return Protocol(plan.client.possible, plan.server.possible, reason)
