-- In front of every script about jobs: the rows of one partition.
-- ARGV[3]: the channel that wakes who waits. ARGV[4]: who runs this, and needs no waking.
-- A script checks first and writes after. Most of what it changes gathers and is written at its end, many rows with one
-- command, what frees memory first: Redis undoes nothing, and refuses for want of memory only before the first write.

local JOB, BODY, KEY, GONE, DUE, HELD, ORDER, HEAD, ROWS, ENDED, COUNT, MISC, OUT, OUTBODY = unpack(KEYS, 1, 14)
local IS_HASH = { [JOB] = true, [BODY] = true, [KEY] = true, [MISC] = true, [OUTBODY] = true }

-- The columns of a row.
local QUEUE, QUEUE_ID, ORDER_ID, KEY_ID, DIGEST, STATE, TOKEN, ATTEMPTS, LOSSES, GENERATION = 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
local ARRIVALS, CONFLICTS, CREATED_AT, DUE_AT, ENDED_AT, OWNER, UNTIL, ERROR, REASON, CAME_BY = 11, 12, 13, 14, 15, 16, 17, 18, 19, 20

local READY, LEASED, DONE, DEAD, IGNORED = 'r', 'l', 'd', 'x', 'i'
-- Among ROWS, a ready job that could run at once and that nobody claimed yet. It has no row in JOB and no place in DUE:
-- all there is to know of it stands at the head of its body.
local FRESH = 'f'
local NEW, DUPLICATE, CONFLICT = 0, 1, 2

-- Fields of MISC, before the queue: who waits there and takes the next job that comes; which one went to whom last.
local WAITING, HANDED = 'waiting ', 'handed '

-- Of a job that is added: fingerprint of queue and key, queue, delay, whether it is ignored, then texts behind their
-- lengths: fingerprint of the ordering key, digest, name of the queue.
local FACTS = '>c16c8i8BI4c0I4c0I4c0'

-- As many as Lua can hand over to a function, and an even number.
local PART = 1000

-- What was read or changed: a script sees its own changes before they are written.
local rows, bodies, heads, fresh, unsaved = {}, {}, {}, {}, {}
local gone, come, tallies, woken, last_number = {}, {}, {}, false, nil

-- What a command answers about each of its arguments.
local function read(command, key, arguments)
    if #arguments == 0 then
        return {}
    end
    local answers = redis.call(command, key, unpack(arguments, 1, math.min(PART, #arguments)))
    for at = PART + 1, #arguments, PART do
        for _, answer in ipairs(redis.call(command, key, unpack(arguments, at, math.min(at + PART - 1, #arguments)))) do
            answers[#answers + 1] = answer
        end
    end
    return answers
end

local function write(command, key, arguments)
    for at = 1, #arguments, PART do
        redis.call(command, key, unpack(arguments, at, math.min(at + PART - 1, #arguments)))
    end
end

local function list(lists, key)
    local found = lists[key]
    if not found then
        found = { n = 0 }
        lists[key] = found
    end
    return found
end

local function include(set, member, score)
    local pairs = list(come, set)
    local n = pairs.n
    pairs[n + 1], pairs[n + 2], pairs.n = score or 0, member, n + 2
end

-- Out of a set or a hash. What is in it by this same script stays.
local function exclude(key, member)
    local members = list(gone, key)
    local n = members.n
    members[n + 1], members.n = member, n + 1
end

local function put(hash, field, value)
    include(hash, value, field)
end

-- Whoever waits is told once, then no more until it waits again.
local function wake()
    woken = true
end

-- Write what has gathered.
local function commit()
    for number, row in pairs(unsaved) do
        put(JOB, number, cmsgpack.pack(row))
    end
    for key, members in pairs(gone) do
        write(IS_HASH[key] and 'HDEL' or 'ZREM', key, members)
    end
    for key, members in pairs(come) do
        write(IS_HASH[key] and 'HSET' or 'ZADD', key, members)
    end
    for field, by in pairs(tallies) do
        if by ~= 0 and redis.call('HINCRBY', COUNT, field, by) == 0 then
            redis.call('HDEL', COUNT, field)
        end
    end
    if last_number then
        redis.call('HSET', MISC, 'number', padded(last_number))
    end
    if woken and redis.call('HSETNX', MISC, 'told', 1) == 1 then
        redis.call('PUBLISH', ARGV[3], ARGV[4])
    end
    unsaved, gone, come, tallies, woken, last_number = {}, {}, {}, {}, false, nil
end

-- The body of a fresh job begins with an array of seven.
local HEAD_OF_SEVEN = 0x97

-- How long the head of a body is; others than fresh jobs may have none.
local function head_of(body)
    return body:byte(1) == HEAD_OF_SEVEN and cmsgpack.unpack_one(body) or 0
end

-- The row of a job that came once, and that nobody held yet.
local function new_row(queue, queue_id, order_id, key_id, digest, state, created_at, due_at, came_by)
    return {
        queue, queue_id, order_id, key_id, digest, state, 0, 0, 0, 0,
        1, 0, created_at, due_at, created_at, '', 0, '', '', came_by,
    }
end

-- The row of a job that has none yet.
local function unpack_fresh(number, body)
    local behind, head = cmsgpack.unpack_one(body)
    local queue, queue_id, order_id, key_id, digest, created_at, came_by = unpack(head, 1, 7)
    bodies[number], heads[number], fresh[number] = body, behind, true
    rows[number] = new_row(queue, queue_id, order_id, key_id, digest, READY, created_at, created_at, came_by)
end

-- Read the rows of fresh jobs, all at once.
local function fetch_fresh(numbers)
    for at, body in ipairs(read('HMGET', BODY, numbers)) do
        if body and head_of(body) > 0 and not rows[numbers[at]] then
            unpack_fresh(numbers[at], body)
        end
    end
end

-- Read rows, all at once.
local function fetch(numbers)
    local missing = {}
    for at, packed in ipairs(read('HMGET', JOB, numbers)) do
        if rows[numbers[at]] == nil then
            if packed then
                rows[numbers[at]] = cmsgpack.unpack(packed)
            else
                missing[#missing + 1] = numbers[at]
            end
        end
    end
    fetch_fresh(missing)
end

local function load(number)
    if rows[number] == nil then
        fetch({ number })
    end
    return rows[number]
end

local function save(number, row)
    unsaved[number] = row
end

-- Add to `parts` what Python reads of a job: numbers of fixed width, five lengths, and the texts they are of, the
-- first part of the last of which is only for us.
local function show(parts, number, row)
    local body, head = bodies[number], heads[number]
    if not body then
        body = redis.call('HGET', BODY, number)
        head = head_of(body)
    end
    local queue, err, reason, at = row[QUEUE], row[ERROR], row[REASON], #parts
    parts[at + 1] = struct.pack(
        '>c16c1I4I4I4I4I4I4i8i8I2I4I2I4I2', number, row[STATE], row[TOKEN], row[ATTEMPTS], row[LOSSES],
        row[GENERATION], row[ARRIVALS], row[CONFLICTS], row[CREATED_AT], row[DUE_AT], #queue, #err, #reason, #body, head
    )
    parts[at + 2], parts[at + 3], parts[at + 4], parts[at + 5] = queue, err, reason, body
end

-- As an answer; text alone is something else.
local function shown(number, row)
    local parts = {}
    show(parts, number, row)
    return { table.concat(parts) }
end

-- The first member that begins with `prefix`, at or behind `from`.
local function first(key, prefix, from)
    return redis.call('ZRANGEBYLEX', key, '[' .. (from or prefix), '(' .. prefix .. ':', 'LIMIT', 0, 1)[1]
end

local function in_due(number, row)
    return row[QUEUE_ID] .. padded(row[DUE_AT]) .. number
end

local function in_ended(number, row)
    return row[STATE] .. padded(row[ENDED_AT]) .. number
end

local function in_held(number, row)
    return row[QUEUE_ID] .. padded(row[UNTIL]) .. number
end

local function in_rows(number, row)
    return row[QUEUE_ID] .. (fresh[number] and FRESH or row[STATE]) .. number
end

local function tally(state, queue_id, queue, by)
    local field = state .. queue_id .. queue
    tallies[field] = (tallies[field] or 0) + by
end

-- Leased jobs are found in HELD.
local function count_in(number, row)
    tally(row[STATE], row[QUEUE_ID], row[QUEUE], 1)
    if row[STATE] ~= LEASED then
        include(ROWS, in_rows(number, row))
    end
end

local function count_out(number, row)
    tally(row[STATE], row[QUEUE_ID], row[QUEUE], -1)
    if row[STATE] ~= LEASED then
        exclude(ROWS, in_rows(number, row))
    end
end

local function enter(number, row, state)
    count_out(number, row)
    fresh[number], row[STATE] = nil, state
    count_in(number, row)
end

-- The first job that waits behind an ordering key becomes the one that may run; true when there is one.
local function promote(order_id)
    local member = first(ORDER, order_id)
    if not member then
        redis.call('HDEL', HEAD, order_id)
        return false
    end
    local number = member:sub(-16)
    redis.call('ZREM', ORDER, member)
    redis.call('HSET', HEAD, order_id, number)
    include(DUE, in_due(number, load(number)))
    return true
end

-- A held job ends; true when another one of its ordering key may run now.
local function finish(number, row, state)
    exclude(HELD, in_held(number, row))
    enter(number, row, state)
    row[ENDED_AT] = now
    save(number, row)
    include(ENDED, in_ended(number, row))
    return row[ORDER_ID] ~= '' and promote(row[ORDER_ID])
end

-- A held job is to run again.
local function give_back(number, row)
    exclude(HELD, in_held(number, row))
    enter(number, row, READY)
    save(number, row)
    include(DUE, in_due(number, row))
end

-- A job that may run may do so no more.
local function hold_back(number, row)
    if fresh[number] then
        enter(number, row, READY)
        save(number, row)
    else
        exclude(DUE, in_due(number, row))
    end
end

-- A ready job takes its place: behind the one of its ordering key that runs, else before those that came later.
local function line_up(number, row)
    local order_id = row[ORDER_ID]
    local head = order_id ~= '' and redis.call('HGET', HEAD, order_id)
    if head then
        local row_of_head = load(head)
        if row_of_head[STATE] == LEASED or head < number then
            redis.call('ZADD', ORDER, 0, order_id .. number)
            return
        end
        hold_back(head, row_of_head)
        redis.call('ZADD', ORDER, 0, order_id .. head)
    end
    if order_id ~= '' then
        redis.call('HSET', HEAD, order_id, number)
    end
    include(DUE, in_due(number, row))
end

-- An ended job is forgotten, but for its key.
local function drop(number, row)
    exclude(ENDED, in_ended(number, row))
    count_out(number, row)
    exclude(BODY, number)
    exclude(JOB, number)
    exclude(KEY, row[KEY_ID])
    include(GONE, row[KEY_ID], digits(now))
end

-- The row, if this token still holds it.
local function held(number, token)
    local row = load(number)
    return row and row[STATE] == LEASED and row[TOKEN] == tonumber(token) and row
end

-- Numbers grow, and are never used again: they follow the clock, so that not even a failover can bring one back.
local function next_number(stamp)
    last_number = math.max((last_number or tonumber(redis.call('HGET', MISC, 'number') or 0)) + 1, stamp)
    return padded(last_number)
end

-- To begin with, where nothing else is written that a full server refuses, and something may be that it allows.
local function refuse_when_full()
    redis.call('HSET', MISC, 'number', redis.call('HGET', MISC, 'number') or padded(0))
end

-- Key id → number; or that there is none; or that the job is gone.
local known, arrived = {}, {}
local function recognise(key_ids)
    local numbers, gone = read('HMGET', KEY, key_ids), read('ZMSCORE', GONE, key_ids)
    for at, key_id in ipairs(key_ids) do
        known[key_id] = gone[at] and GONE or numbers[at]
    end
end

-- Digests in hexadecimal are kept as sixteen bytes; the first layout kept them as they were given.
local function is_short_for(short, long)
    return #short == 16 and #long == 64 and long:sub(1, 32) == short:gsub('.', function(byte)
        return string.format('%02x', byte:byte())
    end)
end

local function same_digest(one, other)
    return one == other or is_short_for(one, other) or is_short_for(other, one)
end

-- The same key once more.
local function arrive_again(number, digest)
    if arrived[number] then
        commit() -- by this same script
    end
    local row = load(number)
    local conflict = not same_digest(row[DIGEST], digest)
    row[ARRIVALS] = row[ARRIVALS] + 1
    row[CONFLICTS] = row[CONFLICTS] + (conflict and 1 or 0)
    if fresh[number] then
        enter(number, row, READY)
        include(DUE, in_due(number, row))
    end
    save(number, row)
    return conflict and CONFLICT or DUPLICATE
end

-- A job that comes alone goes at once to the worker that does nothing but wait, as if that had claimed it; true when it
-- was sent there. Not where another job was due before, nor to the process that adds it, which looks by itself.
local function hand_over(waiting, number, payload, row)
    local queue_id = row[QUEUE_ID]
    local origin, wait, ends, owner, duration, fields = unpack(cmsgpack.unpack(waiting), 1, 6)
    redis.call('HDEL', MISC, unpack(fields))
    local due = first(DUE, queue_id)
    if origin == ARGV[4] or ends <= now or first(ROWS, queue_id .. FRESH) or due and due:sub(9, 24) <= padded(now) then
        return false
    end
    row[STATE], row[TOKEN], row[OWNER], row[UNTIL] = LEASED, 1, owner, now + duration
    bodies[number], heads[number] = payload, 0
    local parts = { wait, ' ' }
    show(parts, number, row)
    if redis.call('PUBLISH', ARGV[3] .. ':' .. origin, table.concat(parts)) == 0 then
        return false -- it is gone
    end
    redis.call('HSET', MISC, HANDED .. queue_id, cmsgpack.pack({ origin, wait, number }))
    rows[number] = row
    save(number, row)
    put(BODY, number, payload)
    count_in(number, row)
    include(HELD, in_held(number, row))
    return true
end

-- A job whose key was recognised; who waits for one, where this is all that comes. True behind its answer: it was
-- handed over.
local function arrive(
    key_id, digest, payload, queue, queue_id, order_id, delay, ignored, created_at, stamp, came_by, waiting
)
    local number = known[key_id]
    if number == GONE then
        return DUPLICATE
    elseif number then
        return arrive_again(number, digest)
    end
    number = next_number(stamp)
    known[key_id], arrived[number] = number, true
    put(KEY, key_id, number)
    local may_run = true
    if ignored then
        may_run = false
    elseif order_id ~= '' then
        may_run = redis.call('HSETNX', HEAD, order_id, number) == 1
        if not may_run then
            redis.call('ZADD', ORDER, 0, order_id .. number)
        end
    end
    if may_run and delay == 0 then
        if waiting and hand_over(
            waiting, number, payload,
            new_row(queue, queue_id, order_id, key_id, digest, READY, created_at, created_at, came_by)
        ) then
            return NEW, true
        end
        local head = cmsgpack.pack({ queue, queue_id, order_id, key_id, digest, created_at, came_by })
        put(BODY, number, head .. payload)
        tally(READY, queue_id, queue, 1)
        include(ROWS, queue_id .. FRESH .. number)
        return NEW
    end
    local state, due_at = ignored and IGNORED or READY, created_at + delay
    local row = new_row(queue, queue_id, order_id, key_id, digest, state, created_at, due_at, came_by)
    rows[number] = row
    save(number, row)
    put(BODY, number, payload)
    count_in(number, row)
    if ignored then
        include(ENDED, in_ended(number, row))
    elseif may_run then
        include(DUE, in_due(number, row))
    end
    return NEW
end

-- Jobs as arguments from `from` on, three each: the partition they belong to, facts, and what never changes of them.
-- One that belongs elsewhere is kept here until it is brought there. Returns text, for each job a digit that says what
-- became of it, or `@` and its place in what is to be brought.
local function add(from, here)
    local key_ids, answers, handed = {}, {}, false
    for at = from, #ARGV, 3 do
        key_ids[#key_ids + 1] = ARGV[at + 1]:sub(1, 16)
    end
    if #key_ids == 0 then
        return ''
    end
    refuse_when_full()
    recognise(key_ids)
    for at = from, #ARGV, 3 do
        local key_id, queue_id, delay, ignored, order_id, digest, queue = struct.unpack(FACTS, ARGV[at + 1])
        local payload, stamp = ARGV[at + 2], real + #answers
        if ARGV[at] == here then
            local waiting = #key_ids == 1 and redis.call('HGET', MISC, WAITING .. queue_id)
            answers[#answers + 1], handed = arrive(
                key_id, digest, payload, queue, queue_id, order_id, delay, ignored == 1, now, stamp, '', waiting
            )
        else
            local place = next_number(stamp)
            -- Text, as former versions left it and read it.
            local new = {
                key_id, digest, payload, queue, queue_id, order_id, digits(delay), digits(ignored), now, stamp, '',
            }
            put(OUTBODY, place, cmsgpack.pack(new))
            include(OUT, string.format('%04d', tonumber(ARGV[at])) .. place)
            answers[#answers + 1] = '@' .. place
        end
    end
    if not handed then
        wake()
    end
    return table.concat(answers)
end
