-- How many jobs there are, counted in four ways that should agree: payloads, keys, those in a list or leased, the
-- counters.
local counted = 0
for _, count in ipairs(redis.call('HVALS', COUNT)) do
    counted = counted + count
end
return {
    redis.call('HLEN', BODY), redis.call('HLEN', KEY), redis.call('ZCARD', ROWS) + redis.call('ZCARD', HELD), counted,
}
