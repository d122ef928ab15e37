"""Helpers that tests of several packages use. A test package imports only from itself and from here."""
