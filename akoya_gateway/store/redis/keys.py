"""The Redis keys and the format of their values.

    {prefix:n}:kind:key      a record: one packed string, with Redis' own expiry
    {prefix:n}:kind          index of the records of a kind in shard n: a sorted set, key -> expiry
    prefix:group:kind:group  index of a group: a sorted set, key -> time at which it was added

A record and its kind index share the hash tag, so that one script can change both, also in a cluster. There are 256
shards, so that no index grows too large and a cluster spreads them over its nodes. A group contains keys of many
shards, so in a cluster the script that writes the record cannot update it. The group is written *before* the record,
and readers skip group entries without a record. Every record in Redis is therefore listed in its group.
`scripts.UNLIST` removes entries without a record.
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
"""Header of a packed record: version, expiry in Unix seconds (infinity if none), length of the group.

The group and the body follow it.
"""


@dataclass(frozen=True, slots=True)
class KeySchema:
    """Names of the keys and channels."""

    prefix: str

    def record(self, kind: str, key: str) -> str:
        """Return the key of a record."""
        return f"{self._tag(zlib.crc32(key.encode()) % SHARDS)}:{kind}:{key}"

    def index(self, kind: str, key: str) -> str:
        """Return the key of the kind index that lists the record."""
        return self.shard(kind, zlib.crc32(key.encode()) % SHARDS)

    def shard(self, kind: str, shard: int) -> str:
        """Return the key of the kind index of one shard."""
        return f"{self._tag(shard)}:{kind}"

    def group(self, kind: str, group: str) -> str:
        """Return the key of a group index."""
        return f"{self.prefix}:group:{kind}:{group}"

    def channel(self, kind: str, key: str) -> str:
        """Return the channel on which changes of a record are published."""
        return f"{self.prefix}:changed:{kind}:{key}"

    @property
    def indexes(self) -> str:
        """Pattern that matches all kind indexes. It also matches records, so filter by the type of the key."""
        return f"{{{self.prefix}:*}}:*"

    def _tag(self, shard: int) -> str:
        return f"{{{self.prefix}:{shard}}}"


def pack(record: Record) -> bytes:
    """Encode a record as one string."""
    group = record.group.encode()
    end = math.inf if record.expires_at is None else record.expires_at
    return _HEAD.pack(record.version, end, len(group)) + group + record.body


def unpack(kind: str, key: str, packed: bytes) -> Record:
    """Decode a packed record. Raises `StoreUnavailable` for a value that `pack` did not write."""
    try:
        version, end, length = _HEAD.unpack_from(packed)
        start = _HEAD.size + length
        group = packed[_HEAD.size : start].decode()
    except (struct.error, UnicodeDecodeError):
        raise StoreUnavailable("a value in Redis was not written by the gateway; choose another prefix") from None
    return Record(kind, key, packed[start:], version, group, None if end == math.inf else end)
