"""What differs between two versions of a city, for the audit."""

from typing import Any

from schemas.city_file import City


def differences(old: City, new: City) -> dict[str, Any]:
    """By unit in both cities and field, and by walk, [the old value, the new one]; both cities in canonical form."""
    now = {unit.code: unit.model_dump(mode="json") for unit in new.units}
    found: dict[str, Any] = {}
    for unit in old.units:
        was, then = unit.model_dump(mode="json"), now.get(unit.code, {})
        if changed := {field: [was[field], value] for field, value in then.items() if was[field] != value}:
            found[unit.code] = changed
    walks = [{(walk.from_, walk.to): walk.shortest_s for walk in city.walks} for city in (old, new)]
    for ends in sorted(walks[0].keys() | walks[1].keys()):
        times = [times.get(ends) for times in walks]
        if times[0] != times[1]:
            found[" -> ".join(ends)] = {"shortest_s": times}
    if old.timezone != new.timezone:
        found["timezone"] = [old.timezone, new.timezone]
    return found
