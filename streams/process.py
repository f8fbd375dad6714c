"""A role's process: signals, fail-stop, health, structured logs.

Any unexpected exception ends the process with `os._exit` before an ack or a commit (facts of aiokafka and Faust:
a half-dead consumer loses records, a dead one does not); the supervisor starts it again. SIGTERM ends it in order.
"""

import asyncio
import json
import logging
import os
import signal
import sys
import time
import traceback
from collections.abc import Awaitable, Callable
from typing import Final, NoReturn

from streams import connection, tracing
from streams.health import Health
from streams.settings import Settings

FAIL_STOP: Final = 70  # EX_SOFTWARE of sysexits.h
log = logging.getLogger("keyturn.process")

Main = Callable[[Settings, Health, asyncio.Event], Awaitable[None]]
"""The role itself: returns when the event is set, raises when it cannot go on."""

_PLAIN: Final = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class JsonLines(logging.Formatter):
    """One JSON object a line: time (RFC 3339, UTC), level, logger, message, and whatever the caller added."""

    def __init__(self, role: str) -> None:
        """`role` is said in every line."""
        super().__init__()
        self._role = role

    def format(self, record: logging.LogRecord) -> str:
        """The line."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        line: dict[str, object] = {
            "at": f"{stamp}.{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "role": self._role,
            "logger": record.name,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _PLAIN}
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str, ensure_ascii=True)


def log_to_stderr(role: str) -> None:
    """Structured logs on stderr: secondary to the audit topic, which is the truth."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonLines(role))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    connection.quiet_client_logs()
    # Libraries that narrate every service they start; what goes wrong reaches us as exceptions and as health.
    for chatty in ("faust", "mode", "uvicorn", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


async def until_stopped(stop: asyncio.Event, *serving: "asyncio.Task[None]") -> None:
    """Wait for `stop`. What ends before, though it should serve as long, is raised."""
    stopping = asyncio.create_task(stop.wait(), name="stop")
    done, _ = await asyncio.wait({stopping, *serving}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    for task in done & {*serving}:
        task.result()
        if not stop.is_set():
            raise RuntimeError(f"{task.get_name()} ended by itself")


def fail_stop(error: BaseException) -> NoReturn:
    """End now, without commits, acks or clean-up: what was not committed is done again after the restart."""
    log.critical(
        "fail-stop",
        extra={"error": f"{type(error).__name__}: {error}", "trace": "".join(traceback.format_exception(error))},
    )
    logging.shutdown()
    sys.stderr.flush()
    os._exit(FAIL_STOP)


def run(role: str, settings: Settings, main: Main) -> None:
    """Run a role until SIGTERM or SIGINT. Does not return normally after a failure: the process is gone then."""
    log_to_stderr(role)
    tracing.begin(role, settings.realm, os.environ)
    asyncio.run(_run(settings, main))


async def _run(settings: Settings, main: Main) -> None:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        async with Health(settings.health, settings.health_host) as health:
            log.info("started", extra={"realm": settings.realm, "health": health.port, "pid": os.getpid()})
            await main(settings, health, stop)
    except BaseException as error:  # noqa: BLE001 - whatever it is, fail-stop
        fail_stop(error)
    log.info("stopped", extra={"realm": settings.realm, "pid": os.getpid()})
