"""Pytest plugin of the emulator."""
