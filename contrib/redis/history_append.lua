-- Stores a message, and publishes it. It returns the epoch and the offset.
local meta, stream, publish, channel = KEYS[1], KEYS[2], ARGV[1], ARGV[2]
local msg, newBase = ARGV[3], ARGV[4]
local size, bytes, ttl = ARGV[5], tonumber(ARGV[6]), tonumber(ARGV[7]) -- without a limit if negative

local found = redis.call('HMGET', meta, 'base', 'offset', 'sum', 'cut')
local base, before = found[1], tonumber(found[2] or 0)
local sum, cut = tonumber(found[3] or 0), tonumber(found[4] or 0)
if not base or before >= most then
  redis.call('DEL', stream)
  base, before, sum, cut = newBase, 0, 0, 0
end
local offset = text(before + 1)

-- An entry has the sum of the bytes before it.
redis.call('XADD', stream, 'MAXLEN', '~', size, offset .. '-0',
  'time', text(now()), 'sum', text(sum), 'data', msg)
sum = sum + #msg

-- Beyond the limit by a quarter, the oldest messages go that are not within the limit. So it does not
-- happen with each message.
if bytes >= 0 and sum - cut > bytes * 1.25 then
  local from = '-'
  repeat
    local entries = redis.call('XRANGE', stream, from, '+', 'COUNT', 10)
    for _, entry in ipairs(entries) do
      from, cut = entry[1], tonumber(entry[2][4])
      if sum - cut <= bytes then break end
    end
  until sum - cut <= bytes or #entries < 10
  redis.call('XTRIM', stream, 'MINID', '=', from)
end

redis.call('HSET', meta, 'base', base, 'offset', offset, 'sum', text(sum), 'cut', text(cut))
if ttl >= 0 then
  redis.call('PEXPIRE', stream, text(ttl))
  redis.call('PEXPIRE', meta, text(ttl + day))
else
  redis.call('PERSIST', stream)
  redis.call('PERSIST', meta)
end
local epoch = base .. replication
redis.call(publish, channel, epoch .. ' ' .. offset .. ' ' .. msg)
return {epoch, offset}
