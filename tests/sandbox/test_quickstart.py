"""A trained archive makes starts quicker, and fits only what it was trained with."""

import os
from pathlib import Path

from sandbox import jars, quickstart
from sandbox.pidfile import PidFile


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_an_archive_fits_only_the_jars_it_was_trained_with(tmp_path: Path) -> None:
    jar = tmp_path / "one.jar"
    jar.write_bytes(b"1")
    before = quickstart.archive(tmp_path, [jar])
    assert quickstart.archive(tmp_path, [jar]) == before
    assert quickstart.flags(tmp_path, [jar]) == ()
    before.touch()
    assert f"-XX:AOTCache={before}" in quickstart.flags(tmp_path, [jar])
    os.utime(jar, (0, 0))
    assert quickstart.archive(tmp_path, [jar]) != before
    assert quickstart.flags(tmp_path, [jar]) == ()


async def test_training_leaves_an_archive_and_nothing_else(tmp_path: Path) -> None:
    class_path = await jars.ensure(jars.cache_folder() / "jars")
    await quickstart.train(tmp_path, class_path)
    made = quickstart.archive(tmp_path, class_path)
    assert names_in(tmp_path) == {made.name, "training.pid"}
    assert made.stat().st_size > 10_000_000


async def test_training_happens_once_at_a_time(tmp_path: Path) -> None:
    turn = PidFile(tmp_path / "training.pid")
    assert turn.claim()
    await quickstart.train(tmp_path, ())
    assert names_in(tmp_path) == {"training.pid"}
    turn.release()
