"""Recognizes, by its description, an error of the token endpoint that is not about the token.

`invalid_request` and `invalid_grant` mean a dead token at some providers, and a faulty request or another client at
others. Descriptions are not standardized (RFC 6749 section 5.2), so they can only keep a grant from ending.
"""

from __future__ import annotations

import re

_RETRY = re.compile(r"please retry|multiple concurrent requests using the same token", re.IGNORECASE)
"""The description that Ory Hydra (fosite) sends when a refresh lost a race in its database."""

_TRANSIENT = re.compile(
    r"temporar(?:y|ily)\b|(?:try|retry)(?: again)? later|internal (?:server )?error|\bdatabase\b|rate.?limit",
    re.IGNORECASE,
)
"""The token endpoint failed temporarily, although its error code blames the token."""
_GONE = re.compile(r"no such|does(?: not|n't) exist|deleted|removed|rotated|re-?use", re.IGNORECASE)
"""Final causes, although the description may name the database: the token is no longer in it."""

_FAULTY_REQUEST = re.compile(
    r"missing|\bno refresh.?token|parameter|\bbody\b|content.type|\bform\b|more than once|repeated|duplicate"
    r"|grant.?type|redirect.?ur[il]|client.?id\b|client.?authentication",
    re.IGNORECASE,
)
"""The token endpoint could not parse the request: a proxy removed the form, or the configuration is wrong."""
_ABOUT_TOKEN = re.compile(
    r"expired|revoked|claimed|already|inactive|not found|unknown|not active|no longer|was used", re.IGNORECASE
)

_RFC_TEXT = re.compile(
    r"(?:provided authorization grant.{0,140})?"
    r"does not match the redirection uri.{0,60}or was issued to another client",
    re.IGNORECASE,
)
"""The definition of `invalid_grant` (RFC 6749 section 5.2), which Ory Hydra sends whatever the cause is."""
_ONE_OF_SEVERAL = re.compile(
    r"\bor (?:[\w']+ ){0,3}(?:issued|granted|belongs?) (?:to|for) (?:another|a different|some other|this|the) client",
    re.IGNORECASE,
)
"""A text that is sent for several causes, one of which is another client ("is invalid or was issued to ...")."""
_OTHER_CLIENT = re.compile(
    r"client.{0,40}(?:does not|doesn't|did not|not) match"
    r"|(?:issued|belongs?|granted) (?:to|for) (?:another|a different|some other) client"
    r"|not (?:issued|granted) (?:to|for) th(?:is|e) client|not belong to th(?:is|e) client"
    r"|(?:invalid|unexpected|wrong|another) (?:token )?issuer",
    re.IGNORECASE,
)


def means_retry(error: str, description: str) -> bool:
    """Return True if the request should be repeated: it lost a race in the provider's database, or the provider failed.

    Returns False if the description also names a cause that is about the token.
    """
    if error == "invalid_request" and _RETRY.search(description) is not None:
        return True
    if error not in ("invalid_request", "invalid_grant") or _TRANSIENT.search(description) is None:
        return False
    return _ABOUT_TOKEN.search(description) is None and _GONE.search(description) is None


def blames_client(error: str, description: str) -> bool:
    """Return True if the error is about the request or the client, so that the token may still be valid.

    False if the text also names a cause that is about the token: otherwise the error for a dead token would keep its
    grant forever, and stop the refreshes of all grants of this client, as a wrong registration does.
    """
    text = _ONE_OF_SEVERAL.sub("", _RFC_TEXT.sub("", description))
    faults = {"invalid_request": _FAULTY_REQUEST, "invalid_grant": _OTHER_CLIENT}.get(error)
    return faults is not None and faults.search(text) is not None and _ABOUT_TOKEN.search(text) is None
