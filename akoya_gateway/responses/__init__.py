"""Responses that the gateway creates itself: HTML pages for users, RFC 9457 problem details for programs."""
