"""
Take the picture of `top` in the README: `python docs/picture_of_top.py`.

A program with a stopped, a killed and two busy workers runs, is looked at twice, and rich exports what it would show.
"""

from __future__ import annotations

import io
import multiprocessing
import os
import re
import signal
import time
from pathlib import Path

from rich.console import Console

import joinq
from joinq import _top

WIDTH = 104


def work(images: joinq.JoinableQueue, thumbnails: joinq.Queue, fate: int) -> None:
    """Be a worker, to whom something happens at its hundredth task."""
    for number, image in enumerate(iter(images.get, None)):
        if fate and number == 99:
            os.kill(os.getpid(), fate)
        thumbnails.put(image)
        images.task_done()


def store(thumbnails: joinq.Queue) -> None:
    """Take everything."""
    while True:
        thumbnails.get()


def feed(images: joinq.JoinableQueue) -> None:
    """Keep some work waiting."""
    number = 0
    while True:
        while images.qsize() < 2000:
            images.put(number)
            number += 1
        time.sleep(0.001)


def main() -> None:
    """Run the program, take the picture, end the program."""
    images, thumbnails = joinq.JoinableQueue(name="images"), joinq.Queue(100, name="thumbnails")
    queues = (images, thumbnails)
    work_of = {
        f"worker-{i}": (work, (*queues, fate)) for i, fate in enumerate((signal.SIGSTOP, signal.SIGKILL, 0, 0), 1)
    }
    targets = {"feeder": (feed, (images,)), "storage": (store, (thumbnails,)), **work_of}
    processes = [multiprocessing.Process(target=t, args=args, name=name) for name, (t, args) in targets.items()]
    for process in processes:
        process.start()
    joiner = multiprocessing.Process(target=images.join, name="joiner")
    joiner.start()
    watch = _top.Watch(os.getpid())
    while not any(shown.view.deaths for shown in watch.look().queues):
        time.sleep(0.1)
    watch.look()
    time.sleep(1)
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=True)
    console.print(_top.rich(watch.look(), WIDTH))
    for process in (joiner, *processes):
        process.kill()
    target = Path(__file__).with_name("top.svg")
    svg = console.export_svg(title="python -m joinq top", unique_id="top")
    target.write_text(re.sub(r"@font-face \{.*?\}\s*", "", svg, flags=re.DOTALL), encoding="utf-8")  # They are remote.


if __name__ == "__main__":
    main()
