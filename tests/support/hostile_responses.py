"""Responses of hostile or broken upstreams, as bytes."""

from __future__ import annotations

OK = b"HTTP/1.1 200 OK\r\n"
REFUSED = {
    "two_different_content_lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
    "two_equal_content_lengths": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "a_list_of_content_lengths": OK + b"Content-Length: 5, 5\r\n\r\nhello",
    "content_length_with_transfer_encoding": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "transfer_encoding_with_content_length": OK + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "a_signed_content_length": OK + b"Content-Length: +5\r\n\r\nhello",
    "a_negative_content_length": OK + b"Content-Length: -5\r\n\r\nhello",
    "a_hexadecimal_content_length": OK + b"Content-Length: 0x5\r\n\r\nhello",
    "a_content_length_beyond_64_bits": OK + b"Content-Length: 99999999999999999999\r\n\r\nhello",
    "an_empty_content_length": OK + b"Content-Length: \r\n\r\nhello",
    "a_content_length_with_a_blank_inside": OK + b"Content-Length: 5 5\r\n\r\nhello",
    "an_unknown_transfer_encoding": OK + b"Transfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "gzip_then_chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    "chunked_twice": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunked_then_identity": OK + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "chunked_in_http_1_0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "obs_fold": OK + b"X-A: one\r\n two\r\nContent-Length: 2\r\n\r\nok",
    "obs_fold_in_content_length": OK + b"Content-Length:\r\n 2\r\n\r\nok",
    "a_space_before_the_colon": OK + b"Content-Length : 2\r\n\r\nok",
    "a_header_without_colon": OK + b"nonsense\r\nContent-Length: 2\r\n\r\nok",
    "an_empty_header_name": OK + b": x\r\nContent-Length: 2\r\n\r\nok",
    "a_bare_carriage_return_in_a_value": OK + b"X-A: one\rSet-Cookie: a=b\r\nContent-Length: 2\r\n\r\nok",
    "a_bare_line_feed_after_a_value": OK + b"X-A: one\nContent-Length: 2\r\n\r\nok",
    "bare_line_feeds_throughout": b"HTTP/1.1 200 OK\nContent-Length: 2\n\nok",
    "nul_in_a_value": OK + b"X-A: o\0ne\r\nContent-Length: 2\r\n\r\nok",
    "nul_in_a_name": OK + b"X-\0A: one\r\nContent-Length: 2\r\n\r\nok",
    "a_control_character_in_a_value": OK + b"X-A: o\x01ne\r\nContent-Length: 2\r\n\r\nok",
    "delete_in_a_value": OK + b"X-A: o\x7fne\r\nContent-Length: 2\r\n\r\nok",
    "http_0_9": b"hello world, this is not HTTP at all\r\n\r\n",
    "http_2_status_line": b"HTTP/2.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
    "an_http_2_preface": b"\x00\x00\x12\x04\x00\x00\x00\x00\x00\x00\x03\x00\x00\x00d",
    "status_099": b"HTTP/1.1 099 OK\r\nContent-Length: 2\r\n\r\nok",
    "status_600": b"HTTP/1.1 600 OK\r\nContent-Length: 2\r\n\r\nok",
    "status_9999": b"HTTP/1.1 9999 OK\r\nContent-Length: 2\r\n\r\nok",
    "unasked_101": b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n",
    "bare_101": b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    "informational_with_a_body": b"HTTP/1.1 103 Early\r\nContent-Length: 5\r\n\r\nhello" + OK + b"\r\n",
    "informational_without_end": b"HTTP/1.1 103 Early Hints\r\n\r\n" * 40 + OK + b"Content-Length: 2\r\n\r\nok",
    "too_many_headers": OK + b"".join(b"X-%d: a\r\n" % n for n in range(300)) + b"Content-Length: 2\r\n\r\nok",
    "too_large_a_header": OK + b"X-A: " + b"a" * 70_000 + b"\r\nContent-Length: 2\r\n\r\nok",
    "an_endless_header_line": OK + b"X-A: " + b"a" * 400_000,
    "an_endless_header_name": OK + b"X" * 400_000,
    "an_endless_reason_phrase": b"HTTP/1.1 200 " + b"O" * 400_000,
}
CUT = {
    "a_chunk_size_that_is_no_number": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\nok\r\n0\r\n\r\n",
    "a_negative_chunk_size": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n-1\r\n\r\n",
    "a_chunk_size_beyond_64_bits": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\nfffffffffffffffff\r\n",
    "a_chunk_longer_than_it_says": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\r\nokay\r\n0\r\n\r\n",
    "a_chunk_that_ends_in_a_bare_line_feed": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\r\nok\n0\r\n\r\n",
    "a_chunk_size_that_ends_in_a_bare_line_feed": OK
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2\nok\r\n0\r\n\r\n",
    "a_blank_before_a_chunk_size_ends": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2 \r\nok\r\n0\r\n\r\n",
    "an_endless_chunk_extension": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n2;a=" + b"a" * 400_000,
    "an_endless_trailer": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A: " + b"a" * 400_000,
    "a_bad_trailer": OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-A : a\r\n\r\n",
}
BEHIND = {
    "a_second_response": OK + b"Content-Length: 2\r\n\r\nok" + OK + b"Content-Length: 4\r\n\r\nevil",
    "a_second_response_behind_chunks": OK
    + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    + OK
    + b"Content-Length: 4\r\n\r\nevil",
    "junk": OK + b"Content-Length: 2\r\n\r\nokjunk",
    "half_a_response": OK + b"Content-Length: 2\r\n\r\nokHTTP/1.1 200 O",
    "a_response_behind_one_that_closes": OK
    + b"Content-Length: 2\r\nConnection: close\r\n\r\nok"
    + OK
    + b"Content-Length: 4\r\n\r\nevil",
}
