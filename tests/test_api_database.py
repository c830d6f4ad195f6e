"""The tables: made by the migrations as the models say, and as good in PostgreSQL as in SQLite."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from colorization.api.storage.database import Base, Database
from colorization.core.runs import Run


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a PostgreSQL server of its own, out of a package that not every platform has."""
    pgserver = pytest.importorskip("pgserver")
    pytest.importorskip("psycopg")
    folder = tmp_path_factory.mktemp("postgresql")
    server = pgserver.get_server(folder)
    yield f"postgresql+psycopg://postgres:@/postgres?host={folder}"
    server.cleanup()


def test_migrations_make_the_tables_of_the_models(tmp_path: Path) -> None:
    database = Database(f"sqlite:///{tmp_path / 'd.db'}")
    with database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_all_of_it_works_in_postgresql(
    postgresql: str, make_app: Callable[..., Any], photo_bytes: Callable[..., bytes], tmp_path: Path
) -> None:
    """Runs, a batch with a bad file, its results, an evaluation; found again by the next server."""
    for i, state in enumerate(("failed", "finished", "stopped")):
        run = Run(tmp_path / "outputs" / "runs" / f"UNet_{i}")
        run.path.mkdir(parents=True)
        run.update_status(state=state, model="unet", started=f"2026-01-0{i + 1}T00:00:00+00:00")
    evaluation = tmp_path / "outputs" / "eval" / "by-hand"
    evaluation.mkdir(parents=True)
    protocol = {"data": "photos", "time": "2026-01-01T00:00:00+00:00", "n": 1, "size": 32}
    report = {"protocol": protocol, "rows": [{"name": "grey"}], "comparisons": [], "uncertainty": []}
    (evaluation / "metrics.json").write_text(json.dumps(report))
    app = make_app(database=postgresql)
    with app.extensions["colorization"].database.engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), Base.metadata) == []
    client = app.test_client()
    files = [(io.BytesIO(photo_bytes(40)), "a.jpg"), (io.BytesIO(b"text"), "b.jpg")]
    job = client.post("/api/colorize/batch", data={"files": files}).json
    assert "finished" in client.get(job["stream"]).text
    app.extensions["colorization"].close()

    app = make_app(database=postgresql)
    client = app.test_client()
    ids = {
        q: [r["id"] for r in client.get(f"/api/training/runs?{q}").json["runs"]] for q in ("q=et_", "sort=id&page=1")
    }
    assert ids == {"q=et_": ["UNet_2", "UNet_1", "UNet_0"], "sort=id&page=1": ["UNet_0", "UNet_1", "UNet_2"]}
    assert client.get("/api/history/runs?state=failed&model=unet").json["total"] == 1
    assert client.delete("/api/history/UNet_0").status_code == 204
    assert client.get("/api/system").json["runs"] == {"finished": 1, "stopped": 1}
    found = client.get(job["url"]).json
    assert [item["state"] for item in found["items"]] == ["done", "failed"] and found["done"] == 2
    assert client.get(found["items"][0]["result"]["result"]["url"]).status_code == 200
    assert client.get("/api/jobs?kind=batch&state=finished").json["total"] == 1
    assert client.get("/api/metrics/evaluations/by-hand").status_code == 404  # listing finds it
    assert client.get("/api/metrics/evaluations").json["total"] == 1
    assert client.delete("/api/metrics/evaluations/by-hand").status_code == 204
    for path in ("jobs/a%00b", "training/status/a%00b", "colorize/result/a%00b", "metrics/evaluations/a%00b"):
        assert client.get(f"/api/{path}").status_code == 404
    for query in ("q=%00", "model=%00"):
        assert client.get(f"/api/training/runs?{query}").status_code == 422
    app.extensions["colorization"].results.sweep()
    assert client.delete(job["url"]).status_code == 204 and client.get("/api/jobs").json["total"] == 0
