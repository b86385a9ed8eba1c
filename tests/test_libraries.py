"""Those who take a context, or a queue: they work with ours, in all start methods."""

from __future__ import annotations

import logging
import logging.config
import logging.handlers
import multiprocessing
import multiprocessing.pool
import sys
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool

import installed
import pytest
from probes import LIMIT

import joinq


@pytest.fixture
def ours(ctx):
    """Our context with the same start method."""
    return joinq.get_context(ctx.get_start_method())


def test_pool(ours):
    """Its queues are ours; results, errors, initializers, many tasks, and the end."""
    with ours.Pool(2, initializer=installed.initialize, initargs=("set",), maxtasksperchild=50) as pool:
        assert type(pool._inqueue) is type(pool._outqueue) is joinq.SimpleQueue
        assert pool.map(installed.square, range(1000)) == [number**2 for number in range(1000)]
        assert list(pool.imap(installed.square, range(5))) == [0, 1, 4, 9, 16]
        assert pool.apply_async(installed.initialized).get(LIMIT) == "set"
        with pytest.raises(ZeroDivisionError):
            pool.apply(divmod, (1, 0))
    with multiprocessing.pool.Pool(1, context=ours) as pool:
        assert pool.apply(installed.square, (3,)) == 9
        pool.close()
        pool.join()


def test_process_pool_executor(ours):
    """Its result queue is ours; results, errors, and a worker that dies."""
    with ProcessPoolExecutor(2, mp_context=ours) as executor:
        assert type(executor._result_queue) is joinq.SimpleQueue
        assert list(executor.map(installed.square, range(200))) == [number**2 for number in range(200)]
        with pytest.raises(ZeroDivisionError):
            executor.submit(divmod, 1, 0).result(LIMIT)
    with ProcessPoolExecutor(1, mp_context=ours) as executor, pytest.raises(BrokenProcessPool):
        executor.submit(installed.die).result(LIMIT)


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue"])
def test_logging_through_a_queue(ours, launch, tmp_path, kind):
    """QueueHandler in the children, QueueListener here."""
    q = getattr(ours, kind)()
    handler = logging.FileHandler(tmp_path / "log")
    listener = logging.handlers.QueueListener(q, handler)
    listener.start()
    for child in [launch(installed.log_to, q) for _ in range(2)]:
        child.result()
    listener.stop()
    handler.close()
    assert sorted((tmp_path / "log").read_text().splitlines()) == sorted(
        f"message {n}" for n in range(50) for _ in "ab"
    )


@pytest.mark.skipif(sys.version_info < (3, 12), reason="Python 3.12 brought queues to logging.config")
@pytest.mark.parametrize("how", ["object", "factory"])
def test_logging_config(ctx, ours, launch, tmp_path, how):
    """dictConfig() with a QueueHandler on our queue, made before or by it."""

    def configure(queue):
        handlers = {
            "file": {"class": "logging.FileHandler", "filename": str(tmp_path / "log"), "delay": True},
            "queue": {
                "class": "logging.handlers.QueueHandler",
                "queue": queue if how == "object" else {"()": lambda: queue},
                "handlers": ["file"],
            },
        }
        logger = {"handlers": ["queue"], "level": "INFO", "propagate": False}
        logging.config.dictConfig({"version": 1, "handlers": handlers, "loggers": {"joinq.test": logger}})

    q = ours.Queue()
    try:
        configure(q)
    except ValueError:
        with pytest.raises(ValueError, match="Unable to configure handler 'queue'"):
            configure(ctx.Queue())
        pytest.skip("this Python does not take the stdlib's queue either")
    handler = logging.getHandlerByName("queue")
    assert handler.queue is q
    handler.listener.start()
    try:
        logging.getLogger("joinq.test").info("from here")
        launch(installed.log_to, q).result()
    finally:
        handler.listener.stop()
        logging.config.dictConfig({"version": 1})
    assert (tmp_path / "log").read_text().splitlines() == ["from here", *(f"message {n}" for n in range(50))]


def test_loguru(ours, launch, tmp_path):
    """add(enqueue=True, context=): a logger that is given to children."""
    loguru = pytest.importorskip("loguru")
    loguru.logger.remove()
    number = loguru.logger.add(str(tmp_path / "log"), format="{message}", enqueue=True, context=ours)
    try:
        handler = loguru.logger._core.handlers[number]
        assert type(handler._queue) is joinq.SimpleQueue
        for child in [launch(installed.log_with, loguru.logger) for _ in range(2)]:
            child.result()
        loguru.logger.complete()
        assert sorted((tmp_path / "log").read_text().splitlines()) == sorted(f"m{n}" for n in range(50) for _ in "ab")
    finally:
        loguru.logger.remove(number)


@pytest.mark.slow
def test_torch_dataloader(ours):
    """multiprocessing_context=: workers send their batches through our queues, as tensors in shared memory."""
    torch = pytest.importorskip("torch")
    loader = torch.utils.data.DataLoader(
        installed.Squares(), batch_size=8, num_workers=2, multiprocessing_context=ours, timeout=LIMIT
    )
    for _ in range(2):
        batches = list(loader)
        assert torch.cat(batches).tolist() == [number**2 for number in range(100)]
    iterator = iter(loader)
    assert type(iterator._worker_result_queue) is joinq.Queue
    next(iterator)  # and leave the rest
