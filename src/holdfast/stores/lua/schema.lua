-- Claim the keyspace for a schema, or read what is there. KEYS: the schema. ARGV: version, partitions, whether it was
-- brought to this version. The partitions are fixed when the keyspace is made: where a key lives depends on how many
-- there are.
redis.call('HSETNX', KEYS[1], 'partitions', ARGV[4])
redis.call('HSETNX', KEYS[1], 'version', ARGV[3])
if ARGV[5] == '1' then
    redis.call('HSET', KEYS[1], 'version', ARGV[3])
end
return redis.call('HMGET', KEYS[1], 'version', 'partitions')
