"""The texts of error pages, by the error's stable code. They are for customers of a bank, without technical terms.

Problem details for programs have the error's own title and detail instead, always in English.
"""

from __future__ import annotations

from akoya_gateway.responses.languages import gettext_noop

NO_ACCESS = (gettext_noop("This page is not available"), gettext_noop("You do not have access to this page."))
BAD_LINK = (
    gettext_noop("This link does not work"),
    gettext_noop("The address is not complete or not valid. Go back to the app and try again."),
)
NOT_FOUND = (gettext_noop("Page not found"), gettext_noop("There is no page at this address."))
UNKNOWN_LOGIN = (
    gettext_noop("Unknown login"),
    gettext_noop("You have no such login at this bank. Choose one of your bank connections."),
)
SIGN_IN_BROKEN = (
    gettext_noop("This sign-in cannot be completed"),
    gettext_noop("Nothing was shared. Please connect the bank once more."),
)
OTHER_USER = (
    gettext_noop("Your session has changed in the meantime"),
    gettext_noop("Please connect the bank once more."),
)
TOO_OFTEN = (gettext_noop("Too many attempts"), gettext_noop("Please wait a minute, then try again."))
SIGN_IN_AGAIN = (
    gettext_noop("Please sign in again"),
    gettext_noop("We could not confirm who you are. Sign in to the app again."),
)
TOO_SLOW = (
    gettext_noop("This took too long"),
    gettext_noop("What you sent did not arrive in time. Please try again."),
)
BANK_UNAVAILABLE = (
    gettext_noop("The bank connection is not available right now"),
    gettext_noop("Please try again in a few minutes."),
)
APP_UNAVAILABLE = (
    gettext_noop("The app does not respond right now"),
    gettext_noop("Please try again in a moment."),
)
UNAVAILABLE = (
    gettext_noop("The service is not available right now"),
    gettext_noop("Please try again in a moment."),
)
NOT_POSSIBLE = (
    gettext_noop("This did not work"),
    gettext_noop("The request could not be understood. Go back to the app and try again."),
)

UNNAMED_LOGIN = gettext_noop("Login %(number)d")
"""The name of a login that the user has not named."""

CHOOSE_LOGIN = gettext_noop("You have several logins at %(bank)s. Choose the one to use.")
CHOOSE_LOGIN_IN_THE_APP = gettext_noop(
    "You have several logins at %(bank)s: %(logins)s. Choose one in the app, or disconnect those that you do not need."
)
CONNECT_BANK = gettext_noop("Connect %(bank)s to continue.")
RECONNECT_BANK = gettext_noop("Connect %(bank)s again to continue.")

_TEXTS: dict[str, tuple[str, str]] = {
    **dict.fromkeys(("no-rule", "forbidden"), NO_ACCESS),
    **dict.fromkeys(("not-found", "no-upstream"), NOT_FOUND),
    **dict.fromkeys(("unknown-grant", "bad-grant"), UNKNOWN_LOGIN),
    **dict.fromkeys(("bad-callback", "wrong-callback", "foreign-issuer"), SIGN_IN_BROKEN),
    **dict.fromkeys(("too-many-connects", "too-many-attempts"), TOO_OFTEN),
    **dict.fromkeys(("untrusted-identity", "ambiguous-identity", "identity-rejected"), SIGN_IN_AGAIN),
    **dict.fromkeys(
        ("ambiguous-path", "path-too-long", "root-path", "bad-host", "bad-parameters", "duplicate-parameter",
         "unknown-parameter", "redirect-refused"),
        BAD_LINK,
    ),
    **dict.fromkeys(("provider-failed", "provider-unavailable", "registration-refused"), BANK_UNAVAILABLE),
    **dict.fromkeys(
        ("upstream-failed", "upstream-unreachable", "upstream-timeout", "upstream-busy", "upstream-invalid-response",
         "upstream-closed"),
        APP_UNAVAILABLE,
    ),
    "other-owner": OTHER_USER,
    "body-timeout": TOO_SLOW,
    "unknown-connector": (
        gettext_noop("Unknown bank"),
        gettext_noop("This bank is not available here. Choose one of your bank connections."),
    ),
    "ambiguous-grant": (gettext_noop("Which login?"), ""),
    "not-connected": (
        gettext_noop("A bank connection is needed"),
        gettext_noop("Connect a bank to continue."),
    ),
    "reconnect": (
        gettext_noop("A bank connection has ended"),
        gettext_noop("Connect a bank again to continue."),
    ),
    "untrusted-response": (
        gettext_noop("The bank connection cannot be verified right now"),
        gettext_noop("Please try again in a few minutes. If this lasts, connect the bank again."),
    ),
    "unknown-state": (
        SIGN_IN_BROKEN[0],
        gettext_noop(
            "It was already completed, has expired, or was started in another browser. Nothing was lost: check "
            "your bank connections, or start again."
        ),
    ),
    "no-session": (gettext_noop("You are signed out"), gettext_noop("Nothing was changed.")),
    "no-identity": (gettext_noop("You are not signed in"), gettext_noop("Sign in to the app first.")),
    "login-ended": (
        gettext_noop("Nothing was changed"),
        gettext_noop("The new login has ended in the meantime, so the earlier one was kept."),
    ),
    "csrf": (
        gettext_noop("That did not work"),
        gettext_noop("The page was out of date. Go back, reload it and try again."),
    ),
    "cookie-twice": (
        gettext_noop("Your browser has outdated cookies for this site"),
        gettext_noop("Delete the cookies for this site in your browser, then try again."),
    ),
    "body-too-large": (gettext_noop("This is too large"), gettext_noop("Please send less, then try again.")),
    "internal": (gettext_noop("Something went wrong"), gettext_noop("Please try again in a moment.")),
}  # fmt: skip


def problem_text(code: str, status: int) -> tuple[str, str]:
    """Return the title and the text for an error, as messages to translate.

    A code that is not in the table gets a general text: for a failure of the service (5xx), or for a bad request.
    """
    return _TEXTS.get(code) or (UNAVAILABLE if status >= 500 else NOT_POSSIBLE)
