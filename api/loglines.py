"""How log lines look: one JSON object per line on stderr. It writes none itself.

Lines carry ids, accessors, statuses and request ids; never a body, a query string or a token.
"""

import logging
import sys
import threading
from contextlib import suppress
from typing import Final

import structlog

_SHARED: Final = (
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_logger_name,
    structlog.stdlib.add_log_level,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
)
_RENDERED: Final = (
    structlog.processors.format_exc_info,
    structlog.processors.JSONRenderer(ensure_ascii=False),
)


class _Lines:
    """A logger of our own lines. One that cannot be written is lost, and the request goes on."""

    def __init__(self, name: str) -> None:
        self.name = name

    def info(self, line: str) -> None:
        with _writing, suppress(OSError, ValueError):  # a full disk, a reader that went away
            sys.stderr.write(f"{line}\n")

    debug = warning = error = info


_writing: Final = threading.Lock()


def configure(level: str) -> None:
    """Send the whole process's log lines of `level` (debug, info, warning, error) and above."""
    least = logging.getLevelNamesMapping()[level.upper()]
    # Ours do not go by way of the standard library: there is a line for every request, and a record
    # of the place it comes from, which none of them shows, took a twentieth of a request's time.
    structlog.configure(
        processors=[*_SHARED, *_RENDERED],
        logger_factory=_Lines,
        wrapper_class=structlog.make_filtering_bound_logger(least),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=_SHARED,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, *_RENDERED],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(least)
    # Their words at these levels are about themselves; ours say what happened.
    for name in ("waitress.queue", "psycopg.pool", "httpx"):
        logging.getLogger(name).setLevel(logging.ERROR)
