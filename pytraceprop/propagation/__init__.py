"""Ways to get the header into an outgoing request, and the choice among them."""

from pytraceprop.propagation.choice import METHODS, Propagation, choose

__all__ = ["METHODS", "Propagation", "choose"]
