"""Where spans go: lines for a terminal, a picture of a trace."""

from pytraceprop.sinks.console import format_span
from pytraceprop.sinks.tree import format_traces

__all__ = ["format_span", "format_traces"]
