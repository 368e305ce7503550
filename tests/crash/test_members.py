"""Members of an ordered subscription come and go, in every way, while it is at work."""

from __future__ import annotations

import signal
from pathlib import Path

from tests.crash.shop import open_shop


def test_four_members_on_twelve_partitions_keep_the_order_when_one_dies_one_stops_and_one_comes(tmp_path: Path) -> None:
    with open_shop(tmp_path, seed=12, publishers=3) as shop:
        assert shop.value("SELECT outbox.alter_topic('orders', 12)::int") == 1  # it had three: raised under load
        for _ in range(2):
            shop.start_worker().wait_for_line("worker started")
        killed, stopped = shop.workers[2:4]
        shop.wait_for_effects(200)
        killed.process.send_signal(signal.SIGKILL)
        killed.process.wait()
        shop.wait_for_effects(200)
        assert stopped.stop() == 0
        shop.start_worker().wait_for_line("worker started")
        shop.wait_for_effects(500)
        verdict = shop.close_books()
        print(verdict)
        assert set(shop.stop_workers()) == {0}, shop.tails()
        assert verdict.is_good, f"{verdict}\n{shop.tails()}"
        in_use = (
            "SELECT count(DISTINCT partition_id) FROM outbox.message JOIN outbox.partition p ON p.id = partition_id"
        )
        assert (shop.value(f"{in_use} WHERE p.generation = 2") or 0) > 12  # of two priorities
