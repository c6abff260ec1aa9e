-- Keep another value of a record, and the rest as it is. KEYS: RECORD. ARGV: kind, key, version, value.
-- Returns whether it was at that version.
local field = ARGV[3] .. ARGV[4]

local packed = redis.call('HGET', KEYS[1], field)
local present = packed and cmsgpack.unpack(packed)
if not present or present[1] ~= tonumber(ARGV[5]) then
    return 0
end
present[2] = ARGV[6]
redis.call('HSET', KEYS[1], field, cmsgpack.pack(present))
return 1
