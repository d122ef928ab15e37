"""Tests that break the run on purpose, for tests/test_test_runs.py. Their names keep them out of every other run."""
