-- Whether what points to rows finds them. ARGV: the hash to look at, `body` or `key`, the cursor, how many.
-- Returns the next cursor, then pairs of what is wrong and where.
local payloads = ARGV[5] == 'body'
local page = redis.call('HSCAN', payloads and BODY or KEY, ARGV[6], 'COUNT', ARGV[7])
local found = { page[1] }
for at = 1, #page[2], 2 do
    local number = page[2][payloads and at or at + 1]
    if redis.call('HEXISTS', JOB, number) == 0 then
        found[#found + 1] = payloads and 'payloads without a job' or 'keys without a job'
        found[#found + 1] = number
    end
end
return found
