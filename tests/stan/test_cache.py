import os
import time

from stanflow.stan.cache import mark_used, prune


def test_what_was_not_used_for_ninety_days_is_removed(tmp_path):
    long_ago, recently = (time.time() - days * 86_400 for days in (91, 89))
    for name in ("old.so", "recent.so", "used.so"):
        (tmp_path / name).touch()
    (tmp_path / "old folder").mkdir()
    (tmp_path / "old folder" / "header.gch").touch()
    for name in ("old.so", "used.so", "old folder"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    os.utime(tmp_path / "recent.so", (recently, recently))
    mark_used(tmp_path / "used.so")
    mark_used(tmp_path / "not there")
    prune(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"recent.so", "used.so"}
    prune(tmp_path / "not there")
