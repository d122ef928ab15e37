"""Authenticates requests by session cookie or by the app's own user identity."""
