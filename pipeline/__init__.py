"""The city: store, crops and cameras, association, calibration, search, reports. Plain functions; no Prefect."""
