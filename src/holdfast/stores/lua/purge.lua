-- Drop ended jobs, keeping their keys, and keys that were kept as long again.
-- ARGV: age, how many keys, how many jobs (empty: only look, at as many as keys), then the states.
-- Returns when the oldest ended and their numbers, or how many were dropped.
local horizon, keys, jobs = now - tonumber(ARGV[5]), ARGV[6], ARGV[7]

for _, id in ipairs(redis.call('ZRANGEBYSCORE', GONE, '-inf', digits(horizon), 'LIMIT', 0, keys)) do
    exclude(GONE, id)
end
local limit = jobs == '' and keys or jobs
local ended = {}
for at = 8, #ARGV do
    local state = ARGV[at]
    local last = '(' .. state .. padded(horizon + 1)
    for _, member in ipairs(redis.call('ZRANGEBYLEX', ENDED, '[' .. state, last, 'LIMIT', 0, limit)) do
        ended[#ended + 1] = member:sub(2)
    end
end
if jobs == '' then
    return ended
end
table.sort(ended)
local dropped = math.min(#ended, tonumber(jobs))
for at = 1, dropped do
    local number = ended[at]:sub(-16)
    drop(number, load(number))
end
return dropped
