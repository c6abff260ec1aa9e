-- Records in the order of a sorted set. KEYS: RECORD, the set. ARGV: kind, the prefix of its members, behind which one,
-- up to which one (empty: all; `now`: those whose time has come), what lies between prefix and key, limit.
local kind, prefix, after, to, between, limit = unpack(ARGV, 3, 8)

local last = '(' .. prefix .. '\255'
if to == 'now' then
    -- As Python writes a time: with 10^17 added, so that years before 1970 sort too.
    last = '(' .. prefix .. '10' .. padded(now + 1)
end
local first = after == '' and '[' .. prefix or '(' .. prefix .. after
local found = {}
for _, member in ipairs(redis.call('ZRANGEBYLEX', KEYS[2], first, last, 'LIMIT', 0, limit)) do
    local key = member:sub(#prefix + tonumber(between) + 1)
    local version, value, due = unpack(cmsgpack.unpack(redis.call('HGET', KEYS[1], kind .. key)), 1, 3)
    found[#found + 1] = { key, version, value, due }
end
return found
