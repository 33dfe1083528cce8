-- Keys of a room: its meta hash, and its stream. The stream has an entry for each message, whose ID is
-- the offset of the message and "-0". The fields of the hash:
--   base    text, new with each history of the room
--   offset  of the newest message
--   sum     bytes of all messages that the history ever had
--   cut     bytes of the messages before the oldest one that is kept, or less

-- most is the greatest offset, which a float has exactly.
local most = 9007199254740991
-- day is the life of a meta hash behind the life of its stream, and hour the life of one without messages, in ms.
local hour, day = 3600000, 86400000

-- replication is the end of each epoch. The server has another replication ID after a start, and after
-- it was promoted: then it may lack messages that readers know.
local info = redis.call('INFO', 'replication')
local replication = string.sub(string.match(info, 'master_replid:(%x+)'), 1, 8)

local function text(number) return string.format('%.0f', number) end

local function now()
  local time = redis.call('TIME')
  return time[1] * 1000 + math.floor(time[2] / 1000)
end

-- touch keeps a meta hash that is read.
local function touch(meta, offset)
  local life = offset == '0' and hour or day
  local left = redis.call('PTTL', meta)
  if left >= 0 and left < life / 2 then
    redis.call('PEXPIRE', meta, life)
  end
end
