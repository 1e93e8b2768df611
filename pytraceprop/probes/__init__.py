"""Which instructions of which Go functions are watched, and which fields are read there.

One module per protocol; `reading` puts them together for one executable.
"""

from pytraceprop.probes.plan import Plan, ProtocolPlan, Side, Site
from pytraceprop.probes.reading import read_plan, site_name

__all__ = ["Plan", "ProtocolPlan", "Side", "Site", "read_plan", "site_name"]
