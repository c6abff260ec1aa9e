-- What may run of each ordering key, when all rows are there. ARGV: the cursor, how many to look at.
-- Returns the next cursor.
local page = redis.call('HSCAN', HEAD, ARGV[5], 'COUNT', ARGV[6])
for at = 1, #page[2], 2 do
    local order_id, number = page[2][at], page[2][at + 1]
    exclude(ORDER, order_id .. number)
    include(DUE, in_due(number, load(number)))
end
return page[1]
