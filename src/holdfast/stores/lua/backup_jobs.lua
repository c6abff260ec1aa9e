-- Rows for a backup. ARGV: the cursor, how many to look at. Returns the next cursor, then the jobs.
local page = redis.call('HSCAN', JOB, ARGV[5], 'COUNT', ARGV[6])
local found = { page[1] }
for at = 1, #page[2], 2 do
    local number = page[2][at]
    found[#found + 1] = shown(number, load(number))
end
return found
