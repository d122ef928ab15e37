"""Recognizes, by its description, an error of the token endpoint that is not about the token.

`invalid_request` and `invalid_grant` mean a dead token at some providers, and a faulty request or another client at
others. Descriptions are not standardized (RFC 6749 section 5.2), so they can only keep a grant from ending.
"""

from __future__ import annotations

import re

_RETRY = re.compile(r"please retry|multiple concurrent requests using the same token", re.IGNORECASE)
"""The description that Ory Hydra (fosite) sends when a refresh lost a race in its database."""

_TRANSIENT = re.compile(
    r"temporar(?:y|ily)\b|(?:try|retry)(?: it| this| (?:the|your) request)? (?:again|later)|please (?:retry|try|wait)"
    r"|(?:internal|unexpected|unknown|server|system|backend|processing) (?:server |system )?error|error occurred"
    r"|\bdata ?base\b|\bbackend\b|connection (?:was )?(?:refused|reset|failed|lost)"
    r"|(?:unable|failed|could not|cannot)(?: to)? (?:connect|reach|contact|process|handle|complete)"
    r"|rate.?limit|throttl|too many|quota|slow down|overload|\bbusy\b|capacity|circuit.?breaker"
    r"|time.?out|timed.?out|unavailable|not available|unreachable|not respond|service.?down|maintenance|outage"
    r"|concurren|simultaneous|parallel|in progress|being (?:refreshed|used|processed)|\bin use\b|\block(?:ed)?\b"
    r"|conflict|deadlock|race condition|right now|at (?:this|the) (?:time|moment)|currently",
    re.IGNORECASE,
)
"""The token endpoint failed temporarily, or another request uses the token."""
_CLOCK = re.compile(
    r"\bclocks?\b|(?:clock|time).?(?:skew|drift)|not (?:yet )?(?:valid|active) yet|not yet (?:valid|active|issued)"
    r"|before (?:it was )?(?:issued|valid)|in the future|\b(?:iat|nbf)\b",
    re.IGNORECASE,
)
"""A clock is wrong, that of the gateway or of the provider. That such a token is also "expired" is no evidence."""
_GONE = re.compile(
    r"no such|does(?: not|n't) exist|deleted|removed|rotated|re-?use|(?:been|was) (?:used|spent|consumed)"
    r"|(?:sign|log)(?:ged)?[ -]?(?:in|on|out)\b|re-?(?:auth|connect|link|consent|establish|grant)|start (?:over|again)"
    r"|(?:session|token|grant|consent|login)(?: has| is| was)? (?:timed?.?out|ended|closed|denied|withdrawn|cancell?ed)"
    r"|(?:idle|inactivity|absolute|lifetime|session) time.?out"
    r"|new (?:refresh token|authori[sz]ation|grant|consent|login)|permanent",
    re.IGNORECASE,
)
"""Final causes, although the description may also name the database, or tell the user to try again."""

_FAULTY_REQUEST = re.compile(
    r"missing|\bno refresh.?token|parameter|\bbody\b|content.type|\bform\b|more than once|repeated|duplicate"
    r"|grant.?type|redirect.?ur[il]|client.?id\b|client.?authentication",
    re.IGNORECASE,
)
"""The token endpoint could not parse the request: a proxy removed the form, or the configuration is wrong."""
_ABOUT_TOKEN = re.compile(
    r"expired|revoked|claimed|inactive|not found|not active|no longer|was used"
    r"|already(?! (?:in progress|being|running|processing|pending))|unknown(?! (?:server |system |internal )?error)",
    re.IGNORECASE,
)
_INVALID_TOKEN = re.compile(
    r"token (?:is |was )?(?:invalid|bad|malformed|wrong)|(?:invalid|bad|malformed|wrong) (?:\w+ )?token", re.IGNORECASE
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
    r"|(?:invalid|unexpected|wrong|another) (?:token )?issuer|redirect.?ur[il]|audience|(?:wrong|another) environment"
    r"|\bip(?: address)?\b.{0,30}(?:not |allow|permit|white|black|den(?:y|ied)|block)"
    r"|certificate|thumbprint|\bmtls\b|\bdpop\b",
    re.IGNORECASE,
)
_CLIENT_ITSELF = re.compile(
    r"client.?(?:secret|credential|authentication|assertion|certificate)|client mismatch"
    r"|(?:invalid|bad|wrong|unknown|inactive|disabled|suspended|unauthori[sz]ed|unregistered) (?:oauth2? )?client\b"
    r"|client(?: application| id)? (?:is|was|has been) (?:not |in|un|dis|suspended|blocked|revoked|deleted|expired)",
    re.IGNORECASE,
)
"""The credentials or the registration of the client. What is expired or unknown is not the token then."""
_OF_CLIENT = re.compile(
    r"\b(?:to|for|of|by|from|with) (?:(?:the|this|that|your) )?(?:oauth2? )?client\b"
    r"(?!.?(?:secret|credential|authentication|assertion|certificate))",
    re.IGNORECASE,
)
"""The client as an attribute: what was revoked in "the grant of this client was revoked" is the grant."""
_TOKEN_OR_CLIENT = re.compile(r"\bor (?:[\w']+ ){0,3}client|client[\w ]{0,30} or\b", re.IGNORECASE)
"""A text that names the client as one of several causes ("invalid refresh token or client credentials")."""


def means_retry(error: str, description: str, asks_to_wait: bool = False) -> bool:
    """Return True if the request should be repeated: it lost a race in the provider's database, or the provider failed.

    Returns False if the description also names a cause that is about the token. Where both readings are possible, the
    request is repeated: that costs some requests, and the user is offered to connect again after a few seconds
    (`grants.refresh_policy.OFFER_AFTER`), whereas a grant that has been ended by mistake is lost.

    Args:
        error: The error code.
        description: Its description, or an empty text.
        asks_to_wait: Whether the response has a Retry-After header.
    """
    if error == "invalid_request" and _RETRY.search(description) is not None:
        return True
    text = _RFC_TEXT.sub("", description)
    if error not in ("invalid_request", "invalid_grant") or _GONE.search(text) is not None:
        return False
    if _CLOCK.search(text) is not None:
        return True
    is_final = _ABOUT_TOKEN.search(text) is not None or _INVALID_TOKEN.search(text) is not None
    return not is_final and (asks_to_wait or _TRANSIENT.search(text) is not None)


def blames_client(error: str, description: str) -> bool:
    """Return True if the error is about the request or the client, so that the token may still be valid.

    False if the text also names a cause that is about the token: otherwise the error for a dead token would keep its
    grant forever, and stop the refreshes of all grants of this client, as a wrong registration does.
    """
    text = _ONE_OF_SEVERAL.sub("", _RFC_TEXT.sub("", description))
    faults = {"invalid_request": _FAULTY_REQUEST, "invalid_grant": _OTHER_CLIENT}.get(error)
    if faults is None:
        return False
    if _CLIENT_ITSELF.search(_OF_CLIENT.sub("", text)) is not None and _TOKEN_OR_CLIENT.search(text) is None:
        return True
    return faults.search(text) is not None and _ABOUT_TOKEN.search(text) is None
