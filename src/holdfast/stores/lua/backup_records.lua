-- Records for a backup. KEYS: RECORD. ARGV: the cursor, how many to look at.
-- Returns the next cursor, then for each its kind and key, version, value, when it is due, and its index entries.
local page = redis.call('HSCAN', KEYS[1], ARGV[3], 'COUNT', ARGV[4])
local found = { page[1] }
for at = 1, #page[2], 2 do
    local version, value, due, index = unpack(cmsgpack.unpack(page[2][at + 1]), 1, 4)
    found[#found + 1] = { page[2][at], version, value, due, unpack(index) }
end
return found
