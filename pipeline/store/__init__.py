"""The database: one embedded server in the data directory, or an own one.

`Store` gives transactions; `copy` moves arrays in and out; `locks` lets one process at a time work on a unit; `leaves`
makes the partitions that hold vectors; `statistics` keeps the planner informed; `embedded` runs the server; `schema`
migrates.
"""

from pipeline.store.schema import revision, upgrade
from pipeline.store.store import Store, stop, url

__all__ = ["Store", "revision", "stop", "upgrade", "url"]
