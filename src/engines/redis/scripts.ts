/**
 * Everything that Conclave does on a Redis server, as Lua scripts: each is one atomic step and one round trip.
 *
 *     {group}:m            hash    r revision, run the primary's run id, q no sessions before (ms), x longest TTL, i last session,
 *                                  f format; "s"SESSION for each that lives; "n"NAMESPACE: its cell
 *     {group}:e            hash    whole key -> "create mod version session\n" value
 *     {group}:k            zset    whole keys in the order of their bytes (all scores 0)
 *     {group}:c            zset    NAMESPACE 00 createRevision in 16 digits and the key: each namespace in create order
 *     {group}:b            zset    whole keys that are bound to a session, by its number
 *     {group}:s            zset    sessions by deadline, in milliseconds of the server's clock
 *     {group}:w:NAMESPACE  channel what each revision changed
 *
 * A whole key is `namespace 00 key`, as in the embedded machine. The group is the hash tag, so that all of it lives in one
 * slot of a Cluster and one script may touch any of it (see docs/decisions/0014). Every script names all six keys: while
 * the slot moves key by key, a Cluster refuses before the first line (TRYAGAIN, ASK) what it would break off in the middle.
 *
 * A namespace's cell says how it is kept (docs/decisions/0033):
 *
 *     absent      empty, and nobody watches
 *     thin        "key create session\nvalue": one key, put by `join`, in no index; nobody watches, so nobody is told
 *     "*" full    everything in `e`, `k`, `c`, `b`; each change is published
 *
 * A free lock is taken and released on a thin cell: two calls and three, whatever else the group holds. Whoever needs more
 * (a second contender, a watch, any general txn) makes it full first. It is let go of when the last key has gone and
 * the channel has no listener. A thin cell ends with its session, whose field it needs: it is gone from that moment, and is
 * swept later. Intuition: the thin and the inflated locks of a Java monitor (Bacon et al., "Thin Locks", PLDI 1998).
 *
 * A failover may lose what was answered, also renewals and releases. So a script that grants, renews or ends anything first
 * asks who it runs on; a primary that is not the one of `run` ends every session, and opens none until every holder
 * of the old one has stopped by its own clock (`q`): research "failover quarantine". The server is known by its run id,
 * which our own connection asks for once; a client of the user's cannot vouch for that, and pays 4 us of INFO each time.
 *
 * Lua does not roll back, so each key's first blob is kept (`before`) and put back when a later operation fails.
 * Where memory is full the server refuses a script at its first line or not at all (`#!lua` without `allow-oom`), never
 * half way; what only reads, ends or renews carries the flag.
 * Scripts are named by the hash of their text: clients of different versions run theirs side by side. What they must agree
 * on is the layout above, whose version is `f`.
 */
import { createHash } from "node:crypto";

/** Of the layout. A script that meets another one refuses; an older store that nobody uses is taken over. */
export const layoutVersion = 2;

/** The letters of the keys, in the order in which scripts name them. */
export const keyLetters = ["m", "e", "k", "c", "b", "s"] as const;

export interface Script {
  readonly name: string;
  readonly text: string;
  readonly sha: string;
  /** It is told of its client the run id alone. */
  readonly isShort: boolean;
}

/** What both kinds of script do with a namespace. They know `M` to `S` and `tag`. */
const sharedLines = `
local function namespaceOf(key) return string.sub(key, 1, string.find(key, '\\0', 1, true) - 1) end
-- Where a whole key stands in the order of creation. Revisions have 16 digits since the year 2001.
local function byCreate(key, create)
  local name = namespaceOf(key)
  return name .. '\\0' .. string.rep('0', 16 - #create) .. create .. string.sub(key, #name + 2)
end
local function change(key, old, new) return #key .. ' ' .. #old .. ' ' .. #new .. '\\n' .. key .. old .. new end

-- A thin cell becomes a key like any other; false: its session has ended, and it is none any more.
local function inflate(name, cell)
  local key, create, session, value = string.match(cell, '^(%S+) (%d+) (%d+)\\n()')
  if redis.call('HEXISTS', M, 's' .. session) == 0 then return false end
  local whole = name .. '\\0' .. key
  redis.call('HSET', E, whole, create .. ' ' .. create .. ' 1 ' .. session .. '\\n' .. string.sub(cell, value))
  redis.call('ZADD', K, 0, whole)
  redis.call('ZADD', C, 0, byCreate(whole, create))
  redis.call('ZADD', B, session, whole)
  redis.call('HSET', M, 'n' .. name, '*')
  return true
end

local function isEmpty(name)
  return not redis.call('ZRANGEBYLEX', K, '[' .. name .. '\\0', '(' .. name .. '\\1', 'LIMIT', 0, 1)[1]
end

-- Tells what changed. Where nobody listens and no key is left the cell goes: then it answers true.
local function publish(name, digits, changes)
  local body = #changes > 65536 and 'R' or 'E' .. changes
  if redis.call('SPUBLISH', tag .. 'w:' .. name, digits .. '\\n' .. body) > 0 or not isEmpty(name) then return false end
  redis.call('HDEL', M, 'n' .. name)
  return true
end
`;

/**
 * Who runs this and what time is it. ARGV[1]: quarantine in ms, or -1 for none; ARGV[2]: the longest TTL of this client;
 * ARGV[3]: the run id that this very connection was told when it was opened, empty where the client cannot know.
 * Answers begin with OK and the revision, or with an error's code and what it is about.
 */
const prelude = `
local M, E, K, C, B, S = unpack(KEYS)
local tag = string.sub(M, 1, -2)
local meta = redis.call('HMGET', M, 'r', 'run', 'q', 'x', 'f')
if meta[5] and meta[5] ~= '${layoutVersion}' then
  local isIdle = redis.call('EXISTS', E, S) == 0
  if tonumber(meta[5]) > ${layoutVersion} or not isIdle then return {'WRONG_PROTOCOL', meta[5]} end
  redis.call('HSET', M, 'f', ${layoutVersion})
end
local time = redis.call('TIME')
local us = time[1] * 1000000 + time[2]
local now = math.floor(us / 1000)
local revision = tonumber(meta[1] or us)
local quarantine = tonumber(meta[3] or 0)
-- reaped: a thin cell was met whose session has ended; its end takes a revision of its own, or that of what is written.
local before, touched, written, reaped = {}, {}, false, false

local function text(number) return string.format('%.0f', number) end
local function sessionOf(blob) return string.match(blob, '^%d+ %d+ %d+ (%d*)\\n') end
local function createOf(blob) return string.match(blob, '^%d+') end
${sharedLines}
-- Names whose cell was looked at: whether it is full.
local isFullName = {}
local function settle(name)
  if isFullName[name] ~= nil then return end
  local cell = redis.call('HGET', M, 'n' .. name)
  if cell and cell ~= '*' and not inflate(name, cell) then
    redis.call('HDEL', M, 'n' .. name)
    reaped, cell = true, false
  end
  isFullName[name] = cell ~= false
end
local function fill(name)
  settle(name)
  if isFullName[name] then return end
  redis.call('HSET', M, 'n' .. name, '*')
  isFullName[name] = true
end

-- From one blob to another, false for none. Everything that changes a key comes through here.
local function turn(key, old, new)
  local oldSession = old and sessionOf(old) or ''
  local newSession = new and sessionOf(new) or ''
  if new then
    redis.call('HSET', E, key, new)
    if not old then
      fill(namespaceOf(key))
      redis.call('ZADD', K, 0, key)
    end
  else
    redis.call('HDEL', E, key)
    redis.call('ZREM', K, key)
  end
  local oldCreate, newCreate = old and createOf(old), new and createOf(new)
  if oldCreate ~= newCreate then
    if oldCreate then redis.call('ZREM', C, byCreate(key, oldCreate)) end
    if newCreate then redis.call('ZADD', C, 0, byCreate(key, newCreate)) end
  end
  if oldSession ~= newSession then
    if newSession ~= '' then redis.call('ZADD', B, newSession, key) else redis.call('ZREM', B, key) end
  end
end

local function write(key, old, new)
  if before[key] == nil then
    before[key] = old
    touched[#touched + 1] = key
  end
  written = true
  turn(key, old, new)
end

local function undo()
  for _, key in ipairs(touched) do turn(key, redis.call('HGET', E, key), before[key]) end
  before, touched, written = {}, {}, false
end

-- One revision for everything written since the last commit, told once to each namespace.
local function commit()
  if not written and not reaped then return end
  revision = revision + 1
  redis.call('HSET', M, 'r', text(revision))
  local told, names = {}, {}
  for _, key in ipairs(touched) do
    local name = namespaceOf(key)
    local parts = told[name]
    if not parts then
      parts = {}
      told[name] = parts
      names[#names + 1] = name
    end
    local old, new = before[key], redis.call('HGET', E, key)
    if old or new then parts[#parts + 1] = change(key, old or '', new or '') end
  end
  for _, name in ipairs(names) do
    if publish(name, text(revision), table.concat(told[name])) then isFullName[name] = nil end
  end
  before, touched, written, reaped = {}, {}, false, false
end

local function endSession(id)
  for _, key in ipairs(redis.call('ZRANGEBYSCORE', B, id, id)) do
    local blob = redis.call('HGET', E, key)
    if blob then write(key, blob, false) end
  end
  redis.call('HDEL', M, 's' .. id)
  redis.call('ZREM', S, id)
end

-- Is this the server that gave the sessions their deadlines? If not, they end, and none begins for a while.
local isKnown = false
local function knowServer()
  if isKnown then return end
  isKnown = true
  if meta[2] and meta[2] == ARGV[3] then return end
  local info = redis.call('INFO', 'server')
  if meta[2] and string.find(info, meta[2], 1, true) then return end
  local run = string.match(info, 'run_id:(%x+)') or 'unknown'
  local waitMs = tonumber(ARGV[1])
  if meta[1] then
    revision = math.max(revision + 1, us)
    for _, id in ipairs(redis.call('ZRANGE', S, 0, -1)) do endSession(id) end
    commit()
    if waitMs >= 0 then waitMs = waitMs + math.max(tonumber(meta[4] or 0), tonumber(ARGV[2])) end
  else
    -- Nothing is here: a new store, or one whose server came back without its data.
    local replication = redis.call('INFO', 'replication')
    local isPromoted = not string.find(replication, 'master_replid2:0000000000000000', 1, true)
    if isPromoted then
      waitMs = waitMs + tonumber(ARGV[2])
    elseif string.find(redis.call('INFO', 'persistence'), 'aof_enabled:1', 1, true) then
      waitMs = 0
    else
      waitMs = waitMs + tonumber(ARGV[2]) - 1000 * tonumber(string.match(info, 'uptime_in_seconds:(%d+)') or 0)
    end
  end
  quarantine = 0
  if tonumber(ARGV[1]) >= 0 and waitMs > 0 then quarantine = now + waitMs end
  redis.call('HSET', M, 'r', text(revision), 'run', run, 'q', text(quarantine), 'f', ${layoutVersion})
end
if not meta[1] then knowServer() end

local function expire()
  local due = redis.call('ZRANGEBYSCORE', S, '-inf', now, 'LIMIT', 0, 16)
  if #due == 0 then return end
  knowServer()
  for _, id in ipairs(due) do endSession(id) end
  commit()
end

local function msToNextDeadline()
  local first = redis.call('ZRANGE', S, 0, 0, 'WITHSCORES')
  if not first[2] then return -1 end
  return math.max(0, tonumber(first[2]) - now)
end
expire()
`;

/**
 * ARGV[4]: bytes of an answer at most; ARGV[5]: 1 where a subscription stands, and every later change of the ranges must be
 * told; then compares, then-operations, else-operations, each list with its count first.
 */
const txn = `
local at = 5
local function arg()
  at = at + 1
  return ARGV[at]
end
local function isBelow(left, right)
  for index = 1, math.min(#left, #right) do
    local a, b = string.byte(left, index), string.byte(right, index)
    if a ~= b then return a < b end
  end
  return #left < #right
end
local function satisfies(is, left, right)
  if is == '=' then return left == right end
  if is == '!' then return left ~= right end
  if type(left) == 'string' then
    if is == '<' then return isBelow(left, right) end
    return isBelow(right, left)
  end
  if is == '<' then return left < right end
  return left > right
end
local function holdsFor(blob, target, is, to)
  if target == 'e' then return (blob and '1' or '0') == to end
  local create, mod, version, session, value
  if blob then create, mod, version, session, value = string.match(blob, '^(%d+) (%d+) (%d+) (%d*)\\n()') end
  if target == 'v' then
    if not blob then return is == '!' end
    return satisfies(is, string.sub(blob, value), to)
  end
  if target == 's' then return ((session or '') == to) == (is == '=') end
  local number = 0
  if blob then number = tonumber(target == 'c' and create or target == 'm' and mod or version) end
  return satisfies(is, number, tonumber(to))
end
local function keysIn(from, to, offset, limit)
  return redis.call('ZRANGEBYLEX', K, '[' .. from, '(' .. to, 'LIMIT', offset, limit)
end
local function holdsForAll(from, to, target, is, value)
  local offset = 0
  while true do
    local keys = keysIn(from, to, offset, 100)
    for _, key in ipairs(keys) do
      if not holdsFor(redis.call('HGET', E, key), target, is, value) then return false end
    end
    if #keys < 100 then return true end
    offset = offset + 100
  end
end

local succeeded = true
for _ = 1, tonumber(arg()) do
  local kind, from, to = arg(), arg(), arg()
  local target, is, value = arg(), arg(), arg()
  if succeeded then
    settle(namespaceOf(from))
    if kind == 'k' then
      succeeded = holdsFor(redis.call('HGET', E, from), target, is, value)
    else
      succeeded = holdsForAll(from, to, target, is, value)
    end
  end
end

local bytesLeft = tonumber(ARGV[4])
local function spend(key, blob)
  bytesLeft = bytesLeft - #key - #blob
  return bytesLeft >= 0
end
local function found(key) return redis.call('HGET', E, key) end

-- Whole keys of a range in the order asked for, and how many there are without the limit.
local function selected(from, to, inCreateOrder, descending, limit, createdBefore)
  local name = namespaceOf(from)
  local isWhole = #from == #name + 1 and to == name .. '\\1'
  if inCreateOrder and isWhole then
    local first, upper = name .. '\\0', name .. '\\1'
    if createdBefore >= 0 then upper = first .. string.format('%016.0f', createdBefore) end
    local command, one, other = 'ZRANGEBYLEX', '[' .. first, '(' .. upper
    if descending then command, one, other = 'ZREVRANGEBYLEX', other, one end
    local keys = redis.call(command, C, one, other, 'LIMIT', 0, limit)
    for index, member in ipairs(keys) do keys[index] = first .. string.sub(member, #first + 17) end
    return keys, redis.call('ZLEXCOUNT', C, '[' .. first, '(' .. upper)
  end
  if not inCreateOrder and createdBefore < 0 then
    local count = redis.call('ZLEXCOUNT', K, '[' .. from, '(' .. to)
    if descending then return redis.call('ZREVRANGEBYLEX', K, '(' .. to, '[' .. from, 'LIMIT', 0, limit), count end
    return keysIn(from, to, 0, limit), count
  end
  local all = {}
  for index, key in ipairs(keysIn(from, to, 0, -1)) do
    local create = tonumber(createOf(found(key)))
    if createdBefore < 0 or create < createdBefore then all[#all + 1] = {key, create, index} end
  end
  if inCreateOrder then
    table.sort(all, function(a, b)
      if a[2] ~= b[2] then return a[2] < b[2] end
      return a[3] < b[3]
    end)
  end
  local keys = {}
  for index = 1, #all do
    if limit >= 0 and index > limit then break end
    keys[index] = all[descending and #all + 1 - index or index][1]
  end
  return keys, #all
end

local function range(from, to)
  local inCreateOrder, descending, keysOnly = arg() == 'c', arg() == '1', arg() == '1'
  local limit, createdBefore = tonumber(arg()), tonumber(arg())
  local keys, count = selected(from, to, inCreateOrder, descending, limit, createdBefore)
  local result = {count}
  for _, key in ipairs(keys) do
    local blob = found(key)
    if keysOnly then blob = string.sub(blob, 1, string.find(blob, '\\n', 1, true)) end
    if not spend(key, blob) then return nil, 'TXN_TOO_LARGE' end
    result[#result + 1] = key
    result[#result + 1] = blob
  end
  return result
end

local function isFull() return revision >= 9007199254740990 end

local function put(key)
  local value, session, returnsPrevious = arg(), arg(), arg()
  if session ~= '' then
    knowServer()
    local deadline = redis.call('ZSCORE', S, session)
    if not deadline or tonumber(deadline) <= now then return nil, 'SESSION_EXPIRED', session end
  end
  if isFull() then return nil, 'REVISION_LIMIT' end
  local old = found(key)
  local create, version = revision + 1, 1
  if old then
    local oldCreate, oldVersion = string.match(old, '^(%d+) %d+ (%d+)')
    create, version = tonumber(oldCreate), oldVersion + 1
  end
  write(key, old, text(create) .. ' ' .. text(revision + 1) .. ' ' .. text(version) .. ' ' .. session .. '\\n' .. value)
  if returnsPrevious == '0' then return {} end
  if old and not spend(key, old) then return nil, 'TXN_TOO_LARGE' end
  return {old}
end

local function delete(from, to, isKey)
  local returnsPrevious = arg()
  local keys = isKey and {from} or keysIn(from, to, 0, -1)
  local result = {0}
  for _, key in ipairs(keys) do
    local old = found(key)
    if old then
      if isFull() then return nil, 'REVISION_LIMIT' end
      write(key, old, false)
      result[1] = result[1] + 1
      if returnsPrevious == '1' then
        if not spend(key, old) then return nil, 'TXN_TOO_LARGE' end
        result[#result + 1] = key
        result[#result + 1] = old
      end
    end
  end
  return result
end

local function add(key)
  local delta, old = tonumber(arg()), found(key)
  local sum, create, version, session = 0, revision + 1, 1, ''
  if old then
    local oldCreate, oldVersion, oldSession, value = string.match(old, '^(%d+) %d+ (%d+) (%d*)\\n(.*)$')
    if not string.find(value, '^-?%d+$') or #value > 32 then return nil, 'NOT_A_NUMBER', 'value' end
    sum, create, version, session = tonumber(value), tonumber(oldCreate), oldVersion + 1, oldSession
    if math.abs(sum) > 9007199254740991 then return nil, 'NOT_A_NUMBER', 'value' end
  end
  sum = sum + delta
  if math.abs(sum) > 9007199254740991 then return nil, 'NOT_A_NUMBER', 'sum' end
  if isFull() then return nil, 'REVISION_LIMIT' end
  local digits = sum == 0 and '0' or text(sum)
  write(key, old, text(create) .. ' ' .. text(revision + 1) .. ' ' .. text(version) .. ' ' .. session .. '\\n' .. digits)
  return {digits}
end

local results = {}
local function run()
  for index = 1, tonumber(arg()) do
    local kind, key = arg(), arg()
    local result, code, detail
    if kind == 'r' and ARGV[5] == '1' then fill(namespaceOf(key)) else settle(namespaceOf(key)) end
    if kind == 'g' then
      local blob = found(key)
      result = {blob}
      if blob and not spend(key, blob) then result, code = nil, 'TXN_TOO_LARGE' end
    elseif kind == 'r' then result, code = range(key, arg())
    elseif kind == 'p' then result, code, detail = put(key)
    elseif kind == 'x' then result, code = delete(key, nil, true)
    elseif kind == 'd' then result, code = delete(key, arg(), false)
    else result, code, detail = add(key) end
    if not result then
      undo()
      commit()
      return {code, key, detail or ''}
    end
    results[index] = result
  end
end

-- Each branch is preceded by how many arguments it has, so that the other one can be skipped.
local thenArgs = tonumber(arg())
if not succeeded then
  at = at + thenArgs
  arg()
end
local failure = run()
if failure then return failure end
commit()
return {'OK', text(revision), succeeded and 1 or 0, results}
`;

/** ARGV[4]: TTL in ms. */
const open = `
knowServer()
if quarantine > now then return {'QUARANTINED', text(quarantine - now)} end
local ttl = tonumber(ARGV[4])
local id = math.max(us, tonumber(redis.call('HGET', M, 'i') or 0) + 1)
redis.call('HSET', M, 'i', text(id), 's' .. text(id), 1)
if ttl > tonumber(meta[4] or 0) then redis.call('HSET', M, 'x', ttl) end
redis.call('ZADD', S, now + ttl, text(id))
return {'OK', text(revision), text(id), msToNextDeadline()}
`;

/** ARGV[4..]: sessions and their TTLs in turn. None of them: only ends those whose time is up. Never revives one. */
const keepAlive = `
if #ARGV > 3 then knowServer() end
local answers = {}
for index = 4, #ARGV, 2 do
  local id = ARGV[index]
  local isAlive = redis.call('ZSCORE', S, id)
  if isAlive then redis.call('ZADD', S, now + tonumber(ARGV[index + 1]), id) end
  answers[#answers + 1] = isAlive and 1 or 0
end

-- Cells that nobody asked for since their session ended, or their last watcher left: a sample, and more of them as long as
-- a quarter of it was stale, as Redis itself looks for what has expired.
for _ = 1, 16 do
  local sample = redis.call('HRANDFIELD', M, 16, 'WITHVALUES')
  local stale = 0
  for index = 1, #sample, 2 do
    local name, cell = string.match(sample[index], '^n(.*)$'), sample[index + 1]
    if name and cell == '*' then
      if isEmpty(name) and publish(name, text(revision), '') then stale = stale + 1 end
    elseif name and redis.call('HEXISTS', M, 's' .. string.match(cell, '^%S+ %d+ (%d+)')) == 0 then
      redis.call('HDEL', M, sample[index])
      reaped, stale = true, stale + 1
    end
  end
  if stale < 4 then break end
end
commit()
return {'OK', text(revision), msToNextDeadline(), answers}
`;

/** ARGV[4..]: sessions. */
const close = `
for index = 4, #ARGV do endSession(ARGV[index]) end
commit()
return {'OK', text(revision)}
`;

/**
 * A queue's join: puts a new key of a living session, and tells its revision, and where it is not the first how many there
 * are and the one before it. 0: it is not plain (a server that is not known, a session to end, a key that is there), nothing
 * was done, and the general script sees to it. ARGV[1]: the run id; ARGV[2..5]: the field of the namespace's cell, the key, the
 * field of the session, the value. The key has neither spaces nor control characters.
 *
 * Sessions whose time is up matter only to who stands behind one: where the queue is empty nobody is looked for.
 */
const join = `
local M, field, key = KEYS[1], ARGV[2], ARGV[3]
local meta = redis.call('HMGET', M, 'r', 'run', 'f', ARGV[4], field)
if not meta[2] or meta[3] ~= '${layoutVersion}' or not meta[4] then return 0 end
if meta[2] ~= ARGV[1] and not (ARGV[1] == '' and string.find(redis.call('INFO', 'server'), meta[2], 1, true)) then return 0 end
local revision, cell = meta[1] + 1, meta[5]
if revision >= 9007199254740991 then return 0 end
local digits = string.format('%.0f', revision)
local thin = key .. ' ' .. digits .. ' ' .. string.sub(ARGV[4], 2) .. '\\n' .. ARGV[5]
if not cell then
  redis.call('HSET', M, 'r', digits, field, thin)
  return revision
end

local E, K, C, B, S = KEYS[2], KEYS[3], KEYS[4], KEYS[5], KEYS[6]
local name, session = string.sub(field, 2), string.sub(ARGV[4], 2)
local tag, whole = string.sub(M, 1, -2), name .. '\\0' .. key
${sharedLines}
local time = redis.call('TIME')
if tonumber(redis.call('ZRANGE', S, 0, 0, 'WITHSCORES')[2]) <= time[1] * 1000 + math.floor(time[2] / 1000) then return 0 end
if cell ~= '*' and not inflate(name, cell) then
  redis.call('HSET', M, 'r', digits, field, thin)
  return revision
end
local blob = digits .. ' ' .. digits .. ' 1 ' .. session .. '\\n' .. ARGV[5]
if redis.call('HSETNX', E, whole, blob) == 0 then return 0 end
redis.call('ZADD', K, 0, whole)
redis.call('ZADD', C, 0, byCreate(whole, digits))
redis.call('ZADD', B, session, whole)
redis.call('HSET', M, 'r', digits)
publish(name, digits, change(whole, '', blob))
local last = redis.call('ZREVRANGEBYLEX', C, '(' .. name .. '\\1', '[' .. name .. '\\0', 'LIMIT', 1, 1)
if not last[1] then return revision end
local count = redis.call('ZLEXCOUNT', C, '[' .. name .. '\\0', '(' .. name .. '\\1')
return {digits, count, string.sub(last[1], #name + 18)}
`;

/** A key's deletion by itself, such as a release: 1, also where there is none. ARGV[2]: the field of its namespace's cell; ARGV[3]: key. */
const drop = `
local M, field, key = KEYS[1], ARGV[2], ARGV[3]
local meta = redis.call('HMGET', M, 'r', 'f', field)
if meta[2] ~= '${layoutVersion}' or meta[1] + 1 >= 9007199254740991 then return 0 end
local cell = meta[3]
if not cell then return 1 end
if cell ~= '*' then
  if string.sub(cell, 1, #key + 1) ~= key .. ' ' then return 1 end
  redis.call('HDEL', M, field)
  redis.call('HINCRBY', M, 'r', 1)
  return 1
end

local name, digits = string.sub(field, 2), string.format('%.0f', meta[1] + 1)
local E, K, C, B = KEYS[2], KEYS[3], KEYS[4], KEYS[5]
local tag, whole = string.sub(M, 1, -2), name .. '\\0' .. key
${sharedLines}
local blob = redis.call('HGET', E, whole)
if not blob then return 1 end
redis.call('HDEL', E, whole)
redis.call('ZREM', K, whole)
redis.call('ZREM', C, byCreate(whole, string.match(blob, '^%d+')))
redis.call('ZREM', B, whole)
redis.call('HSET', M, 'r', digits)
publish(name, digits, change(whole, blob, ''))
return 1
`;

export const scripts = {
  txn: script("txn", txn),
  /** The same, for one that puts nothing. */
  leanTxn: script("txn", txn, " flags=allow-oom"),
  open: script("open", open),
  keepAlive: script("keep-alive", keepAlive, " flags=allow-oom"),
  close: script("close", close, " flags=allow-oom"),
  join: script("join", join, "", ""),
  drop: script("drop", drop, " flags=allow-oom", ""),
} as const;

function script(name: string, body: string, flags = "", before = prelude): Script {
  const text = `#!lua${flags}\n-- conclave ${name}, layout ${layoutVersion}\n${before}${body}`;
  return { name, text, sha: createHash("sha1").update(text).digest("hex"), isShort: before === "" };
}
