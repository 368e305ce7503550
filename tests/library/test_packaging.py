"""The wheel in a fresh virtual environment: it installs `outbox` and nothing else, and works from there."""

import subprocess
import sys
import venv
import zipfile
from pathlib import Path

import pytest

from tests.shop_floor import PATIENCE, ROOT, Database, wait_for

APP = """
from outbox import Outbox
app = Outbox()

@app.subscribe("greeter", "greetings")
def greet(message):
    print("hello", message.payload["name"], flush=True)
"""


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    build = [sys.executable, "-m", "build", "--wheel", "--outdir", str(folder), str(ROOT)]
    result = subprocess.run(build, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (found,) = folder.glob("*.whl")
    return found


def test_the_wheel_holds_outbox_only_with_the_migrations_inside(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0] for name in names if ".dist-info/" not in name} == {"outbox"}
    for name in ("py.typed", "migrations/env.py", "migrations/functions/pull.sql", "workers/shop.py"):
        assert f"outbox/{name}" in names
    assert not [name for name in names if name.endswith(".pyc")]


def test_a_fresh_environment_migrates_publishes_and_works(
    wheel: Path, empty_database: Database, tmp_path: Path, postgres
) -> None:
    """Dependencies come from this environment; what is installed is the wheel."""
    venv.create(tmp_path / "venv", symlinks=True)
    packages = next((tmp_path / "venv" / "lib").iterdir()) / "site-packages"
    outer = [path for path in sys.path if path.endswith("site-packages")]
    (packages / "dependencies.pth").write_text("\n".join(outer))
    install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--target", str(packages)]
    subprocess.run([*install, str(wheel)], check=True, capture_output=True)
    (tmp_path / "app.py").write_text(APP)

    def command(*arguments: str) -> list[str]:
        return [str(tmp_path / "venv" / "bin" / "python"), "-m", "outbox", *arguments]

    environment = {"OUTBOX_DATABASE_URL": empty_database.url, "PATH": "/usr/bin:/bin", "HOME": str(tmp_path)}
    where = [str(tmp_path / "venv" / "bin" / "python"), "-c", "import outbox; print(outbox.__file__)"]
    settings = {"env": environment, "cwd": tmp_path, "capture_output": True, "text": True, "timeout": PATIENCE}
    assert str(packages) in subprocess.run(where, **settings).stdout  # type: ignore[call-overload]

    for arguments in (["migrate"], ["migrate", "--check"], ["publish", "greetings", '{"name": "wheel"}']):
        result = subprocess.run(command(*arguments), **settings)  # type: ignore[call-overload]
        assert result.returncode == 0, result.stderr
    log = tmp_path / "log"
    with open(log, "w") as file:
        worker = subprocess.Popen(
            command("worker", "app:app"), env=environment, cwd=tmp_path, stdout=file, stderr=subprocess.STDOUT
        )
    try:
        wait_for(lambda: "hello wheel" in log.read_text(), "the greeting")
        worker.terminate()
        assert worker.wait(PATIENCE) == 0
    finally:
        worker.kill()
