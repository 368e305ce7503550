"""What Prometheus scrapes: how a database stands (`database`), over HTTP (`server`)."""
