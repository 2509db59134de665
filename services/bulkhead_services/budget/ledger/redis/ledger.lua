-- The ledger inside Redis: one atomic call for the operations of one moment, one after the other. The same semantics as
-- core.py, which is its model.
--
-- KEYS[1]  the epoch key. ARGV: epoch, prefix, lease_ms, keep_ms, settled_keep_ms; then per operation how many words it
-- has, its name, its own words. The answer is JSON: one list per operation; or ["fenced"].
-- Every call proves its epoch first: a writer from before a rebuild, or an emptied Redis, changes nothing.
-- Balances are read when they are first needed and written once, at the end: calls of one moment share most of theirs.
-- Other keys are named from the prefix, which carries the hash tag of KEYS[1]: one slot.
-- A sum is its units in order, `tokens,cost,model_calls,tool_calls,wall_ms`.
--
--   <prefix>r:<key>     one reservation: state, terms (ask, at, scopes), holders, what was charged
--   <prefix>s:<scope>   one balance: twelve doubles, reserved and spent by unit, settlements, stopped (exact to 2^53)
--   <prefix>l:<tenant>  the revision of the tenant's limits, and when somebody last looked
--   <prefix>open        open reservations by the end of their lease
--   <prefix>unread      those held ahead whose lease is over, by the time of which all replies must be read
--   <prefix>read        all replies of before are in it (unix ms)
--
-- Beside the ledger, under the hash tag: `replies`, how far the replies of each edge have been read into the one that
-- stands. A rebuild reads it: the next ledger's reader begins where this one's was.

local epoch, prefix = ARGV[1], ARGV[2]
local lease_ms, keep_ms, settled_keep_ms = tonumber(ARGV[3]), ARGV[4], ARGV[5]
local FIRST = 6

if redis.call('GET', KEYS[1]) ~= epoch then
  return '["fenced"]'
end

local UNITS, ASKED, UNLIMITED = 5, 4, 2 ^ 53
local NAMES = {'tokens', 'cost_usd_micros', 'model_calls', 'tool_calls', 'wall_ms'}
local ORDER = {2, 1, 3, 4, 5}
local NOTHING = {0, 0, 0, 0, 0}
local OPEN, UNREAD = prefix .. 'open', prefix .. 'unread'
local REPLIES = string.gsub(KEYS[1], 'epoch$', 'replies')

-- Amounts are whole; Lua would write large ones with an exponent and minus nothing as '-0'.
local function int(number)
  return string.format('%.0f', number + 0)
end

local function sum_of(text)
  local sum = {}
  for part in string.gmatch(text or '', '[^,]+') do
    sum[#sum + 1] = tonumber(part)
  end
  for unit = #sum + 1, UNITS do
    sum[unit] = 0
  end
  return sum
end

local function text_of(sum)
  return table.concat({int(sum[1]), int(sum[2]), int(sum[3]), int(sum[4]), int(sum[5])}, ',')
end

local function added(one, other, sign)
  local sum = {}
  for unit = 1, UNITS do
    sum[unit] = one[unit] + sign * other[unit]
  end
  return sum
end

local function beyond(one, other)
  for unit = 1, ASKED do
    if one[unit] > other[unit] then
      return true
    end
  end
  return false
end

local decoded = {}
local function scopes_of(json)
  local found = decoded[json]
  if not found then
    found = cjson.decode(json)
    decoded[json] = found
  end
  return found
end

local function entry_of(key)
  local found = redis.call('HMGET', prefix .. 'r:' .. key, 'state', 'ask', 'at', 'scopes', 'holders', 'charged', 'usage',
    'estimated', 'ceiling')
  if not found[1] then
    return nil
  end
  local entry = {state = found[1], ask = sum_of(found[2]), at = tonumber(found[3] or '0'), scopes_json = found[4] or '[]',
    holders = tonumber(found[5] or '0'), charged = sum_of(found[6]), usage = sum_of(found[7]), estimated = found[8] == '1',
    ceiling = found[9]}
  entry.scopes = scopes_of(entry.scopes_json)
  return entry
end

local function put(key, ...)
  redis.call('HSET', prefix .. 'r:' .. key, ...)
  redis.call('PEXPIRE', prefix .. 'r:' .. key, keep_ms)
end

local FORM, RESERVED, SPENT, SETTLED, STOPPED = '<dddddddddddd', 0, 5, 11, 12

-- Packed: one call for twelve numbers, where writing and reading them as text costs most of an admission.
local function parsed(text)
  if not text then
    return {0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}
  end
  return {struct.unpack(FORM, text)}
end

local function packed(balance)
  return struct.pack(FORM, unpack(balance, 1, 12))
end

local function text_of_balance(balance)
  local words = {}
  for at = 1, 12 do
    words[at] = int(balance[at])
  end
  return table.concat(words, ',')
end

-- A month is not over while somebody still spends nothing in it.
local MONTH_KEEP_MS = 40 * 24 * 3600 * 1000

-- A task is over when its grant is; its last calls are told of a little later.
local AFTER_TASK = 6 * lease_ms

-- By account: its balance, and when it ends; 0 where its name says that.
local balance_of, changed = {}, {}

local function touch(scope, until_ms)
  changed[scope] = until_ms and until_ms > 0 and until_ms or changed[scope] or 0
end

local function write_balances()
  for scope, until_ms in pairs(changed) do
    if until_ms > 0 then
      redis.call('SET', prefix .. 's:' .. scope, packed(balance_of[scope]), 'PXAT', int(until_ms + AFTER_TASK))
    else
      local keep = tonumber(keep_ms)
      if string.sub(scope, 1, 6) == 'month:' then
        keep = math.max(keep, MONTH_KEEP_MS)
      end
      redis.call('SET', prefix .. 's:' .. scope, packed(balance_of[scope]), 'PX', int(keep))
    end
  end
end

local function balances_of(scopes)
  local names, missing = {}, {}
  for _, scope in ipairs(scopes) do
    if not balance_of[scope[1]] then
      missing[#missing + 1] = scope[1]
      names[#names + 1] = prefix .. 's:' .. scope[1]
    end
  end
  if #names > 0 then
    local found = redis.call('MGET', unpack(names))
    for at, scope in ipairs(missing) do
      balance_of[scope] = parsed(found[at])
    end
  end
  local balances = {}
  for at, scope in ipairs(scopes) do
    balances[at] = balance_of[scope[1]]
  end
  return balances
end

local function move(entry, reserved, spent, settled, balances)
  balances = balances or balances_of(entry.scopes)
  for at, balance in ipairs(balances) do
    for unit = 1, UNITS do
      balance[RESERVED + unit] = balance[RESERVED + unit] + reserved[unit]
      balance[SPENT + unit] = balance[SPENT + unit] + spent[unit]
    end
    balance[SETTLED] = balance[SETTLED] + settled
    touch(entry.scopes[at][1], entry.scopes[at][7])
  end
  return balances
end

local function ceiling(scope, unit, spent, reserved, asked, limit)
  return table.concat({scope, NAMES[unit], int(spent), int(reserved), int(asked), int(limit)}, '|')
end

local function exceeded(entry, balances)
  for at, scope in ipairs(entry.scopes) do
    for _, unit in ipairs(ORDER) do
      local spent, limit = balances[at][SPENT + unit], scope[unit + 1]
      if spent > limit then
        return ceiling(scope[1], unit, spent, balances[at][RESERVED + unit], 0, limit)
      end
    end
  end
  return ''
end

-- Of every ceiling over the accounts of a call: how far it has come.
local function levels(entry, balances)
  local found = {}
  for at, scope in ipairs(entry.scopes) do
    for _, unit in ipairs(ORDER) do
      if scope[unit + 1] < UNLIMITED then
        found[#found + 1] = table.concat({scope[1], NAMES[unit], int(balances[at][SPENT + unit]), int(scope[unit + 1]),
          int(scope[7] or 0)}, '|')
      end
    end
  end
  return found
end

local function charge(key, entry, usage, estimated)
  local charged = usage
  if estimated then
    charged = {entry.ask[1], entry.ask[2], entry.ask[3], entry.ask[4], usage[5]}
  end
  local balances
  if entry.state == 'open' then
    balances = move(entry, added(NOTHING, entry.ask, -1), charged, 1)
    redis.call('ZREM', OPEN, key)
  else
    balances = move(entry, NOTHING, added(charged, entry.ask, -1), 1)
  end
  redis.call('HSET', prefix .. 'r:' .. key, 'state', 'settled', 'charged', text_of(charged))
  -- Its money is in the balances: what is left of it only answers who asks again.
  redis.call('PEXPIRE', prefix .. 'r:' .. key, settled_keep_ms)
  entry.state, entry.charged = 'settled', charged
  return balances
end

local function settlement(kind, entry, over, balances)
  balances = balances or balances_of(entry.scopes)
  local stopped = ''
  if balances[1] and balances[1][STOPPED] == 1 then
    stopped = text_of_balance(balances[1])
  end
  return {kind, text_of(entry.charged), text_of(entry.ask), over and '1' or '0', exceeded(entry, balances), stopped,
    levels(entry, balances)}
end

local function settled_now(entry, usage, estimated, balances)
  return settlement('settled', entry, not estimated and beyond(usage, entry.ask), balances)
end

local function open(key, entry, known, balances)
  if known then
    redis.call('DEL', prefix .. 'r:' .. key)
  end
  put(key, 'state', 'open', 'ask', text_of(entry.ask), 'at', int(entry.at), 'scopes', entry.scopes_json, 'holders', '1')
  redis.call('ZADD', OPEN, int(entry.at + lease_ms), key)
  move(entry, entry.ask, NOTHING, 0, balances)
  entry.state = 'open'
  if known and known.state == 'early' then
    charge(key, entry, known.usage, known.estimated)
  end
end

-- The key of the reservation that is used before this one, which is held ahead.
local function key_before(key)
  local first, number = string.match(key, '^(.*[^/])-(%d+)$')
  if number and tonumber(number) > 1 then
    return first .. '-' .. int(tonumber(number) - 1)
  end
  return first
end

-- What nobody settled within its lease counts as spent; what was held ahead and never used returns, once the replies
-- that could tell of its use were read.
local function end_lease(key, read)
  local entry, before = entry_of(key), key_before(key)
  if not entry or entry.state ~= 'open' then
    return
  end
  local state = before and redis.call('HGET', prefix .. 'r:' .. before, 'state')
  local due = entry.at + math.floor(lease_ms / 2)
  if before and read < due then
    redis.call('ZADD', UNREAD, int(due), key)
  elseif not state or state == 'settled' or state == 'early' then
    move(entry, added(NOTHING, entry.ask, -1), entry.ask, 0)
    put(key, 'state', 'lapsed')
  else
    -- A doer uses it when the one before is settled, within a quarter of the lease, and not again.
    move(entry, added(NOTHING, entry.ask, -1), NOTHING, 0)
    put(key, 'state', 'released', 'holders', '0')
  end
end

-- So many of each index at a time: nothing else runs meanwhile. The others stay held until the next admission.
local MOST_SWEPT = 100

local swept
local function sweep(now)
  if swept and swept >= now then
    return
  end
  swept = now
  local read = tonumber(redis.call('GET', prefix .. 'read') or '0')
  for index, until_ms in pairs({[OPEN] = now, [UNREAD] = read}) do
    for _, key in ipairs(redis.call('ZRANGEBYSCORE', index, '-inf', int(until_ms), 'LIMIT', 0, MOST_SWEPT)) do
      redis.call('ZREM', index, key)
      end_lease(key, read)
    end
  end
end

local function full(entry, balances, with_reserved)
  for at, scope in ipairs(entry.scopes) do
    local balance = balances[at]
    for _, unit in ipairs(ORDER) do
      local spent, held, asked, limit = balance[SPENT + unit], balance[RESERVED + unit], entry.ask[unit], scope[unit + 1]
      if spent + asked + (with_reserved and held or 0) > limit then
        return ceiling(scope[1], unit, spent, held, asked, limit)
      end
    end
  end
  return nil
end

-- Whether so many times what is held with the ask does not fit into what is left unspent.
local function near(entry, balances, margin)
  for at, scope in ipairs(entry.scopes) do
    local balance = balances[at]
    for _, unit in ipairs(ORDER) do
      local spent, held, asked, limit = balance[SPENT + unit], balance[RESERVED + unit], entry.ask[unit], scope[unit + 1]
      if asked > 0 and limit < UNLIMITED and margin * (held + asked) > limit - spent then
        return ceiling(scope[1], unit, spent, held, asked, limit)
      end
    end
  end
  return nil
end

local function is_held(entry)
  return entry and (entry.state == 'open' or entry.state == 'lapsed' or entry.state == 'settled')
end

local looks = {}
local function look_of(tenant)
  looks[tenant] = looks[tenant] or redis.call('HMGET', prefix .. 'l:' .. tenant, 'revision', 'looked')
  return looks[tenant]
end

-- The terms that whoever asks named are not told back.
local function held(entry, scopes)
  return {'held', entry.scopes_json == scopes and '' or entry.scopes_json, int(entry.at)}
end

local ops = {}

-- key, ask, scopes, now, how often it must fit, then optionally the tenant, the revision that the scopes were made of,
-- how long a look is good
function ops.reserve(key, ask, scopes, now, margin, tenant, revision, good_ms)
  ask, now, margin = sum_of(ask), tonumber(now), tonumber(margin)
  if tenant then
    local known = look_of(tenant)
    -- A look from the future is of a replica whose clock is ahead: it would be good for as long as that is.
    if known[1] ~= revision or math.abs(now - tonumber(known[2])) > tonumber(good_ms) then
      return {'stale', known[1] or '0'}
    end
  end
  local known = entry_of(key)
  if known and (known.state == 'settled' or known.state == 'early') then
    return {'conflict', text_of(known.ask), '1'}
  end
  if (is_held(known) or (known and known.state == 'released')) and beyond(ask, known.ask) then
    return {'conflict', text_of(known.ask), '0'}
  end
  if is_held(known) then
    put(key, 'holders', int(known.holders + 1))
    return held(known, scopes)
  end
  if known and known.state == 'refused' then
    return {'denied', known.ceiling}
  end
  sweep(now)
  local fresh = {ask = ask, at = now, scopes_json = scopes, charged = NOTHING}
  if known and known.state == 'released' then
    -- The first attempt may have left its fact in the journal: the terms must stay the ones it names.
    fresh.ask, fresh.at, fresh.scopes_json = known.ask, known.at, known.scopes_json
  end
  fresh.scopes = scopes_of(fresh.scopes_json)
  local balances = balances_of(fresh.scopes)
  local close = margin > 0 and near(fresh, balances, margin)
  if close then
    return {'waiting', close}
  end
  local denied = margin == 0 and full(fresh, balances, false)
  if denied then
    redis.call('DEL', prefix .. 'r:' .. key)
    put(key, 'state', 'refused', 'ask', text_of(fresh.ask), 'at', int(fresh.at), 'scopes', fresh.scopes_json,
      'holders', '0', 'ceiling', denied)
    return {'denied', denied}
  end
  if balances[1] and balances[1][STOPPED] == 1 then
    return {'stopped', fresh.scopes[1][1]}
  end
  local waiting = full(fresh, balances, true)
  if waiting then
    return {'waiting', waiting}
  end
  open(key, fresh, known, balances)
  return held(fresh, scopes)
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
    move(entry, added(NOTHING, entry.ask, -1), NOTHING, 0)
    redis.call('ZREM', OPEN, key)
  else
    move(entry, NOTHING, added(NOTHING, entry.ask, -1), 0)
  end
  put(key, 'state', 'released', 'holders', '0')
  return {'released'}
end

-- key, usage, estimated
function ops.settle(key, usage, estimated)
  usage, estimated = sum_of(usage), estimated == '1'
  local entry = entry_of(key)
  if not entry or entry.state == 'released' then
    redis.call('DEL', prefix .. 'r:' .. key)
    put(key, 'state', 'early', 'usage', text_of(usage), 'estimated', estimated and '1' or '0')
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
  local balances = charge(key, entry, usage, estimated)
  return settled_now(entry, usage, estimated, balances)
end

-- key, ask, scopes, at
function ops.restore(key, ask, scopes, at)
  local known = entry_of(key)
  if is_held(known) then
    return settlement('repeated', known, false)
  end
  local entry = {ask = sum_of(ask), at = tonumber(at), scopes_json = scopes, scopes = scopes_of(scopes),
    charged = NOTHING}
  open(key, entry, known)
  if known and known.state == 'early' then
    return settled_now(entry, known.usage, known.estimated)
  end
  return {'ignored', text_of(NOTHING), text_of(entry.ask), '0', '', '', {}}
end

-- key
function ops.holds(key)
  local state = redis.call('HGET', prefix .. 'r:' .. key, 'state')
  return {(state == 'open' or state == 'lapsed' or state == 'settled') and '1' or '0'}
end

-- scope
function ops.stop(scope)
  local balance = balances_of({{scope}})[1]
  balance[STOPPED] = 1
  touch(scope)
  return {'stopped', text_of_balance(balance)}
end

-- scope
function ops.balance(scope)
  return {'balance', text_of_balance(balances_of({{scope}})[1])}
end

-- tenant, revision, now
function ops.look(tenant, revision, now)
  local name = prefix .. 'l:' .. tenant
  local known = tonumber(redis.call('HGET', name, 'revision') or '-1')
  if known > tonumber(revision) then
    return {'stale', int(known)}
  end
  redis.call('HSET', name, 'revision', revision, 'looked', now)
  redis.call('PEXPIRE', name, keep_ms)
  looks[tenant] = nil
  return {'looked'}
end

-- edge, sequence
function ops.position(edge, sequence)
  if tonumber(sequence) > tonumber(redis.call('HGET', REPLIES, edge) or '0') then
    redis.call('HSET', REPLIES, edge, sequence)
  end
  return {'moved'}
end

-- now
function ops.read(now)
  if tonumber(now) > tonumber(redis.call('GET', prefix .. 'read') or '0') then
    redis.call('SET', prefix .. 'read', now, 'PX', keep_ms)
  end
  return {'read'}
end

local answers = {}
local done, problem = pcall(function()
  local at = FIRST
  while ARGV[at] do
    local last = at + tonumber(ARGV[at])
    answers[#answers + 1] = ops[ARGV[at + 1]](unpack(ARGV, at + 2, last))
    at = last + 1
  end
end)
-- Also when an operation failed: what the ones before it wrote down must be in the balances.
write_balances()
if not done then
  return redis.error_reply(type(problem) == 'table' and problem.err or tostring(problem))
end
return cjson.encode(answers)
