-- Let a job run again later. ARGV: number, token, delay, attempts, whether there is an error, error.
-- Returns whether it was held.
local number, token, delay, attempts, failed, err = unpack(ARGV, 5, 10)

local row = held(number, token)
if not row then
    return 0
end
row[DUE_AT] = now + tonumber(delay)
row[ATTEMPTS] = row[ATTEMPTS] + tonumber(attempts)
if failed == '1' then
    row[ERROR] = err
end
give_back(number, row)
wake()
return 1
