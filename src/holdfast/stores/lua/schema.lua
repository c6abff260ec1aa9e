-- Claim the keyspace for a schema, or read what is there. KEYS: the schema. ARGV: version, partitions.
-- The partitions are fixed when the keyspace is made: where a key lives depends on how many there are.
redis.call('HSETNX', KEYS[1], 'partitions', ARGV[4])
redis.call('HSETNX', KEYS[1], 'version', ARGV[3])
return redis.call('HMGET', KEYS[1], 'version', 'partitions')
