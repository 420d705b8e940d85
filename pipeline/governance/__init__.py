"""Accountability for the use of the system: the audit trail."""
