"""Verification of the gateway's HTTP message signature (RFC 9421) over a request and its `Akoya-*` headers."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace
from typing import TypeVar

from akoya_verify.keys import Key, KeySource, verifies
from akoya_verify.replay_cache import ReplayCache
from akoya_verify.result import Connection, NotVerified, Verified, decode_owner
from akoya_verify.structured_fields import (
    BareItem,
    InnerList,
    Item,
    Token,
    parse_dictionary,
    serialize_inner_list,
)

LABEL = "akoya"
TAG = "akoya-gateway"
REQUIRED = ("@method", "@authority", "@path", "@query")

RawHeaders = Iterable[tuple[bytes | str, bytes | str]]


def verify(
    method: str,
    authority: str,
    path: str,
    query: str,
    headers: RawHeaders,
    keys: KeySource,
    now: float,
    *,
    skew: float = 5.0,
    replay: ReplayCache | None = None,
) -> Verified:
    """Verify the signature of a request and return what the gateway signed.

    There must be exactly one signature labelled `akoya` with the gateway's tag. It must cover `@method`, `@authority`,
    `@path`, `@query` and every `Akoya-*` header of the request, and each of these headers must occur exactly once.

    Args:
        method: The request method.
        authority: The Host header as received, without the default port (see `authority_of`).
        path: The raw path, as in the request line.
        query: The raw query, as in the request line, without its `?`.
        headers: All headers of the request, including duplicates.
        keys: Finds a key by its ID: `RemoteKeys`, or a mapping.
        now: Unix seconds.
        skew: Clock difference to tolerate, in seconds.
        replay: Accepts each nonce only once.

    Raises:
        NotVerified: The request is not the one that the gateway signed.
    """
    fields = _collect(headers)
    covered = _covered(fields)
    signature = _signature(fields)
    names = _component_names(covered)
    _require_all_covered(fields, names)
    created, expires = _lifetime(covered, now, skew)
    key = _key(covered, keys)
    target = {"@method": method, "@authority": authority.lower(), "@path": path or "/", "@query": "?" + query}
    base = signature_base(names, target, fields, covered)
    if not verifies(keys, key, signature, base):
        raise NotVerified("bad-signature", f"the signature does not fit this request under key {key.id!r}")
    nonce = _parameter(covered, "nonce", str, required=False)
    if replay is not None:
        replay.admit(nonce, expires + skew, now)
    claims = {name: fields[name][0] for name in names if name.startswith("akoya-")}
    digest = ", ".join(fields["content-digest"]) if "content-digest" in names else None
    return replace(
        _verified(claims), key_id=key.id, signed_at=created, signed_until=expires, nonce=nonce, content_digest=digest
    )


def authority_of(host: str, scheme: str) -> str:
    """Return a Host value in lower case and without the default port of the scheme (RFC 9421 section 2.2.3)."""
    return host.lower().removesuffix(":443" if scheme in {"https", "wss"} else ":80")


def _collect(headers: RawHeaders) -> dict[str, list[str]]:
    """Return the values by lower-case name. Reject aliases that a server could normalize to a gateway header."""
    fields: dict[str, list[str]] = {}
    for raw_name, raw_value in headers:
        name = _text(raw_name).lower()
        fields.setdefault(name, []).append(_text(raw_value).strip(" \t"))
        folded = fold(name)
        if folded != name and (folded.startswith("akoya-") or folded in {"signature", "signature-input"}):
            raise NotVerified("alias", f"header {name!r} could pass for {folded!r}")
    return fields


_SPECIAL = re.compile("[^a-z0-9-]")


def fold(name: str) -> str:
    """Return a header name as a server that turns headers into variables may see it: all special characters as `-`."""
    return _SPECIAL.sub("-", name.lower())


def _text(raw: bytes | str) -> str:
    return raw.decode("latin-1") if isinstance(raw, bytes) else raw


def _covered(fields: dict[str, list[str]]) -> InnerList:
    if "signature-input" not in fields or "signature" not in fields:
        raise NotVerified("missing-signature", "no Signature-Input and Signature: did the request pass the gateway?")
    member = parse_dictionary(", ".join(fields["signature-input"]), "Signature-Input").get(LABEL)
    if member is None:
        raise NotVerified("missing-signature", f"Signature-Input has no member {LABEL!r}")
    if not isinstance(member, InnerList):
        raise NotVerified("malformed", f"Signature-Input: {LABEL!r} is no list of components")
    if member.parameters.get("tag") != TAG:
        raise NotVerified("wrong-tag", f"the signature's tag is not {TAG!r}")
    return member


def _signature(fields: dict[str, list[str]]) -> bytes:
    member = parse_dictionary(", ".join(fields["signature"]), "Signature").get(LABEL)
    if not isinstance(member, Item) or not isinstance(member.value, bytes):
        raise NotVerified("missing-signature", f"Signature has no byte sequence {LABEL!r}")
    return member.value


def _component_names(covered: InnerList) -> tuple[str, ...]:
    names: list[str] = []
    for item in covered.items:
        if type(item.value) is not str or item.parameters:
            raise NotVerified("malformed", "a covered component is not a plain name")
        names.append(item.value)
    if len(set(names)) != len(names):
        raise NotVerified("duplicate", "a component is covered twice")
    missing = [name for name in REQUIRED if name not in names]
    if missing:
        raise NotVerified("not-covered", f"{', '.join(missing)} is not covered")
    return tuple(names)


def _require_all_covered(fields: dict[str, list[str]], names: tuple[str, ...]) -> None:
    for name, values in fields.items():
        if not name.startswith("akoya-"):
            continue
        if len(values) != 1:
            raise NotVerified("duplicate", f"header {name!r} is there {len(values)} times")
        if name not in names:
            raise NotVerified("not-covered", f"header {name!r} is not covered by the signature")


_Type = TypeVar("_Type", bound=BareItem)


def _parameter(covered: InnerList, name: str, kind: type[_Type], *, required: bool = True) -> _Type | None:
    value = covered.parameters.get(name)
    if value is None and not required:
        return None
    if not isinstance(value, kind) or isinstance(value, bool | Token):
        raise NotVerified("malformed", f"the signature's parameter {name!r} is missing or of another type")
    return value


def _lifetime(covered: InnerList, now: float, skew: float) -> tuple[int, int]:
    created = _parameter(covered, "created", int) or 0
    expires = _parameter(covered, "expires", int) or 0
    if expires < created:
        raise NotVerified("malformed", "the signature expires before it was created")
    if created > now + skew:
        raise NotVerified("from-the-future", f"the signature was created {created - now:.0f} s ahead of this clock")
    if now >= expires + skew:
        raise NotVerified("expired", f"the signature expired {now - expires:.0f} s ago")
    return created, expires


def _key(covered: InnerList, keys: KeySource) -> Key:
    key_id = _parameter(covered, "keyid", str) or ""
    key = keys.get(key_id)
    if key is None:
        raise NotVerified("unknown-key", f"no key {key_id!r}")
    # `alg` must match the key's algorithm. It never selects one (RFC 9421 section 7.3.6).
    if _parameter(covered, "alg", str, required=False) not in {None, key.algorithm}:
        raise NotVerified("wrong-algorithm", f"key {key_id!r} is for {key.algorithm} and nothing else")
    return key


def signature_base(
    names: tuple[str, ...], target: dict[str, str], fields: dict[str, list[str]], covered: InnerList
) -> bytes:
    """Build the signature base (RFC 9421 section 2.5). Raises `NotVerified` for what the gateway does not sign.

    Args:
        names: The covered components, in order.
        target: The values of those that begin with `@`.
        fields: The values of the headers, by lower-case name.
        covered: The member of Signature-Input.
    """
    lines: list[str] = []
    for name in names:
        if name.startswith("@"):
            value = target.get(name)
            if value is None:
                raise NotVerified("malformed", f"{name!r} is not used by the gateway")
        else:
            if name not in fields:
                raise NotVerified("missing-header", f"the covered header {name!r} is not there")
            value = ", ".join(fields[name])
        if "\n" in value or "\r" in value or not value.isascii():
            raise NotVerified("malformed", f"{name!r} holds a character that cannot be signed")
        lines.append(f'"{name}": {value}\n')
    lines.append(f'"@signature-params": {serialize_inner_list(covered)}')
    return "".join(lines).encode("ascii")


def _verified(claims: dict[str, str]) -> Verified:
    token_ends = claims.get("akoya-expires", "")
    return Verified(
        owner=decode_owner(claims.get("akoya-owner", "")),
        connector=claims.get("akoya-connector"),
        id_token=claims.get("akoya-id-token"),
        expires=int(token_ends) if token_ends.isdigit() else None,
        scope=tuple(claims.get("akoya-scope", "").split()),
        environment=claims.get("akoya-environment"),
        connections=_connections(claims.get("akoya-connections", "")),
        provider=claims.get("akoya-provider"),
        grant=claims.get("akoya-grant"),
        consent=claims.get("akoya-consent"),
        interaction_type=claims.get("akoya-interaction-type"),
        last_access=claims.get("akoya-last-access"),
        id_tokens=_id_tokens(claims.get("akoya-id-tokens", "")),
    )


def _connections(text: str) -> tuple[Connection, ...]:
    found: list[Connection] = []
    for connector, member in parse_dictionary(text, "Akoya-Connections").items():
        for login in member.items if isinstance(member, InnerList) else (member,):
            ends, grant = login.parameters.get("expires"), login.parameters.get("id")
            found.append(
                Connection(
                    connector,
                    str(login.value),
                    ends if isinstance(ends, int) else None,
                    grant if isinstance(grant, str) else None,
                )
            )
    return tuple(found)


def _id_tokens(text: str) -> dict[str, str]:
    members = parse_dictionary(text, "Akoya-Id-Tokens").items()
    return {
        connector: member.value
        for connector, member in members
        if isinstance(member, Item) and isinstance(member.value, str)
    }
