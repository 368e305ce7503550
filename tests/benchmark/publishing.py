"""What publishing costs: inside a business transaction, and in bulk."""

from __future__ import annotations

import statistics

from tests.benchmark.figures import percentile
from tests.benchmark.rig import prepared
from tests.benchmark.server import Server
from tests.benchmark.workload import Measures

#: Beside each competitor, in the same database and in turns with it.
_BASELINE = "plain INSERT"


def transact(server: Server, competitor: str, transactions: int, warm_up: int = 20) -> Measures:
    """A transaction that inserts an order and publishes it, beside one with a plain INSERT, and one with neither."""
    with prepared(server, competitor, 0, also=(_BASELINE,)) as rig:
        server.checkpoint()
        times = rig.run("transact", baseline=_BASELINE, transactions=transactions, warm_up=warm_up)
    medians = {kind: statistics.median(found) for kind, found in times.items()}
    return {
        "publish_us": medians["publish"],
        "publish_p99_us": percentile(times["publish"], 99),
        "insert_us": medians["insert"],
        "insert_p99_us": percentile(times["insert"], 99),
        "nothing_us": medians["nothing"],
        "ratio_to_insert": medians["publish"] / medians["insert"],
        "p99_ratio_to_insert": percentile(times["publish"], 99) / percentile(times["insert"], 99),
    }


def bulk(server: Server, competitor: str, messages: int, size: int = 1_000) -> Measures:
    """Publish many a call, a commit each."""
    with prepared(server, competitor, messages) as rig:
        server.checkpoint()
        before = server.cpu_seconds()
        seconds = rig.fill(messages, size)
        after = server.cpu_seconds()
    cost = {} if before is None or after is None else {"postgres_us": 1e6 * (after - before) / messages}
    return {"rate": messages / sum(seconds), **cost}
