-- Put what was restored in place of what is there. KEYS: the names it was restored under, then as many real ones.
local count = #KEYS / 2
for at = 1, count do
    redis.call('UNLINK', KEYS[count + at])
    if redis.call('EXISTS', KEYS[at]) == 1 then
        redis.call('RENAME', KEYS[at], KEYS[count + at])
    end
end
return count
