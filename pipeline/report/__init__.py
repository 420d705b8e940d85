"""The report on a district: pages to look at, with nothing in them that comes from elsewhere."""

from pipeline.report.write import write_report

__all__ = ["write_report"]
