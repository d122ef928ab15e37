"""Attacks in which two programs read a path differently: the rules match one path, the app serves another."""

from __future__ import annotations

import pytest

from tests.advisories.advisory import advisory
from tests.support.target import Target


def below(target: Target, rest: str) -> str:
    """Return `rest` appended to the directory of the public path."""
    return target.public.rpartition("/")[0] + rest


def never_in(target: Target, path: str, *lines: str, host: str | None = None) -> None:
    reply = target.fetch(path, *lines, host=host)
    assert not reply.let_in, f"{path} reached the app: {reply.text[:300]}"


def served_as_public_or_not_at_all(target: Target, path: str, *lines: str) -> None:
    """Check that any response is for a path below the public one."""
    reply = target.fetch(path, *lines)
    if reply.seen is not None:
        assert reply.seen["path"].startswith(target.public.rpartition("/")[0] + "/"), reply.seen["path"]
    else:
        assert target.protected.strip("/") not in reply.text if 200 <= reply.status < 300 else True


@pytest.mark.parametrize("between", ["/../", "/x/../../", "/./../"])
@advisory("CVE-2026-33494", attack="`/public/../admin` matches a public rule as sent, and the app normalizes it.",
          ours="A dot segment anywhere in the path is refused. The path is not changed after the rules have been matched.")  # fmt: skip
def test_cve_2026_33494_dot_segments(target: Target, between: str) -> None:
    never_in(target, below(target, between.rstrip("/") + target.protected))


@pytest.mark.parametrize("dots", ["..", "%2e%2e", "%2E%2E", ".%2e", "%2e.", "%2e%2e%2f..", "%252e%252e"])
@advisory("CVE-2026-42274", attack="Dot segments, plain or encoded: `/user/../admin`, `%2e%2e`, `%2e%2e%2f`.",
          ours="Segments are checked after decoding once. Dot segments and doubly encoded characters are refused with 400.")  # fmt: skip
def test_cve_2026_42274_encoded_dot_segments(target: Target, dots: str) -> None:
    never_in(target, below(target, f"/{dots}{target.protected}"))


@pytest.mark.parametrize("slash", ["%2f", "%2F", "%5c", "%5C", "\\"])
@advisory("CVE-2026-42272", attack="A lower-case `%2f` is not recognized as an encoded slash.",
          ours="Encoded slashes and backslashes are refused in either case, as are plain backslashes.")  # fmt: skip
def test_cve_2026_42272_encoded_slash_in_either_case(target: Target, slash: str) -> None:
    never_in(target, below(target, f"{slash}..{slash}{target.protected.strip('/')}"))
    never_in(target, slash + target.protected.strip("/"))
    never_in(target, "/" + slash + target.protected.strip("/"))


@pytest.mark.parametrize("mark", ["#", "%23", "#/../", "%23/../..", ";", "%3b", "%3f", "?"])
@advisory("CVE-2026-41059", "GHSA-pxq7", "CVE-2021-32779", "CVE-2021-39206",
          attack="A `#` or `%23` in the target makes the matcher and the upstream see different paths.",
          ours="Paths that contain `#`, `%23`, `;` or an encoded `?` are refused.")  # fmt: skip
def test_cve_2026_41059_fragment_in_the_target(target: Target, mark: str) -> None:
    never_in(target, f"{target.protected}{mark}{target.public}")
    never_in(target, f"{target.protected}{mark}")


@pytest.mark.parametrize("query", ["x=/public/x", "/public/x", "x=%2Fpublic%2Fx", "x=1/../public/x"])
@advisory("CVE-2025-54576", "GHSA-7rh7", attack="The public pattern is matched against path plus query: `/admin?x=/public`.",
          ours="Rules match the path only, never the query.")  # fmt: skip
def test_cve_2025_54576_public_path_in_the_query(target: Target, query: str) -> None:
    never_in(target, f"{target.protected}?{query}")


@pytest.mark.parametrize("glued", ["%3F", "%3f", "%3Fx=1", "%3F/../public"])
@advisory("CVE-2026-32811", attack="The query is appended to the path and escaped to `%3F`, so that a deny rule does not match.",
          ours="An encoded question mark is refused; forward-auth splits at the first plain `?`.")  # fmt: skip
def test_cve_2026_32811_query_glued_to_the_path(target: Target, glued: str) -> None:
    never_in(target, target.protected + glued)


@pytest.mark.parametrize(
    "path", ["//{protected}", "/{public}//{protected}", "/%2e/{protected}", "/{protected}/%00", "/{protected}%00/{public}",
             "/%c0%ae%c0%ae/{protected}", "/{public}/%c0%af{protected}", "/%u002e%u002e/{protected}", "/{protected}%", "/{protected}%0a",
             "/{protected}/..;/{public}/../{protected}"],
)  # fmt: skip
@advisory("CVE-2023-33189", attack="A crafted path leads to a wrong authorization decision.",
          ours="There is one strict normalization. Empty segments, NUL, overlong UTF-8, invalid escapes and control characters are refused.")  # fmt: skip
def test_cve_2023_33189_crafted_paths(target: Target, path: str) -> None:
    filled = path.format(protected=target.protected.strip("/"), public=target.public.strip("/").split("/")[0])
    never_in(target, filled)


@advisory("CVE-2026-40912", "GHSA-6jwx", attack="Stripping a prefix makes the decoded and the raw path differ.",
          ours="Paths are never rewritten: the upstream receives the bytes that were authorized.")  # fmt: skip
@pytest.mark.parametrize("rest", ["/a%20b", "/%C3%A4", "/a+b", "/%41", "/a%2Db", "/~x!$&'()*,=:@"])
def test_cve_2026_40912_upstream_gets_the_path_that_was_matched(target: Target, rest: str) -> None:
    reply = target.fetch(below(target, rest))
    if target.env is not None:
        assert reply.seen is not None
        assert reply.seen["path"] == below(target, rest)
    else:
        served_as_public_or_not_at_all(target, below(target, rest))


@advisory("CVE-2025-66490", attack="Encoded characters reach the back end undecoded, although a rule matched the decoded form.",
          ours="Characters that could take effect after another decoding (`/ \\ ; ? # NUL`, a second `%`) are refused. The rest is unambiguous.")  # fmt: skip
@pytest.mark.parametrize("code", ["%2f", "%5C", "%00", "%3b", "%3F", "%23", "%252f", "%25%32%66"])
def test_cve_2025_66490_encoded_characters(target: Target, code: str) -> None:
    never_in(target, f"{target.protected}{code}x")
    reply = target.fetch(below(target, f"/{code}..{code}x"))
    if target.env is not None:
        assert reply.seen is None
        assert reply.status in (400, 403, 404)


@pytest.mark.parametrize(
    "host",
    [
        "app.example.com/public/x",
        "app.example.com#",
        "app.example.com?x=/public/x",
        "x/../public/x?",
        "a@b",
        "a b",
        "a\\b",
        "",
    ],
)
@advisory("CVE-2026-48710", "GHSA-86qp", attack="A malformed `Host` corrupts the URL from which the path is taken, so that path rules are bypassed.",
          ours="Rules match the request target only. An invalid `Host` is refused before anything is signed.")  # fmt: skip
def test_cve_2026_48710_malformed_host(target: Target, host: str) -> None:
    never_in(target, target.protected, host=host)


@pytest.mark.parametrize("method", ["get", "Get", "gET", "GET\t", "OPTIONS", "TRACE", "PROPFIND", "X"])
@advisory("CVE-2021-32637", attack="A malformed request makes the forward-auth endpoint allow it.",
          ours="An unparsable request is an error and never allowed. Methods are matched exactly.")  # fmt: skip
def test_cve_2021_32637_malformed_requests_are_never_allowed(target: Target, method: str) -> None:
    assert not target.fetch(target.protected, method=method).let_in
    for path in (
        "*",
        "accounts",
        "http://",
        "http:///" + target.protected,
        "://" + target.protected,
        "?" + target.protected,
        "%",
    ):
        assert not target.fetch(path, method=method.upper().strip()).let_in, path


@pytest.mark.parametrize("form", ["http://{authority}{protected}", "HTTP://{authority}{protected}", "http://other.example{protected}",
                                  "http://{authority}{public}/..{protected}", "http://public/..{protected}"])  # fmt: skip
@advisory("CVE-2026-42273", attack="The host is compared case-sensitively, so `Admin.Example.com` does not match its rule.",
          ours="No rule depends on the host. The authority is lower-cased before it is signed, whatever the form of the target.")  # fmt: skip
def test_cve_2026_42273_host_in_another_case(target: Target, form: str) -> None:
    never_in(target, form.format(authority=target.authority.upper(), protected=target.protected, public=target.public))
    never_in(target, target.protected, host=target.authority.upper())
    never_in(target, target.protected, host="LOCALHOST.")
