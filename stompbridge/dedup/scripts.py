"""The Lua program of the Redis store: every step of a batch is carried out in one call, each of them atomically.

Its arguments are a sequence of operations: a letter, then what the operation takes from ``KEYS`` and ``ARGV`` in turn.
It returns one reply for each. All keys of a call lie in one slot of a Redis Cluster. Times are those of the server's
clock, in microseconds.

Keys, for a prefix ``p``; every one has a TTL:

``p:{r:<receiver>}``
    ``fence:epoch:open``: the newest session's fence, that of the session with which the history began, 1 or 0.
``p:{r:<receiver>}:<epoch>:w<window>:<sender>``
    The sender's window: the highest number in 8 bytes, then a ring of bits in which a number's place is its remainder.
    As in RFC 6479, the ring is a block (here a byte) longer than the window and is cleared by blocks. It is read and
    written as a whole, 137 bytes at most for a window of 1024.
``p:{r:<receiver>}:<epoch>:i``
    Sorted set of committed message ids by their time.
``p:{r:<receiver>}:<epoch>:l:...``
    A lock: ``fence:token:deadline``. It outlives its deadline, so that a message left in doubt is known as such.
``p:{k:<key>}``
    A sender's key: ``P:token:deadline:digest`` while its message is published, ``D:digest`` afterwards.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from stompbridge.dedup.store import StoreOptions

NEW, IN_DOUBT, DUPLICATE, TOO_OLD, BUSY, STALE = range(6)
DONE, MISMATCH, IN_FLIGHT = range(6, 9)

LARGEST = 2**53 - 1
"""Numbers in Lua 5.1 are doubles: beyond this they are not exact."""

CLOCK = "redis.call('TIME')"

_CONSTANTS = """\
local NEW, IN_DOUBT, DUPLICATE, TOO_OLD, BUSY, STALE, DONE, MISMATCH, IN_FLIGHT = 0, 1, 2, 3, 4, 5, 6, 7, 8
local WINDOW, BYTES, LOCK = {window}, {ring}, {lock}
local LOCK_TTL, HISTORY_TTL, OPEN_TTL = '{lock_ttl}', '{history}', '{open}'
local SENT_TTL, PENDING_TTL, PROBE_TTL = '{sent}', '{pending}', '1000'
local MAX_IDS, CHANNEL = {max_ids}, '{channel}'
"""

_PROGRAM = """\
local time = redis.call('TIME')
local now = time[1] * 1000000 + time[2]
local operations, replies = {}, {}
local k, a = 0, 0

-- All values are read by one command, changed here, and written at the end.
local values, changed = {}, {}
for index, value in ipairs(redis.call('MGET', unpack(KEYS))) do
  values[KEYS[index]] = value
end

local function put(key, value, ttl)
  values[key] = value
  changed[key] = ttl
end

local function delete(key)
  put(key, false, false)
end

local function text(number)
  return string.format('%.0f', number)
end

-- What is known of a receiver: the newest session's fence, 0 for none; the history's epoch; whether it is open.
local function known(root)
  local value = values[root]
  if not value then return 0 end
  local fence, epoch, open = string.match(value, '^(%d+):(%d*):([01])$')
  return tonumber(fence), epoch, open == '1'
end

-- The window's bits begin in the ring's first byte with the lowest.

local function recorded(value, number)
  if not value then return nil end
  local behind = struct.unpack('>I8', value) - number
  if behind < 0 then return nil end
  if behind >= WINDOW then return TOO_OLD end
  local byte = string.byte(value, 9 + math.fmod(math.floor(number / 8), BYTES)) or 0
  return bit.band(bit.rshift(byte, math.fmod(number, 8)), 1) == 1 and DUPLICATE or nil
end

local function cleared(ring, from, to)
  to = math.min(to, #ring - 1)
  if from > to then return ring end
  return string.sub(ring, 1, from) .. string.rep('\\0', to - from + 1) .. string.sub(ring, to + 2)
end

local function record(key, number)
  local value = values[key]
  local highest = value and struct.unpack('>I8', value) or number
  if highest - number >= WINDOW then return end
  local ring = value and string.sub(value, 9) or ''
  if number > highest then
    local last, block = math.floor(highest / 8), math.floor(number / 8)
    if block - last >= BYTES then
      ring = ''
    elseif block > last then
      local from, to = math.fmod(last + 1, BYTES), math.fmod(block, BYTES)
      if from <= to then
        ring = cleared(ring, from, to)
      else
        ring = cleared(cleared(ring, from, BYTES - 1), 0, to)
      end
    end
    highest = number
  end
  local place = math.fmod(math.floor(number / 8), BYTES)
  local byte = string.byte(ring, place + 1)
  if not byte then
    ring = ring .. string.rep('\\0', place + 1 - #ring)
    byte = 0
  end
  byte = string.char(bit.bor(byte, bit.lshift(1, math.fmod(number, 8))))
  ring = string.sub(ring, 1, place) .. byte .. string.sub(ring, place + 2)
  put(key, struct.pack('>I8', highest) .. ring, HISTORY_TTL)
end

local function lock(key, fence, token)
  local held = values[key]
  if held then
    local owner, deadline = string.match(held, '^(%d+):[^:]+:(%d+)$')
    if tonumber(owner) > tonumber(fence) then return STALE end
    if owner == fence and tonumber(deadline) > now then return BUSY end
  end
  put(key, fence .. ':' .. token .. ':' .. text(now + LOCK), LOCK_TTL)
  return held and IN_DOUBT or NEW
end

local function unlock(root, key, fence, token)
  local held = values[key]
  local mine = fence .. ':' .. token .. ':'
  if not held or string.sub(held, 1, #mine) ~= mine or known(root) > tonumber(fence) then return false end
  delete(key)
  return true
end

-- Claim and commit: root, window or ids, lock; fence, number or id, token. A commit returns 0 when it has no effect,
-- else 1 and how many ids were forgotten before their time.

function operations.C()
  local root, window, key = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  local fence, number, token = ARGV[a + 1], tonumber(ARGV[a + 2]), ARGV[a + 3]
  k, a = k + 3, a + 3
  if known(root) > tonumber(fence) then return STALE end
  return recorded(values[window], number) or lock(key, fence, token)
end

function operations.c()
  local root, ids, key = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  local fence, id, token = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  k, a = k + 3, a + 3
  if known(root) > tonumber(fence) then return STALE end
  local since = redis.call('ZSCORE', ids, id)
  if since and tonumber(since) > now - HISTORY_TTL * 1000 then return DUPLICATE end
  return lock(key, fence, token)
end

function operations.K()
  local root, window, key = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  local fence, number, token = ARGV[a + 1], tonumber(ARGV[a + 2]), ARGV[a + 3]
  k, a = k + 3, a + 3
  if not unlock(root, key, fence, token) then return 0 end
  record(window, number)
  return 1
end

function operations.k()
  local root, ids, key = KEYS[k + 1], KEYS[k + 2], KEYS[k + 3]
  local fence, id, token = ARGV[a + 1], ARGV[a + 2], ARGV[a + 3]
  k, a = k + 3, a + 3
  if not unlock(root, key, fence, token) then return 0 end
  redis.call('ZADD', ids, text(now), id)
  redis.call('ZREMRANGEBYSCORE', ids, '-inf', text(now - HISTORY_TTL * 1000))
  local evicted = redis.call('ZREMRANGEBYRANK', ids, 0, -MAX_IDS - 1)
  redis.call('PEXPIRE', ids, HISTORY_TTL)
  return 1 + evicted
end

-- Release: root, lock; fence, token.
function operations.R()
  local root, key = KEYS[k + 1], KEYS[k + 2]
  local fence, token = ARGV[a + 1], ARGV[a + 2]
  k, a = k + 2, a + 2
  return unlock(root, key, fence, token) and 1 or 0
end

-- A session: open, touch (fence, epoch), close (fence), discard; root.

local function advance(root)
  local fence, epoch, open = known(root)
  fence = math.max(fence + 1, now)
  if open then redis.call('PUBLISH', CHANNEL, text(fence) .. ' ' .. root) end
  return fence, epoch
end

function operations.O()
  local root = KEYS[k + 1]
  k = k + 1
  local fence, epoch = advance(root)
  epoch = tonumber(epoch) or fence
  put(root, text(fence) .. ':' .. text(epoch) .. ':1', OPEN_TTL)
  return {fence, epoch}
end

function operations.T()
  local root, fence, epoch = KEYS[k + 1], ARGV[a + 1], ARGV[a + 2]
  k, a = k + 1, a + 2
  if known(root) > tonumber(fence) then return STALE end
  put(root, fence .. ':' .. epoch .. ':1', OPEN_TTL)
  return NEW
end

function operations.X()
  local root, mine = KEYS[k + 1], tonumber(ARGV[a + 1])
  k, a = k + 1, a + 1
  local fence, epoch = known(root)
  if fence ~= mine then return 0 end
  put(root, text(fence) .. ':' .. epoch .. ':0', HISTORY_TTL)
  return 1
end

function operations.D()
  local root = KEYS[k + 1]
  k = k + 1
  put(root, text(advance(root)) .. '::0', HISTORY_TTL)
  return 1
end

-- A sender's key: begin (digest, token); renew, finish and abandon (token).

local function pending(token, digest)
  return 'P:' .. token .. ':' .. text(now + LOCK) .. ':' .. digest
end

local function held(key, token)
  local value = values[key]
  local mine = 'P:' .. token .. ':'
  if not value or string.sub(value, 1, #mine) ~= mine then return nil end
  return string.match(value, '^%d+:(.*)$', #mine + 1)
end

function operations.B()
  local key, digest, token = KEYS[k + 1], ARGV[a + 1], ARGV[a + 2]
  k, a = k + 1, a + 2
  local value = values[key]
  if value then
    if string.sub(value, 1, 2) == 'D:' then return string.sub(value, 3) == digest and DONE or MISMATCH end
    local deadline, other = string.match(value, '^P:[^:]+:(%d+):(.*)$')
    if other ~= digest then return MISMATCH end
    if tonumber(deadline) > now then return IN_FLIGHT end
  end
  put(key, pending(token, digest), PENDING_TTL)
  return value and IN_DOUBT or NEW
end

function operations.E()
  local key, token = KEYS[k + 1], ARGV[a + 1]
  k, a = k + 1, a + 1
  local digest = held(key, token)
  if not digest then return 0 end
  put(key, pending(token, digest), PENDING_TTL)
  return 1
end

function operations.F()
  local key, token = KEYS[k + 1], ARGV[a + 1]
  k, a = k + 1, a + 1
  local digest = held(key, token)
  if not digest then return 0 end
  put(key, 'D:' .. digest, SENT_TTL)
  return 1
end

function operations.A()
  local key, token = KEYS[k + 1], ARGV[a + 1]
  k, a = k + 1, a + 1
  if not held(key, token) then return 0 end
  delete(key)
  return 1
end

-- Probe: whether the server takes writes.
function operations.P()
  k = k + 1
  put(KEYS[k], '1', PROBE_TTL)
  return 1
end

while a < #ARGV do
  a = a + 1
  replies[#replies + 1] = operations[ARGV[a]]()
end

local deleted = {}
for key, ttl in pairs(changed) do
  if ttl then
    redis.call('SET', key, values[key], 'PX', ttl)
  else
    deleted[#deleted + 1] = key
  end
end
if #deleted > 0 then redis.call('DEL', unpack(deleted)) end
return replies
"""


@dataclass(frozen=True, slots=True)
class Script:
    """A Lua program and the name under which a server keeps it: the SHA-1 of its text, in hexadecimal."""

    source: str
    sha: str

    @classmethod
    def of(cls, source: str) -> Script:
        return cls(source, hashlib.sha1(source.encode(), usedforsecurity=False).hexdigest())


def channel(options: StoreOptions) -> str:
    """Where take-overs are announced to the other processes of the deployment: ``<fence> <key of the receiver>``."""
    return f"{options.prefix}:taken-over"


def ring(window: int) -> int:
    """Bytes that hold ``window`` numbers wherever they begin, with a byte's worth to spare for clearing."""
    return (window + 6) // 8 + 1


def open_ttl(options: StoreOptions) -> float:
    """How long the server knows who has a receiver open without hearing of it; longer than what was in the history."""
    return max(2 * options.history_ttl, 60.0)


def build(options: StoreOptions) -> Script:
    """The program for these options."""
    history = _milliseconds(options.history_ttl)
    lock = _milliseconds(options.lock_ttl)
    sent = _milliseconds(options.idempotency_window)
    constants = _CONSTANTS.format(
        window=options.window,
        ring=ring(options.window),
        lock=lock * 1000,
        lock_ttl=max(lock, history),
        history=history,
        open=_milliseconds(open_ttl(options)),
        sent=sent,
        pending=max(lock, sent),
        max_ids=options.max_ids,
        channel=channel(options),
    )
    return Script.of(constants + _PROGRAM)


def _milliseconds(seconds: float) -> int:
    return max(round(seconds * 1000), 1)
