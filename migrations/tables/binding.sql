-- Which topics a subscription reads, and which of their messages: those that fit any of its bindings. Static.
CREATE TABLE outbox.binding (
    subscription_id int NOT NULL REFERENCES outbox.subscription (id) ON DELETE CASCADE,
    pattern text NOT NULL
        CHECK (pattern ~ '^([A-Za-z0-9_-]+|\*|#)(\.([A-Za-z0-9_-]+|\*|#))*$'),
    headers jsonb CHECK (jsonb_typeof(headers) = 'object'),
    match text NOT NULL DEFAULT 'all' CHECK (match IN ('all', 'any')),
    filter text CHECK (filter IS NULL OR filter::jsonpath IS NOT NULL),
    alternate boolean NOT NULL DEFAULT false,
    UNIQUE NULLS NOT DISTINCT (subscription_id, pattern, headers, match, filter, alternate)
);

COMMENT ON COLUMN outbox.binding.pattern IS
    'Words between dots, as in RabbitMQ: * is exactly one word, # is any number of words, none included.';

COMMENT ON COLUMN outbox.binding.headers IS 'Names and values that a message must have; null: any value.';

COMMENT ON COLUMN outbox.binding.match IS '"all": of those headers; "any": one of them.';

COMMENT ON COLUMN outbox.binding.filter IS 'A predicate on the payload, in SQL/JSON path: $.total > 100. Raw bodies never fit one.';

COMMENT ON COLUMN outbox.binding.alternate IS 'It takes only what fits no binding of another subscription that is not alternate, too.';
