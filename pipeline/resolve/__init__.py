"""Resolve: a unit's pending windows, in time order, become identities and decisions.

Each window is written whole or not at all.
"""

from pipeline.resolve.embed import any_missing, embed_camera
from pipeline.resolve.runs import UnitResult
from pipeline.resolve.unit import resolve_unit, units_within

__all__ = ["UnitResult", "any_missing", "embed_camera", "resolve_unit", "units_within"]
