"""An item's way into bytes: what ForkingPickler would write, at less cost."""

from __future__ import annotations

import io
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

# For an object of exactly these types pickle looks at no reducer, so the plain pickler writes the same bytes.
_PLAIN = frozenset({int, float, str, bytes, bool, type(None)})

# Picklers not in use. A thread, or a put() in a __reduce__ or a signal handler, finds another one or makes one.
_idle: list[tuple[io.BytesIO, ForkingPickler]] = []

loads = pickle.loads


def dumps(obj: Any) -> bytes:
    """Pickles the object as multiprocessing does, with its reducers and those registered with ForkingPickler.

    Raises:
        Exception: whatever pickling the object raises.
    """
    if type(obj) in _PLAIN:
        return pickle.dumps(obj)
    try:
        file, pickler = _idle.pop()
    except IndexError:
        file = io.BytesIO()
        pickler = ForkingPickler(file)
    pickler.dump(obj)  # if it raises, this pickler is not used again
    data = file.getvalue()
    pickler.clear_memo()
    file.seek(0)
    file.truncate()
    _idle.append((file, pickler))
    return data
