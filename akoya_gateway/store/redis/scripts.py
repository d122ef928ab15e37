"""Lua scripts for the operations that must be atomic at the server.

Scripts are called by digest (EVALSHA), and sent in full if the server does not have them, for example after a restart
or a failover. `now` is always the gateway's clock, so that all stores evaluate expiry in the same way. Redis' own
expiry is set accordingly and frees the memory.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua script and its digest."""

    text: str
    digest: str

    @classmethod
    def from_text(cls, text: str) -> Script:
        """Create a script and compute its digest."""
        # EVALSHA identifies scripts by SHA-1; security does not depend on it.
        return cls(text, hashlib.sha1(text.encode(), usedforsecurity=False).hexdigest())


@dataclass(frozen=True, slots=True)
class Call:
    """A script with its keys and arguments."""

    script: Script
    keys: tuple[str, ...]
    arguments: tuple[Any, ...]

    @property
    def by_digest(self) -> tuple[Any, ...]:
        """The EVALSHA command."""
        return ("EVALSHA", self.script.digest, len(self.keys), *self.keys, *self.arguments)

    @property
    def whole(self) -> tuple[Any, ...]:
        """The EVAL command, which contains the script."""
        return ("EVAL", self.script.text, len(self.keys), *self.keys, *self.arguments)


PUT = Script.from_text("""
-- record, index; key, version, now, milliseconds to live ('' for ever), end, packed record, channel
local present, now = 0, tonumber(ARGV[3])
local head = redis.call('GETRANGE', KEYS[1], 0, 15)
if #head == 16 then
  local version, ends = struct.unpack('>I8d', head)
  if ends > now then present = version end
end
if present + 1 ~= tonumber(ARGV[2]) then return 0 end
if ARGV[4] == '' then
  redis.call('SET', KEYS[1], ARGV[6])
  redis.call('ZADD', KEYS[2], '+inf', ARGV[1])
elseif tonumber(ARGV[4]) > 0 then
  redis.call('SET', KEYS[1], ARGV[6], 'PX', ARGV[4])
  redis.call('ZADD', KEYS[2], ARGV[5], ARGV[1])
else
  redis.call('DEL', KEYS[1])
  redis.call('ZREM', KEYS[2], ARGV[1])
end
redis.call('ZREMRANGEBYSCORE', KEYS[2], '-inf', ARGV[3])
redis.call('PUBLISH', ARGV[7], ARGV[2])
return 1
""")

RESEAL = Script.from_text("""
-- record; version, now, body
local packed = redis.call('GET', KEYS[1])
if not packed then return 0 end
local version, ends, length = struct.unpack('>I8dI2', packed)
if version ~= tonumber(ARGV[1]) or ends <= tonumber(ARGV[2]) then return 0 end
redis.call('SET', KEYS[1], string.sub(packed, 1, 18 + length) .. ARGV[3], 'KEEPTTL')
return 1
""")

REMOVE = Script.from_text("""
-- record, index; key, version ('' any), now, channel, 1 if the body is wanted
local packed = redis.call('GET', KEYS[1])
if not packed then return false end
local version, ends, length = struct.unpack('>I8dI2', packed)
if ends <= tonumber(ARGV[3]) then return false end
if ARGV[2] ~= '' and tonumber(ARGV[2]) ~= version then return false end
redis.call('DEL', KEYS[1])
redis.call('ZREM', KEYS[2], ARGV[1])
redis.call('PUBLISH', ARGV[4], '')
if ARGV[5] == '1' then return packed end
return string.sub(packed, 1, 18 + length)
""")

LIST = Script.from_text("""
-- group; key, milliseconds to live ('' for ever), 1 if the record is about to be created
local left, now = redis.call('PTTL', KEYS[1]), redis.call('TIME')[1]
if ARGV[3] == '1' then
  redis.call('ZADD', KEYS[1], now, ARGV[1])
else
  redis.call('ZADD', KEYS[1], 'NX', now, ARGV[1])
end
if ARGV[2] == '' then
  redis.call('PERSIST', KEYS[1])
elseif left == -2 or (left >= 0 and left < tonumber(ARGV[2])) then
  redis.call('PEXPIRE', KEYS[1], ARGV[2])
end
return 1
""")
"""Adds a key to a group and extends the group's expiry to that of its longest-lived member.

A record that is replaced keeps the time at which it was first listed. It exists, so no reader removes it from the group
meanwhile; if it does not exist, the replacement fails.
"""

UNLIST = Script.from_text("""
-- group; seconds of grace, then keys
local before = tonumber(redis.call('TIME')[1]) - tonumber(ARGV[1])
for n = 2, #ARGV do
  local listed = redis.call('ZSCORE', KEYS[1], ARGV[n])
  if listed and tonumber(listed) < before then redis.call('ZREM', KEYS[1], ARGV[n]) end
end
return 1
""")
"""Removes keys without a record from a group, unless they were listed within the grace period.

Within the grace period a writer may be about to write the record. A writer gives up long before the period ends
(`client.TOTAL_TIMEOUT_FACTOR` compared with `store.GRACE_SECONDS`).
"""
