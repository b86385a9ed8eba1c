"""An item's way into bytes: what ForkingPickler would write, at less cost."""

from __future__ import annotations

import copyreg
import io
import pickle
from multiprocessing.reduction import ForkingPickler
from typing import Any

# For an object of exactly these types pickle looks at no reducer, so plain_dumps() writes the same bytes.
PLAIN = frozenset({int, float, str, bytes, bool, type(None)})


class _Reducers(dict[type, Any]):
    """The reducers of copyreg and ForkingPickler as they are now: ForkingPickler copies them for every item."""

    def __missing__(self, kind: type) -> Any:
        extra: dict[type, Any] = ForkingPickler._extra_reducers  # type: ignore[attr-defined]
        return extra[kind] if kind in extra else copyreg.dispatch_table[kind]


# A pickler's memo stays as large as it ever was, and clearing it costs as much: one that has written more is let go.
_KEEP_BYTES = 65536

# Picklers not in use. A thread, or a put() in a __reduce__ or a signal handler, finds another one or makes one.
_idle: list[tuple[io.BytesIO, ForkingPickler]] = []

plain_dumps = pickle.dumps
loads = pickle.loads


def dumps(obj: Any) -> bytes:
    """Pickles the object as multiprocessing does, with its reducers and those registered with ForkingPickler.

    Raises:
        Exception: whatever pickling the object raises.
    """
    try:
        file, pickler = _idle.pop()
    except IndexError:
        file = io.BytesIO()
        pickler = ForkingPickler(file)
        pickler.dispatch_table = _Reducers()
    pickler.dump(obj)  # if it raises, this pickler is not used again
    data = file.getvalue()
    if len(data) <= _KEEP_BYTES:
        pickler.clear_memo()
        file.seek(0)
        file.truncate()
        _idle.append((file, pickler))
    return data
