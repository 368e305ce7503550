"""A relay of the internet shop: its orders go to another system.

    SHOP_RELAY_URL=amqp://127.0.0.1:5672 outbox relay -f workers.relay:app
    python -m workers.relay                             # with a receiver of webhooks that shows what arrives

Where it goes, and with whose password, is the environment's to say; see docs/relays.md.
"""

from __future__ import annotations

import asyncio
import os
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

from outbox import Outbox, logs
from outbox.definitions import Definitions, Secret
from outbox.relay.process import Relays

#: Where the example's own receiver listens.
_HERE = os.environ.get("SHOP_RECEIVER_URL", "http://127.0.0.1:8900/orders")


def declare(app: Outbox, url: str) -> None:
    """Let orders, and all that becomes of them, go to a URL."""
    more: dict[str, object] = {"allow_private": True} if url == _HERE else {}
    if "SHOP_RELAY_USER" in os.environ:
        more |= {"user": os.environ["SHOP_RELAY_USER"], "password": Secret(env="SHOP_RELAY_PASSWORD")}
    app.relay("shop-relay", "orders.#", url=url, **more)


class Receiver(BaseHTTPRequestHandler):
    """Somebody else's system: takes each order, and says so."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        print(f"received {self.headers['webhook-id']} {self.headers['ce-type']}: {body.decode()}", flush=True)
        self.send_response(204)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """It has been printed."""


app = Outbox()
declare(app, os.environ.get("SHOP_RELAY_URL", _HERE))


def main() -> None:
    """Run the relay, and the receiver if nobody else is named."""
    logs.configure()
    if "SHOP_RELAY_URL" not in os.environ:
        where = urlsplit(_HERE)
        server = ThreadingHTTPServer((where.hostname or "127.0.0.1", where.port or 80), Receiver)
        threading.Thread(target=server.serve_forever, daemon=True).start()
    relays = Relays(lambda: Definitions(relays=app.relays), os.environ["OUTBOX_DATABASE_URL"])
    asyncio.run(relays.run())


if __name__ == "__main__":
    main()
