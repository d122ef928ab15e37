"""Logs, access log, metrics, health and redaction."""
