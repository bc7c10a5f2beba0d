from stanflow.service import processes


def test_a_task_sees_no_password(monkeypatch):
    monkeypatch.setenv("STANFLOW_DATABASE_URL", "postgresql+psycopg://me:secret@host/name")
    monkeypatch.setenv("PGPASSFILE", "/run/passwords")
    monkeypatch.setenv("STANFLOW_CACHE_DIR", "/cache")
    seen = processes._environment(threads=2)
    assert seen["STANFLOW_CACHE_DIR"] == "/cache"
    assert seen["OMP_NUM_THREADS"] == "2"
    assert not seen.keys() & {"STANFLOW_DATABASE_URL", "PGPASSFILE"}
