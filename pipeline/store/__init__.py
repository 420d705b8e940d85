"""The city's database: the embedded server in the data directory, or a server supplied by the user.

`Store` gives transactions, `copy` moves arrays in and out, `locks` keeps each unit to one process at a time,
`partitions` creates the parts of the tables that hold vectors, `statistics` informs the query planner, `embedded` runs
the server, and `schema` migrates.
"""

from pipeline.store.schema import revision, upgrade
from pipeline.store.store import Store, reset_passwords, stop, url

__all__ = ["Store", "reset_passwords", "revision", "stop", "upgrade", "url"]
