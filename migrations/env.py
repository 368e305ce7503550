"""Alembic's environment for outbox's own tables; its version table lies in our schema, beside no other's."""

from alembic import context

from outbox import ddl

options = {"version_table_schema": ddl.SCHEMA, "target_metadata": None}

if context.is_offline_mode():
    context.configure(dialect_name="postgresql", dialect_opts={"paramstyle": "named"}, literal_binds=True, **options)
    with context.begin_transaction():
        if not context.get_starting_revision_argument():
            context.execute(ddl.CREATE_SCHEMA)
        context.run_migrations()
else:
    connection = context.config.attributes["connection"]
    context.configure(connection=connection, **options)
    with context.begin_transaction():
        context.run_migrations()
