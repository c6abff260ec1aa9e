-- Change a record and add jobs, both or neither. KEYS: those of jobs, then RECORD, NAMES, INDEX, WANTED.
-- ARGV: kind, key, expected version, value, when it is due or nothing, how many index entries, the entries, this
-- partition, the jobs. Returns the answers of the jobs, or nothing: it is at another version.
local RECORD, NAMES, INDEX, WANTED = unpack(KEYS, 15, 18)
local kind, key, expected, value, due, entries = unpack(ARGV, 5, 10)

local packed = redis.call('HGET', RECORD, kind .. key)
local present = packed and cmsgpack.unpack(packed) or { 0, '', '', {} }
if present[1] ~= tonumber(expected) then
    return false
end
local index, wanted = {}, {}
for at = 11, 10 + entries do
    index[#index + 1] = ARGV[at]
    wanted[ARGV[at]] = true
end
redis.call('HSET', RECORD, kind .. key, cmsgpack.pack({ present[1] + 1, value, due, index }))
if present[1] == 0 then
    redis.call('ZADD', NAMES, 0, kind .. key)
end
-- Touch only what changed: most changes of a record change nothing it is found by.
for _, entry in ipairs(present[4]) do
    if wanted[entry] then
        wanted[entry] = nil
    else
        redis.call('ZREM', INDEX, entry .. key)
    end
end
for entry in pairs(wanted) do
    redis.call('ZADD', INDEX, 0, entry .. key)
end
if present[3] ~= due then
    if present[3] ~= '' then
        redis.call('ZREM', WANTED, kind .. present[3] .. key)
    end
    if due ~= '' then
        redis.call('ZADD', WANTED, 0, kind .. due .. key)
    end
end
return add(12 + entries, ARGV[11 + entries])
