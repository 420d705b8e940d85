"""What makes the use of the system accountable: the audit trail."""
