"""outbox beside hand-written loops and other products, in one run: see README.md."""
