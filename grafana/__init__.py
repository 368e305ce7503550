"""What an operator sees: dashboards, alert rules, the table of all metrics. `python -m grafana` writes them."""
