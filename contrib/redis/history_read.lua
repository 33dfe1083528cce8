-- Returns the epoch, the offset of the newest message, and the age, offset and data of messages. A
-- room that nobody knows begins here, so that a reader has its epoch before its first message.
local meta, stream = KEYS[1], KEYS[2]
local newBase, after, limit, bytes = ARGV[1], ARGV[2], tonumber(ARGV[3]), tonumber(ARGV[4])

local found = redis.call('HMGET', meta, 'base', 'offset')
local base, top = found[1], found[2]
if base then
  touch(meta, top)
else
  base, top = newBase, '0'
  redis.call('DEL', stream)
  redis.call('HSET', meta, 'base', base, 'offset', top)
  redis.call('PEXPIRE', meta, hour)
end

local reply, time = {base .. replication, top}, now()
local from = '(' .. after .. '-0'
repeat
  local count = math.min(limit, 10)
  local entries = redis.call('XRANGE', stream, from, '+', 'COUNT', count)
  for _, entry in ipairs(entries) do
    local fields = entry[2]
    reply[#reply + 1] = text(math.max(0, time - fields[2]))
    reply[#reply + 1] = string.match(entry[1], '%d+')
    reply[#reply + 1] = fields[6]
    from, limit, bytes = '(' .. entry[1], limit - 1, bytes - #fields[6]
  end
until #entries < count or limit <= 0 or bytes <= 0
return reply
