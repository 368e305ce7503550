"""What Prometheus would read of a page, as tests ask for it."""

from __future__ import annotations

import urllib.error
import urllib.request

from prometheus_client.parser import text_string_to_metric_families

Series = dict[tuple[str, frozenset[tuple[str, str]]], float]


def parse(text: str) -> Series:
    families = text_string_to_metric_families(text)
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def get(url: str) -> tuple[int, str]:
    """Status and text; 0: nobody listens."""
    try:
        with urllib.request.urlopen(url, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def scrape(address: str) -> Series:
    return parse(get(f"http://{address}/metrics")[1])


def total(series: Series, name: str, **labels: str) -> float:
    """The sum of the series that have these labels; 0 if there is none."""
    wanted = labels.items()
    return sum(value for (found, has), value in series.items() if found == name and wanted <= dict(has).items())
