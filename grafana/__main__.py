"""Write all that is made of code, or (--check) say what is not current: `python -m grafana [--check]`."""

from __future__ import annotations

import sys
from pathlib import Path

from grafana import dashboards, reference, rules

HERE = Path(__file__).parent


def made() -> dict[Path, str]:
    """Each file that is made of code, and what it should hold."""
    readme = HERE / "README.md"
    return {
        readme: reference.with_tables(readme.read_text()),
        HERE / "alerts.md": rules.runbook(),
        HERE / "prometheus" / "alerts.yml": rules.yaml_text(),
        **{HERE / "dashboards" / f"{name}.json": text for name, text in dashboards.texts().items()},
    }


def outdated() -> list[Path]:
    """Files that are not what the code makes."""
    return [path for path, text in made().items() if not path.exists() or path.read_text() != text]


def main() -> int:
    if "--check" in sys.argv:
        for path in outdated():
            print(f"{path} is not current: python -m grafana")
        return 1 if outdated() else 0
    for path, text in made().items():
        path.write_text(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
