"""Flows on hosts of their own: `urban-reid worker`. `worker` takes runs from Prefect's work pools.

`accepted` says what of a run's row counts, `one_run` is the process of a run, and `lost` has runs of lost workers begun
again. Importing this package loads none of them.
"""
