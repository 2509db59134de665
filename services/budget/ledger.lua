-- The ledger inside Redis: one atomic call per operation. The same semantics as core.py, which is its model.
--
-- KEYS[1]  the epoch key. ARGV: op, epoch, prefix, lease_ms, keep_ms, then the op's own.
-- Every call proves its epoch first: a writer from before a rebuild, or an emptied Redis, changes nothing.
-- Other keys are named from the prefix, which carries the hash tag of KEYS[1]: one slot.
--
--   <prefix>r:<key>    one reservation: state, terms (tokens, cost, at, scopes), holders, what was charged
--   <prefix>s:<scope>  one balance: reserved_tokens, reserved_cost, spent_tokens, spent_cost
--   <prefix>open       open reservations by the end of their lease

local op, epoch, prefix = ARGV[1], ARGV[2], ARGV[3]
local lease_ms, keep_ms = tonumber(ARGV[4]), ARGV[5]

if redis.call('GET', KEYS[1]) ~= epoch then
  return {'fenced'}
end

local UNITS = {{'cost_usd_micros', 'cost', 3}, {'tokens', 'tokens', 2}}
local OPEN = prefix .. 'open'

-- Amounts are whole; Lua would write large ones with an exponent and minus nothing as '-0'.
local function int(number)
  return string.format('%.0f', number + 0)
end

local function entry_of(key)
  local found = redis.call('HMGET', prefix .. 'r:' .. key, 'state', 'tokens', 'cost', 'at', 'scopes', 'holders',
    'charged_tokens', 'charged_cost', 'usage_tokens', 'usage_cost', 'estimated', 'ceiling')
  if not found[1] then
    return nil
  end
  local entry = {state = found[1], holders = tonumber(found[6] or '0'), ceiling = found[12], estimated = found[11] == '1'}
  entry.tokens, entry.cost, entry.at = tonumber(found[2] or '0'), tonumber(found[3] or '0'), tonumber(found[4] or '0')
  entry.scopes_json = found[5] or '[]'
  entry.scopes = cjson.decode(entry.scopes_json)
  entry.charged_tokens, entry.charged_cost = tonumber(found[7] or '0'), tonumber(found[8] or '0')
  entry.usage_tokens, entry.usage_cost = tonumber(found[9] or '0'), tonumber(found[10] or '0')
  return entry
end

local function put(key, ...)
  redis.call('HSET', prefix .. 'r:' .. key, ...)
  redis.call('PEXPIRE', prefix .. 'r:' .. key, keep_ms)
end

local function move(entry, reserved_tokens, reserved_cost, spent_tokens, spent_cost)
  for _, scope in ipairs(entry.scopes) do
    local name = prefix .. 's:' .. scope[1]
    redis.call('HINCRBY', name, 'reserved_tokens', int(reserved_tokens))
    redis.call('HINCRBY', name, 'reserved_cost', int(reserved_cost))
    redis.call('HINCRBY', name, 'spent_tokens', int(spent_tokens))
    redis.call('HINCRBY', name, 'spent_cost', int(spent_cost))
    redis.call('PEXPIRE', name, keep_ms)
  end
end

local function balance_of(scope)
  local found = redis.call('HMGET', prefix .. 's:' .. scope, 'reserved_tokens', 'reserved_cost', 'spent_tokens', 'spent_cost')
  return {reserved = {tokens = tonumber(found[1] or '0'), cost = tonumber(found[2] or '0')},
    spent = {tokens = tonumber(found[3] or '0'), cost = tonumber(found[4] or '0')}}
end

local function ceiling(scope, unit, spent, reserved, asked, limit)
  return table.concat({scope, unit, int(spent), int(reserved), int(asked), int(limit)}, '|')
end

local function exceeded(entry)
  for _, scope in ipairs(entry.scopes) do
    local balance = balance_of(scope[1])
    for _, unit in ipairs(UNITS) do
      local spent, limit = balance.spent[unit[2]], scope[unit[3]]
      if spent > limit then
        return ceiling(scope[1], unit[1], spent, balance.reserved[unit[2]], 0, limit)
      end
    end
  end
  return ''
end

local function charge(key, entry, usage_tokens, usage_cost, estimated)
  local tokens, cost = usage_tokens, usage_cost
  if estimated then
    tokens, cost = entry.tokens, entry.cost
  end
  if entry.state == 'open' then
    move(entry, -entry.tokens, -entry.cost, tokens, cost)
    redis.call('ZREM', OPEN, key)
  else
    move(entry, 0, 0, tokens - entry.tokens, cost - entry.cost)
  end
  put(key, 'state', 'settled', 'charged_tokens', int(tokens), 'charged_cost', int(cost))
  entry.state, entry.charged_tokens, entry.charged_cost = 'settled', tokens, cost
end

local function settlement(kind, entry, over)
  return {kind, int(entry.charged_tokens), int(entry.charged_cost), int(entry.tokens), int(entry.cost),
    over and '1' or '0', exceeded(entry)}
end

local function settled_now(key, entry, usage_tokens, usage_cost, estimated)
  local over = not estimated and (usage_tokens > entry.tokens or usage_cost > entry.cost)
  return settlement('settled', entry, over)
end

local function open(key, entry, known)
  redis.call('DEL', prefix .. 'r:' .. key)
  put(key, 'state', 'open', 'tokens', int(entry.tokens), 'cost', int(entry.cost), 'at', int(entry.at),
    'scopes', entry.scopes_json, 'holders', '1')
  redis.call('ZADD', OPEN, int(entry.at + lease_ms), key)
  move(entry, entry.tokens, entry.cost, 0, 0)
  entry.state = 'open'
  if known and known.state == 'early' then
    charge(key, entry, known.usage_tokens, known.usage_cost, known.estimated)
  end
end

local function sweep(now)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', OPEN, '-inf', int(now))) do
    local entry = entry_of(key)
    if entry and entry.state == 'open' then
      move(entry, -entry.tokens, -entry.cost, entry.tokens, entry.cost)
      put(key, 'state', 'lapsed')
    end
    redis.call('ZREM', OPEN, key)
  end
end

local function full(entry, with_reserved)
  for _, scope in ipairs(entry.scopes) do
    local balance = balance_of(scope[1])
    for _, unit in ipairs(UNITS) do
      local spent, held, asked, limit = balance.spent[unit[2]], balance.reserved[unit[2]], entry[unit[2]], scope[unit[3]]
      if spent + asked + (with_reserved and held or 0) > limit then
        return ceiling(scope[1], unit[1], spent, held, asked, limit)
      end
    end
  end
  return nil
end

local function is_held(entry)
  return entry and (entry.state == 'open' or entry.state == 'lapsed' or entry.state == 'settled')
end

local ops = {}

-- key, tokens, cost, scopes, now
function ops.reserve(key, tokens, cost, scopes, now)
  tokens, cost, now = tonumber(tokens), tonumber(cost), tonumber(now)
  local known = entry_of(key)
  if known and (known.state == 'settled' or known.state == 'early') then
    return {'conflict', int(known.tokens), int(known.cost), '1'}
  end
  if (is_held(known) or (known and known.state == 'released')) and (tokens > known.tokens or cost > known.cost) then
    return {'conflict', int(known.tokens), int(known.cost), '0'}
  end
  if is_held(known) then
    put(key, 'holders', int(known.holders + 1))
    return {'held', known.scopes_json, int(known.at)}
  end
  if known and known.state == 'refused' then
    return {'denied', known.ceiling}
  end
  sweep(now)
  local fresh = {tokens = tokens, cost = cost, at = now, scopes_json = scopes, charged_tokens = 0, charged_cost = 0}
  if known and known.state == 'released' then
    -- The first attempt may have left its fact in the journal: the terms must stay the ones it names.
    fresh.tokens, fresh.cost, fresh.at, fresh.scopes_json = known.tokens, known.cost, known.at, known.scopes_json
  end
  fresh.scopes = cjson.decode(fresh.scopes_json)
  local denied = full(fresh, false)
  if denied then
    redis.call('DEL', prefix .. 'r:' .. key)
    put(key, 'state', 'refused', 'tokens', int(fresh.tokens), 'cost', int(fresh.cost), 'at', int(fresh.at),
      'scopes', fresh.scopes_json, 'holders', '0', 'ceiling', denied)
    return {'denied', denied}
  end
  local waiting = full(fresh, true)
  if waiting then
    return {'waiting', waiting}
  end
  open(key, fresh, known)
  return {'held', fresh.scopes_json, int(fresh.at)}
end

-- key
function ops.release(key)
  local entry = entry_of(key)
  if not entry or (entry.state ~= 'open' and entry.state ~= 'lapsed') then
    return {'ignored'}
  end
  if entry.holders > 1 then
    put(key, 'holders', int(entry.holders - 1))
    return {'ignored'}
  end
  if entry.state == 'open' then
    move(entry, -entry.tokens, -entry.cost, 0, 0)
    redis.call('ZREM', OPEN, key)
  else
    move(entry, 0, 0, -entry.tokens, -entry.cost)
  end
  put(key, 'state', 'released', 'holders', '0')
  return {'released'}
end

-- key, tokens, cost, estimated
function ops.settle(key, tokens, cost, estimated)
  tokens, cost, estimated = tonumber(tokens), tonumber(cost), estimated == '1'
  local entry = entry_of(key)
  if not entry or entry.state == 'released' then
    redis.call('DEL', prefix .. 'r:' .. key)
    put(key, 'state', 'early', 'usage_tokens', int(tokens), 'usage_cost', int(cost), 'estimated', estimated and '1' or '0')
    return {'unknown'}
  end
  if entry.state == 'early' then
    return {'unknown'}
  end
  if entry.state == 'refused' then
    return {'ignored'}
  end
  if entry.state == 'settled' then
    return settlement('repeated', entry, false)
  end
  charge(key, entry, tokens, cost, estimated)
  return settled_now(key, entry, tokens, cost, estimated)
end

-- key, tokens, cost, scopes, at
function ops.restore(key, tokens, cost, scopes, at)
  local known = entry_of(key)
  if is_held(known) then
    return settlement('repeated', known, false)
  end
  local entry = {tokens = tonumber(tokens), cost = tonumber(cost), at = tonumber(at), scopes_json = scopes,
    scopes = cjson.decode(scopes), charged_tokens = 0, charged_cost = 0}
  open(key, entry, known)
  if known and known.state == 'early' then
    return settled_now(key, entry, known.usage_tokens, known.usage_cost, known.estimated)
  end
  return {'ignored', '0', '0', int(entry.tokens), int(entry.cost), '0', ''}
end

return ops[op](unpack(ARGV, 6))
