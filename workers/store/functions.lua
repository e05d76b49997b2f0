#!lua name=headrace

-- The store's functions. Each call is atomic: a user's state, the position in the log and the writer's
-- claim change together or not at all.
--
-- Offsets, epochs and versions never become Lua numbers: those are doubles, exact only up to 2^53, and
-- `tostring` keeps 14 digits of them. Offsets stay the decimal strings that they came as; versions are
-- big-endian bytes. Lua's own `<` on strings follows the server's locale, hence `after`.

-- Is a greater than b, byte by byte? Both have the same length.
local function after(a, b)
  for i = 1, #a do
    local x, y = string.byte(a, i), string.byte(b, i)
    if x ~= y then return x > y end
  end
  return false
end

-- The same for decimal strings without leading zeros.
local function later(a, b)
  if #a ~= #b then return #a > #b end
  return after(a, b)
end

-- claim  KEYS o  ARGV owner, fresh ("1": the log begins at 0, so a missing position is 0)
-- -> {OK, epoch, next, sent, previous owner, next before the claim ("" = none)} | {LOST} | {REBUILDING}
local function claim(keys, args)
  local o, owner = keys[1], args[1]
  local held = redis.call('HMGET', o, 'next', 'sent', 'owner', 'rebuilding')
  if held[4] then return {'REBUILDING'} end
  local next, sent = held[1], held[2]
  if args[2] == '1' then
    next, sent = next or '0', sent or '0'
  end
  if not next or not sent then return {'LOST'} end
  local now = redis.call('TIME')[1]
  redis.call('HSET', o, 'next', next, 'sent', sent, 'owner', owner, 'claimed_at', now)
  redis.call('HINCRBY', o, 'epoch', 1)
  return {'OK', redis.call('HGET', o, 'epoch'), next, sent, held[3] or '', held[1] or ''}
end

-- apply  KEYS o, then any u:, f:, x: of the partition
--        ARGV epoch, expected next, new next, sent, then ttl (s) and value a key (an empty value deletes)
-- -> OK | DUP (done already) | FENCED (another's epoch) | {GAP, next} | LOST (no position: never read as 0)
local function apply(keys, args)
  local o = keys[1]
  if #args ~= 2 * #keys + 2 then
    return redis.error_reply('ERR headrace_apply: expected a ttl and a value for each key')
  end
  local held = redis.call('HMGET', o, 'epoch', 'next', 'sent')
  local epoch, next, sent = held[1], held[2], held[3]
  if not next then return 'LOST' end
  if epoch ~= args[1] then return 'FENCED' end
  if next == args[3] then return 'DUP' end
  if next ~= args[2] then return {'GAP', next} end
  for i = 2, #keys do
    local value = args[2 * i + 2]
    if value == '' then
      redis.call('DEL', keys[i])
    else
      redis.call('SET', keys[i], value, 'EX', args[2 * i + 1])
    end
  end
  -- `sent` never moves back: a call that comes late through a dead connection is harmless.
  if not sent or later(args[4], sent) then sent = args[4] end
  redis.call('HSET', o, 'next', args[3], 'sent', sent)
  return 'OK'
end

-- sent  KEYS o  ARGV epoch, sent  -> OK | FENCED
local function sent(keys, args)
  local held = redis.call('HMGET', keys[1], 'epoch', 'sent')
  if held[1] ~= args[1] then return 'FENCED' end
  if not held[2] or later(args[2], held[2]) then redis.call('HSET', keys[1], 'sent', args[2]) end
  return 'OK'
end

-- put_feed  KEYS f, x (x is left out for the default feed, which belongs to nobody)
--           ARGV ttl (s), version and revision (16 bytes), feed
-- -> OK | DUP (this very version is stored: a retry of ours) | STALE (the stored one or the marker is not smaller)
local function put_feed(keys, args)
  local version = args[2]
  if #version ~= 16 then
    return redis.error_reply('ERR headrace_put_feed: expected 16 bytes of version and revision')
  end
  if keys[2] then
    local marker = redis.call('GETRANGE', keys[2], 0, 15)
    if #marker == 16 and not after(version, marker) then return 'STALE' end
  end
  local stored = redis.call('HGET', keys[1], 'v')
  if stored == version then return 'DUP' end
  if stored and not after(version, stored) then return 'STALE' end
  redis.call('HSET', keys[1], 'v', version, 'feed', args[3])
  redis.call('EXPIRE', keys[1], args[1])
  return 'OK'
end

-- Rebuilding a partition's users: `rebuild` takes its position away and fences its owner, so that nothing moves while
-- `restore` writes the states; `rebuilt` gives it a position again. One that was broken off leaves no position.

-- rebuild  KEYS o  ARGV owner  -> epoch of this rebuilding (a call that comes again, or late: the same, nothing done)
local function rebuild(keys, args)
  local o = keys[1]
  local held = redis.call('HMGET', o, 'rebuilding', 'rebuilt')
  if held[1] ~= args[1] and held[2] ~= args[1] then
    redis.call('HDEL', o, 'next', 'sent')
    redis.call('HSET', o, 'owner', '', 'rebuilding', args[1])
    redis.call('HINCRBY', o, 'epoch', 1)
  end
  return redis.call('HGET', o, 'epoch')
end

-- restore  KEYS o, then any u:, f:, x: of the partition  ARGV epoch, then ttl (s) and value a key (empty deletes)
-- -> OK | FENCED (it is not this rebuilding's any more)
local function restore(keys, args)
  if #args ~= 2 * #keys - 1 then
    return redis.error_reply('ERR headrace_restore: expected a ttl and a value for each key')
  end
  local held = redis.call('HMGET', keys[1], 'epoch', 'rebuilding')
  if not held[2] or held[1] ~= args[1] then return 'FENCED' end
  for i = 2, #keys do
    local value = args[2 * i - 1]
    if value == '' then
      redis.call('DEL', keys[i])
    else
      redis.call('SET', keys[i], value, 'EX', args[2 * i - 2])
    end
  end
  return 'OK'
end

-- rebuilt  KEYS o  ARGV epoch, next  -> OK (also when it was done already) | FENCED
local function rebuilt(keys, args)
  local o = keys[1]
  local held = redis.call('HMGET', o, 'epoch', 'rebuilding', 'next')
  if held[1] ~= args[1] then return 'FENCED' end
  if not held[2] then return held[3] == args[2] and 'OK' or 'FENCED' end
  redis.call('HSET', o, 'next', args[2], 'sent', args[2], 'rebuilt', held[2])
  redis.call('HDEL', o, 'rebuilding')
  return 'OK'
end

redis.register_function('headrace_claim', claim)
redis.register_function('headrace_apply', apply)
redis.register_function('headrace_sent', sent)
redis.register_function('headrace_put_feed', put_feed)
redis.register_function('headrace_rebuild', rebuild)
redis.register_function('headrace_restore', restore)
redis.register_function('headrace_rebuilt', rebuilt)
