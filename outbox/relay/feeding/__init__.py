"""Handlers on another system's log: `outbox worker --from kafka://…` runs them there as they run on ours.

           stream                lanes               runners
    Kafka ──read──► Judge ──► a partition each ──► the handler, how far it is read, what is done: one commit
                      │                                 │ it failed
                      └─ passed over: not bound, done   └──► how far it is read, and a redelivery here: one commit
                                                                    └──► the usual consumer tries it again

The messages are in no table of ours. Progress is in `outbox.source_position`, what is done in `outbox.inbox`.
"""

from outbox.relay.feeding.feed import Feed
from outbox.relay.feeding.origin import is_url, named, source_of
from outbox.relay.feeding.worker import FeedWorker

__all__ = ["Feed", "FeedWorker", "is_url", "named", "source_of"]
