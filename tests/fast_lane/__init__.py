"""Tests of the fast lane, and comparisons of it with the general ASGI path."""
