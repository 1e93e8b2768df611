"""What this kernel and these rights allow, each answer with its reason."""

from pytraceprop.environment.answer import Answer
from pytraceprop.environment.environment import Environment

__all__ = ["Answer", "Environment"]
