-- Let a job carry something else. ARGV: number, the payload it has, the one it is to have. Returns whether it does.
local number, present, wanted = ARGV[5], ARGV[6], ARGV[7]

if redis.call('HGET', BODY, number) ~= present then
    return 0
end
redis.call('HSET', BODY, number, wanted)
return 1
