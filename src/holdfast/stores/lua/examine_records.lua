-- Whether records and what they are found by agree. KEYS: RECORD, NAMES, INDEX, WANTED.
-- ARGV: the cursor, how many to look at. Returns the next cursor, then pairs of what is wrong and the key.
local RECORD, NAMES, INDEX, WANTED = unpack(KEYS, 1, 4)
local page = redis.call('HSCAN', RECORD, ARGV[3], 'COUNT', ARGV[4])
local found = { page[1] }

local function expect(key, member, name)
    if not redis.call('ZSCORE', key, member) then
        found[#found + 1] = 'records that are not found'
        found[#found + 1] = name
    end
end

for at = 1, #page[2], 2 do
    local kind, name = page[2][at]:sub(1, 8), page[2][at]:sub(9)
    local _, value, due, index = unpack(cmsgpack.unpack(page[2][at + 1]), 1, 4)
    expect(NAMES, kind .. name, name)
    for _, entry in ipairs(index) do
        expect(INDEX, entry .. name, name)
    end
    if due ~= '' then
        expect(WANTED, kind .. due .. name, name)
    end
    if not pcall(cjson.decode, value) then
        found[#found + 1] = 'unreadable records'
        found[#found + 1] = name
    end
end
return found
