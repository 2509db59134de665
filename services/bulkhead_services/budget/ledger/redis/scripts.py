"""The scripts that run inside Redis: the ledger's operations, and the locks and leases of replicas.

In: keys and arguments, as RedisStore gives them. Out: text. Each script is one atomic step.
"""

from pathlib import Path

LEDGER = (Path(__file__).with_name("ledger.lua")).read_text()
FENCE = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return '-' end
local old = redis.call('GET', KEYS[1]) or ''
redis.call('DEL', KEYS[1])
return old
"""
KEEP_LOCK = """
if redis.call('GET', KEYS[1]) ~= ARGV[1] then return 0 end
redis.call('PEXPIRE', KEYS[1], ARGV[2])
return 1
"""
SWITCH = """
if redis.call('GET', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[2])
redis.call('DEL', KEYS[2], KEYS[3])
if #ARGV > 2 then redis.call('HSET', KEYS[3], unpack(ARGV, 3)) end
return 1
"""
LEAD = """
local held = redis.call('GET', KEYS[1])
if held and held ~= ARGV[1] then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2])
return 1
"""
UNLOCK = "if redis.call('GET', KEYS[1]) == ARGV[1] then redis.call('DEL', KEYS[1]) end return 1"
WRITE = """
local prefix = KEYS[1]
for _, row in ipairs(cjson.decode(ARGV[1])) do
  local kind, name, until_ms, fields = unpack(row)
  if kind == 'open' then
    redis.call('ZADD', prefix .. 'open', until_ms, name)
  elseif kind == 's' then
    redis.call('SET', prefix .. 's:' .. name, struct.pack('<dddddddddddd', unpack(fields)), 'PX', until_ms)
  else
    redis.call('HSET', prefix .. 'r:' .. name, unpack(fields))
    redis.call('PEXPIRE', prefix .. 'r:' .. name, until_ms)
  end
end
return 1
"""
"""Rows of a ledger that is built: one command for hundreds, for their packing one by one cost a fifth of a rebuild."""
