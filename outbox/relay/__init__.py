"""Relays deliver what is in the log to other systems, sources bring in what is there. `outbox relay` runs both.

              subscription                       circuit
    log ──pull──► batch ──► Delivery ──wave by wave──► Target ──► RabbitMQ, Kafka, ActiveMQ, NATS, a webhook
                    ▲           │                        │
                  settle ◄──outcomes◄────confirmed───────┘

    Intake ──receive──► one transaction: publish, and how far it has read ──commit──► confirm there

A relay is an at-least-once subscription of the same name. It settles what the other side has
confirmed, and nothing else. While the other side is away it holds what it has in hand, and no attempt is spent.
"""

from outbox.relay.cloudevents import Event
from outbox.relay.target import Received, Target, Unavailable

__all__ = ["Event", "Received", "Target", "Unavailable"]
