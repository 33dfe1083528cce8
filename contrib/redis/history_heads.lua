-- Returns the epoch and the offset of the newest message for each meta hash; an empty epoch for a
-- room that nobody knows.
local reply = {}
for _, meta in ipairs(KEYS) do
  local found = redis.call('HMGET', meta, 'base', 'offset')
  if found[1] then
    touch(meta, found[2])
    reply[#reply + 1] = found[1] .. replication
    reply[#reply + 1] = found[2]
  else
    reply[#reply + 1] = ''
    reply[#reply + 1] = '0'
  end
end
return reply
