"""dramatiq with its queues in Postgres: actors are sent messages in your transaction, and lose none.

```python
import dramatiq
from outbox.dramatiq import PostgresBroker

broker = PostgresBroker("postgresql://postgres@localhost/shop")
dramatiq.set_broker(broker)


@dramatiq.actor
def confirm(order: int) -> None: ...


with Session(engine) as session, session.begin(), broker.transaction(session):
    session.add(Order(id=1))
    confirm.send(1)  # sent if and when the transaction commits
```

send ──commit──► log ──pull──► buffer ──► dramatiq's work queue ──► actor ──► settlement
  │ delay           ▲                                                │ fails: the retry is published
  ▼                 │ due                                            ▼ in the settlement's transaction
scheduled ──────────┘ ◄──────────────────────────────────────────────┘
"""

try:
    import dramatiq  # noqa: F401
except ModuleNotFoundError as error:
    if error.name != "dramatiq":
        raise
    raise ModuleNotFoundError(
        "outbox.dramatiq needs dramatiq: pip install 'outbox-pg[dramatiq]'", name="dramatiq"
    ) from error

from outbox.dramatiq.broker import PostgresBroker

__all__ = ["PostgresBroker"]
