"""Logs are events with fields, on standard error: `log.info("batch_committed", hub=..., rows=...)`.

warning: nothing is lost; error: data is lost or a person must act. No patient value, name or
number goes into a field: log ids that are opaque (hub, device, batch), counts and durations.
"""

from __future__ import annotations

import logging
import sys

import structlog

from gateway.platform.settings import Settings, is_interactive

Logger = structlog.stdlib.BoundLogger


def configure_logs(settings: Settings) -> None:
    """Set up structlog for this process; libraries' own logs go through it at warning."""
    level = getattr(logging, settings.log_level.upper())
    console = settings.log_format == "console" or (
        settings.log_format == "auto" and is_interactive()
    )
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if console else structlog.processors.JSONRenderer()
    )
    shared: list[structlog.typing.Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.StackInfoRenderer(),
    ]
    exceptions: list[structlog.typing.Processor] = (
        [] if console else [structlog.processors.format_exc_info]
    )
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.make_filtering_bound_logger(level),
        cache_logger_on_first_use=True,
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *exceptions,
                renderer,
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(logging.WARNING)
    for own in ("gateway", "edge", "ingest", "api", "firmware_sim", "bench"):
        logging.getLogger(own).setLevel(level)


def get_logger(name: str, **fields: str | int) -> Logger:
    """Return the logger of a module, with fields that every event of it carries."""
    logger: Logger = structlog.stdlib.get_logger(name, **fields)
    return logger
