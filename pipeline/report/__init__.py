"""The report on a district: HTML pages that load nothing from elsewhere, and the data beside them."""

from pipeline.report.write import write_report

__all__ = ["write_report"]
