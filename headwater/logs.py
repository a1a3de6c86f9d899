"""Log lines of the long-running processes."""

import logging

from headwater.settings import Settings

LEVELS = {"crit": "CRITICAL", "error": "ERROR", "warn": "WARNING", "info": "INFO", "debug": "DEBUG"}
CHATTY = ("aiokafka", "asyncio", "faust", "httpcore", "httpx", "kafka", "mode", "onnx_ir", "onnxscript", "torch")


def _without_traceback(record: logging.LogRecord) -> bool:
    record.exc_info = record.exc_text = None
    return True


def set_up_logging(settings: Settings) -> None:
    """Log to standard error at the chosen level; libraries speak up from warnings on, unless at debug."""
    logging.basicConfig(level=LEVELS[settings.log_level], format="%(asctime)s %(levelname)-7s %(message)s")
    if settings.log_level != "debug":
        for name in CHATTY:
            logging.getLogger(name).setLevel(logging.WARNING)
        for handler in logging.getLogger().handlers:  # a broken connection is one line
            handler.addFilter(lambda record: not record.name.startswith("kafka") or _without_traceback(record))
