-- Whether what points to rows finds them. ARGV: the hash to look at, `row` or `key`, the cursor, how many.
-- Returns the next cursor, then pairs of what is wrong and where.
local of_rows = ARGV[5] == 'row'
local page = redis.call('HSCAN', of_rows and JOB or KEY, ARGV[6], 'COUNT', ARGV[7])
local found = { page[1] }
for at = 1, #page[2], 2 do
    local number = page[2][of_rows and at or at + 1]
    if redis.call('HEXISTS', BODY, number) == 0 then
        found[#found + 1] = of_rows and 'jobs without a payload' or 'keys without a job'
        found[#found + 1] = number
    end
end
return found
