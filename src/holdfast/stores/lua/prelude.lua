-- In front of every script: the store's time, in microseconds.
-- ARGV[1]: the time itself, where a test's clock decides; empty: the server's. ARGV[2]: the skew.

local function server_time()
    local time = redis.call('TIME')
    return time[1] * 1000000 + time[2]
end

local real = server_time()
local now = tonumber(ARGV[1]) or real + tonumber(ARGV[2])

-- Lua would write large numbers with an exponent.
local function digits(number)
    return string.format('%.0f', number)
end

-- Sixteen digits, so that text sorts as the number does.
local texts = {}
local function padded(number)
    local text = texts[number]
    if not text then
        text = string.format('%016.0f', math.max(0, math.min(number, 9e15)))
        texts[number] = text
    end
    return text
end

-- The key is forgotten some time after `moment`, by the server's own clock.
local function keep_until(key, moment, margin)
    redis.call('PEXPIRE', key, digits(math.ceil(math.max(0, moment - now) / 1000) + margin))
end
