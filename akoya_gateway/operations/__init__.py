"""Logs, metrics, health, reload, drain: what an operator sees and does."""
