"""Resolve: each unit's pending windows, in time order, become identities and decisions. One transaction a window."""

from pipeline.resolve.embed import embed_camera
from pipeline.resolve.unit import UnitResult, resolve_unit, units_within

__all__ = ["UnitResult", "embed_camera", "resolve_unit", "units_within"]
