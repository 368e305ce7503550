-- Is a redelivery too old to be tried again? NULL or false: no. A message's own time to live counts, and its subscription's.
CREATE FUNCTION outbox.is_expired(expires_at timestamptz, published_at timestamptz, ttl interval, now timestamptz) RETURNS boolean
LANGUAGE sql IMMUTABLE
RETURN expires_at <= now OR published_at <= now - ttl AND expires_at IS DISTINCT FROM 'infinity';
