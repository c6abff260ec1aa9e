-- Forget what was brought to its partition. ARGV: that partition, the last place.
local members = redis.call('ZRANGEBYLEX', OUT, '[' .. ARGV[5], '[' .. ARGV[5] .. ARGV[6])
for _, member in ipairs(members) do
    redis.call('ZREM', OUT, member)
    redis.call('HDEL', OUTBODY, member:sub(5))
end
return #members
