-- Which topics a subscription reads. Static.
CREATE TABLE outbox.binding (
    subscription_id int NOT NULL REFERENCES outbox.subscription (id) ON DELETE CASCADE,
    pattern text NOT NULL
        CHECK (pattern ~ '^([A-Za-z0-9_-]+|\*|#)(\.([A-Za-z0-9_-]+|\*|#))*$'),
    PRIMARY KEY (subscription_id, pattern)
);

COMMENT ON COLUMN outbox.binding.pattern IS
    'Words between dots, as in RabbitMQ: * is exactly one word, # is any number of words, none included.';
