-- Rows for a backup. ARGV: the cursor, how many to look at.
-- Returns the next cursor, then the jobs: number, payload, columns.
local page = redis.call('HSCAN', BODY, ARGV[5], 'COUNT', ARGV[6])
local found = { page[1] }
for at = 1, #page[2], 2 do
    local number, body = page[2][at], page[2][at + 1]
    local row = load(number)
    if row then
        found[#found + 1] = { number, body:sub(head_of(body) + 1), unpack(row) }
    end
end
return found
