"""The client's own signatures (RFC 9421), which share the fields `Signature` and `Signature-Input` with the gateway's.

A verifier parses both fields as a whole. A client's member that one verifier refuses would therefore invalidate the
gateway's signature, too.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from decimal import Decimal

from akoya_verify.result import NotVerified
from akoya_verify.structured_fields import (
    BareItem,
    InnerList,
    Item,
    Member,
    parse_dictionary,
    serialize_dictionary,
)

MAX_BYTES = 4096
"""Maximum size of each field. It limits how long parsing blocks the event loop."""
MAX_INTEGER, MAX_DECIMAL = 10**14, 10**11
"""Go's httpsfv refuses numbers from these on, although RFC 8941 allows one more digit (section 3.3)."""


def without_label(
    signature: Sequence[bytes], signature_input: Sequence[bytes], label: str
) -> tuple[bytes, bytes] | None:
    """Return `Signature` and `Signature-Input` without the signature `label`, or None if nothing is left.

    akoya-verify and the verifiers in deploy/verifiers accept the result beside a signature of the gateway. Returns None
    for fields that one of them might refuse. Each field must be a dictionary without duplicates, and both must have the
    same labels. The members of `Signature` must be byte sequences, and those of `Signature-Input` inner lists (RFC 9421
    section 4). The result has the canonical form, which RFC 9421 signs (section 2.3).

    Args:
        signature: The values of all `Signature` headers.
        signature_input: The values of all `Signature-Input` headers.
        label: The label to remove.
    """
    try:
        signatures = _members(signature, "Signature")
        inputs = _members(signature_input, "Signature-Input")
    except NotVerified:
        return None
    if signatures.keys() != inputs.keys():
        return None
    signatures.pop(label, None)
    inputs.pop(label, None)
    if not inputs or not all(map(_is_signature, signatures.values())) or not all(map(_is_input, inputs.values())):
        return None
    return serialize_dictionary(signatures).encode("ascii"), serialize_dictionary(inputs).encode("ascii")


def _members(values: Sequence[bytes], field: str) -> dict[str, Member]:
    whole = b", ".join(values)
    if len(whole) > MAX_BYTES:
        raise NotVerified("malformed", f"{field} is too long")
    return parse_dictionary(whole.decode("latin-1"), field)


def _is_signature(member: Member) -> bool:
    return isinstance(member, Item) and isinstance(member.value, bytes) and not member.parameters


def _is_input(member: Member) -> bool:
    return isinstance(member, InnerList) and all(map(_is_portable, _bare_items(member)))


def _bare_items(member: InnerList) -> Iterator[BareItem]:
    yield from member.parameters.values()
    for item in member.items:
        yield item.value
        yield from item.parameters.values()


def _is_portable(value: BareItem) -> bool:
    if isinstance(value, Decimal):
        return abs(value) < MAX_DECIMAL
    return not isinstance(value, int) or abs(value) < MAX_INTEGER
