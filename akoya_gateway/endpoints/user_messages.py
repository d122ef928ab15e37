"""Texts for users about states and errors, selected by the gateway's stable codes and never by a bank's free text."""

from __future__ import annotations

from akoya_gateway.grants.grant import GrantState

STATE_TEXTS = {
    GrantState.LIVE: "Connected",
    GrantState.REFRESHING: "Connected",
    GrantState.UNCERTAIN: "Connected, but the bank has not confirmed it lately. If data is missing, reconnect.",
    GrantState.NEEDS_RECONNECT: "The bank has ended this connection. Reconnect to go on.",
    GrantState.REVOKED: "Disconnected",
}

UNVERIFIED = "Connected, but what the bank sends cannot be verified at the moment. If this lasts, reconnect."
"""Replaces the text of the state after several untrusted responses in a row."""

NOTICES = {
    "disconnected": "The bank is disconnected. It shares nothing with this app any more.",
    "renamed": "The login has its new name.",
    "signed-out": "You are signed out on this device.",
}

_NOT_NOW = "Connecting is not possible right now. If it lasts, contact the people who run this app."
_ERRORS = {
    "access_denied": "You cancelled, or the bank declined. Nothing was shared.",
    "temporarily_unavailable": "The bank connection service is busy. Please try again in a few minutes.",
    "server_error": "The bank could not complete the sign-in. Perhaps it took too long: please connect once more.",
    "provider-unreachable": "The bank connection service cannot be reached. Please try again in a few minutes.",
    "provider-redirects": _NOT_NOW,
    "certificate-not-trusted": _NOT_NOW,
    "proxy-refused": _NOT_NOW,
    "outcome-unknown": "The bank did not answer in time. Please connect once more.",
    "untrusted-id-token": "The bank was not connected: what it sent could not be verified. Please try again later.",
    "store-unavailable": "The connection could not be saved. Please try again in a moment.",
    "code-refused": "The sign-in took too long or was used already. Please connect once more.",
    "client-refused": _NOT_NOW,
}
_ANY_ERROR = "The bank was not connected. Please try again; if it keeps failing, contact the people who run this app."


def notice_of_error(code: str | None) -> str:
    """Return the text for the `error` query parameter of a failed attempt, or "" if `code` is empty."""
    return _ERRORS.get(code, _ANY_ERROR) if code else ""
