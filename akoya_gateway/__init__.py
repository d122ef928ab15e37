"""Akoya Gateway: one YAML file between the Akoya network and any app."""

__version__ = "0.1.0"
