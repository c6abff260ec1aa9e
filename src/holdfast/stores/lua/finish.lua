-- End a job. ARGV: number, token, state, reason, whether there is an error, error. Returns whether it was held.
local number, token, state, reason, failed, err = unpack(ARGV, 5, 10)

local row = held(number, token)
if not row then
    return 0
end
row[REASON] = reason
if failed == '1' then
    row[ERROR] = err
end
if finish(number, row, state) then
    wake()
end
return 1
