"""Which keys there are in Redis, and what is in them.

    {prefix:n}:kind:key      a record: one packed string, with Redis' own expiry
    {prefix:n}:kind          index of the records of a kind in shard n: a sorted set, key -> end
    prefix:group:kind:group  index of a group: a sorted set, key -> when it was listed

A record and its kind index share the hash tag, so one script changes both, in a cluster too. There are 256 shards, so
that no index grows out of proportion and a cluster spreads them. A group lists keys of many shards, so it cannot be
in the same script in a cluster: it is written *before* the record, and what it lists in vain is passed over by
readers. Whatever is in Redis is therefore listed; see `scripts.UNLIST` for how the vain ones go.
"""

from __future__ import annotations

import math
import struct
import zlib
from dataclasses import dataclass

from akoya_gateway.errors import StoreUnavailable
from akoya_gateway.store.base import Record

SHARDS = 256
_HEAD = struct.Struct(">QdH")
"""version, end in Unix seconds (infinity: none), length of the group; then the group, then the body."""


@dataclass(frozen=True, slots=True)
class KeySchema:
    prefix: str

    def record(self, kind: str, key: str) -> str:
        return f"{self._tag(zlib.crc32(key.encode()) % SHARDS)}:{kind}:{key}"

    def index(self, kind: str, key: str) -> str:
        return self.shard(kind, zlib.crc32(key.encode()) % SHARDS)

    def shard(self, kind: str, shard: int) -> str:
        return f"{self._tag(shard)}:{kind}"

    def group(self, kind: str, group: str) -> str:
        return f"{self.prefix}:group:{kind}:{group}"

    def channel(self, kind: str, key: str) -> str:
        return f"{self.prefix}:changed:{kind}:{key}"

    @property
    def indexes(self) -> str:
        """A pattern for all kind indexes (and, alas, for records: tell them by their type)."""
        return f"{{{self.prefix}:*}}:*"

    def _tag(self, shard: int) -> str:
        return f"{{{self.prefix}:{shard}}}"


def pack(record: Record) -> bytes:
    group = record.group.encode()
    end = math.inf if record.expires_at is None else record.expires_at
    return _HEAD.pack(record.version, end, len(group)) + group + record.body


def unpack(kind: str, key: str, packed: bytes) -> Record:
    """Raises `StoreUnavailable` for what `pack` never wrote."""
    try:
        version, end, length = _HEAD.unpack_from(packed)
        start = _HEAD.size + length
        group = packed[_HEAD.size : start].decode()
    except (struct.error, UnicodeDecodeError):
        raise StoreUnavailable("a value in Redis was not written by the gateway; choose another prefix") from None
    return Record(kind, key, packed[start:], version, group, None if end == math.inf else end)
