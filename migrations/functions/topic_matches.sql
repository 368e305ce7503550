-- Does a topic match a pattern? Words between dots: * is one word, # is any number of words, none included.
CREATE FUNCTION outbox.topic_matches(topic text, pattern text) RETURNS boolean
LANGUAGE sql IMMUTABLE PARALLEL SAFE
AS $$
SELECT '.' || topic ~ ('^' || string_agg(
    CASE word WHEN '#' THEN '([.][^.]+)*' WHEN '*' THEN '[.][^.]+' ELSE '[.]' || word END,
    '' ORDER BY place) || '$')
FROM string_to_table(pattern, '.') WITH ORDINALITY AS words (word, place)
$$;
