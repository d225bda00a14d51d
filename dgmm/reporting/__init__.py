"""A fit as one page: ``dgmm.report(model, data, path="report.html")``."""

from dgmm.reporting.page import report

__all__ = ["report"]
