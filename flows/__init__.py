"""Thin Prefect flows and deployments: order, retries, concurrency and artifacts. The work is in `pipeline`."""
