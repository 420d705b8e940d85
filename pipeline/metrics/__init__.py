"""Metrics of `urban-reid up` for Prometheus: what is read for each scrape, and where it is served."""
