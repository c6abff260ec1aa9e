-- How many jobs there are, counted in five ways that should agree: rows, payloads, keys, those in a list, the counters.
local counted = 0
for _, count in ipairs(redis.call('HVALS', COUNT)) do
    counted = counted + count
end
return {
    redis.call('HLEN', JOB), redis.call('HLEN', BODY), redis.call('HLEN', KEY), redis.call('ZCARD', ROWS), counted,
}
