-- One record: its key, version, value and when it is due; or nothing. KEYS: RECORD. ARGV: kind, key.
local packed = redis.call('HGET', KEYS[1], ARGV[3] .. ARGV[4])
if not packed then
    return false
end
local version, value, due = unpack(cmsgpack.unpack(packed), 1, 3)
return { ARGV[4], version, value, due }
