"""What node files do to logging, undone: a test run goes on after it."""

import logging
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def restored_logging() -> Iterator[None]:
    """Put levels, handlers, switches and the methods of loggers back as they were."""
    root, methods = logging.getLogger(), (logging.Logger.isEnabledFor, logging.Logger.handle, logging.basicConfig)
    loggers = [root, *(each for each in root.manager.loggerDict.values() if isinstance(each, logging.Logger))]
    states = [(each, each.level, each.handlers[:], each.propagate, each.disabled) for each in loggers]
    switches = (root.manager.disable, logging.lastResort, root.filters[:])
    filters = [] if logging.lastResort is None else logging.lastResort.filters[:]
    registered, known = dict(logging._handlers), logging._handlerList[:]
    try:
        yield
    finally:
        logging.Logger.isEnabledFor, logging.Logger.handle, logging.basicConfig = methods
        root.manager.disable, logging.lastResort, root.filters[:] = switches
        if logging.lastResort is not None:
            logging.lastResort.filters[:] = filters
        logging._handlers.clear()
        logging._handlers.update(registered)
        logging._handlerList[:] = known
        for each, level, handlers, propagate, disabled in states:
            each.setLevel(level)
            each.handlers[:], each.propagate, each.disabled = handlers, propagate, disabled
