"""Texts for users about states and errors, selected by the gateway's stable codes and never by a bank's free text.

They are in English and translated when they are shown.
"""

from __future__ import annotations

from akoya_gateway.grants.grant import GrantState
from akoya_gateway.responses.languages import gettext_noop, ngettext_noop

STATE_TEXTS = {
    GrantState.LIVE: gettext_noop("Connected"),
    GrantState.REFRESHING: gettext_noop("Connected"),
    GrantState.UNCERTAIN: gettext_noop(
        "Connected, but the bank has not confirmed it recently. If data is missing, reconnect."
    ),
    GrantState.NEEDS_RECONNECT: gettext_noop("The bank has ended this connection. Reconnect to continue."),
    GrantState.REVOKED: gettext_noop("Disconnected"),
}

UNVERIFIED = gettext_noop(
    "Connected, but what the bank sends cannot be verified at the moment. If this lasts, reconnect."
)
"""Replaces the text of the state after several untrusted responses in a row."""

CONNECTED_SINCE = gettext_noop("Connected since %(date)s")
LAST_RENEWED = gettext_noop("Last renewed on %(date)s")
ACCOUNTS = ngettext_noop("%(num)d account", "%(num)d accounts")

BANK_DOWN = gettext_noop("The bank is not responding at the moment. You do not need to reconnect.")
"""For a bank whose data API has failed several times in a row."""

CHOOSE_BANK = gettext_noop("To continue, connect a bank.")

NOTICES = {
    "disconnected": gettext_noop("The bank is disconnected. It no longer shares data with this app."),
    "renamed": gettext_noop("The login was renamed."),
    "signed-out": gettext_noop("You are signed out on this device."),
}

_NOT_NOW = gettext_noop("Connecting is not possible right now. If this continues, contact the people who run this app.")
_ERRORS = {
    "access_denied": gettext_noop("You cancelled, or the bank declined. Nothing was shared."),
    "temporarily_unavailable": gettext_noop("The bank connection service is busy. Please try again in a few minutes."),
    "server_error": gettext_noop(
        "The bank could not complete the sign-in. Perhaps it took too long: please connect once more."
    ),
    "provider-unreachable": gettext_noop(
        "The bank connection service cannot be reached. Please try again in a few minutes."
    ),
    "provider-redirects": _NOT_NOW,
    "certificate-not-trusted": _NOT_NOW,
    "proxy-refused": _NOT_NOW,
    "outcome-unknown": gettext_noop("The bank did not respond in time. Please connect it again."),
    "untrusted-id-token": gettext_noop(
        "The bank was not connected: what it sent could not be verified. Please try again later."
    ),
    "store-unavailable": gettext_noop("The connection could not be saved. Please try again in a moment."),
    "code-refused": gettext_noop("The sign-in took too long or was used already. Please connect once more."),
    "client-refused": _NOT_NOW,
}
_ANY_ERROR = gettext_noop(
    "The bank was not connected. Please try again; if it keeps failing, contact the people who run this app."
)


def notice_of_error(code: str | None) -> str:
    """Return the text for the `error` query parameter of a failed attempt, or "" if `code` is empty."""
    return _ERRORS.get(code, _ANY_ERROR) if code else ""
