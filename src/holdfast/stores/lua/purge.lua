-- Drop ended jobs, keeping their keys, and keys that were kept as long again.
-- ARGV: age, how many keys, how many jobs (empty: only look, at as many as keys).
-- Returns when the oldest ended and their numbers, or how many were dropped.
local horizon, keys, jobs = digits(now - tonumber(ARGV[5])), ARGV[6], ARGV[7]

for _, id in ipairs(redis.call('ZRANGEBYSCORE', GONE, '-inf', horizon, 'LIMIT', 0, keys)) do
    redis.call('ZREM', GONE, id)
end
if jobs == '' then
    local ended = redis.call('ZRANGEBYSCORE', ENDED, '-inf', horizon, 'WITHSCORES', 'LIMIT', 0, keys)
    local moments = {}
    for at = 2, #ended, 2 do
        moments[#moments + 1] = padded(tonumber(ended[at])) .. ended[at - 1]
    end
    return moments
end
local numbers = redis.call('ZRANGEBYSCORE', ENDED, '-inf', horizon, 'LIMIT', 0, jobs)
for _, number in ipairs(numbers) do
    local row = load(number)
    redis.call('ZREM', ENDED, number)
    redis.call('HDEL', BODY, number)
    redis.call('HDEL', JOB, number)
    redis.call('HDEL', KEY, row[KEY_ID])
    tally(number, row, -1)
    redis.call('ZADD', GONE, digits(now), row[KEY_ID])
end
return #numbers
