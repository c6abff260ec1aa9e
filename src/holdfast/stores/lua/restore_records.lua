-- Records from a backup. KEYS: RECORD, NAMES, INDEX, WANTED.
-- ARGV: for each record its kind and key, version, value, when it is due, how many index entries, the entries.
local RECORD, NAMES, INDEX, WANTED = unpack(KEYS, 1, 4)

local at = 3
while at <= #ARGV do
    local name, version, value, due, entries = unpack(ARGV, at, at + 4)
    local kind, key, index = name:sub(1, 8), name:sub(9), {}
    for place = at + 5, at + 4 + entries do
        index[#index + 1] = ARGV[place]
        redis.call('ZADD', INDEX, 0, ARGV[place] .. key)
    end
    redis.call('HSET', RECORD, name, cmsgpack.pack({ tonumber(version), value, due, index }))
    redis.call('ZADD', NAMES, 0, name)
    if due ~= '' then
        redis.call('ZADD', WANTED, 0, kind .. due .. key)
    end
    at = at + 5 + entries
end
return at
