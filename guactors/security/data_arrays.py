"""Arrays of numpy from a pickle, made with numpy's public functions only.

Owns: what a pickled array, scalar or dtype may look like. Must never: hand a pickled state to
numpy's own readers: with the right flags in the state of a dtype they take numbers for the
addresses of objects. Loads numpy at the first array.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Final

from guactors.security.data_only import Maker, Name, Parts

if TYPE_CHECKING:
    import numpy as np

_KIND: Final = re.compile(r"[?biufcSUVOmM][0-9]{0,9}", re.ASCII)
_UNITS: Final = frozenset({"Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "ps", "fs", "as"})

NDARRAY: Final = Maker("ndarray", None)


def _dtype(kind: Any, *_flags: Any) -> Parts:
    if type(kind) is not str or not _KIND.fullmatch(kind):
        raise TypeError(f"no array holds {kind!r:.40}")

    def finish(state: Any) -> np.dtype[Any]:
        import numpy as np

        _version, order, nested, names, fields, size, *rest = state
        if nested is not None:
            made: Any = np.dtype((_known(nested[0]), _shape(nested[1])))
        elif fields is not None:
            made = _record(names, fields, size)
        elif kind[0] in "mM":
            made = np.dtype(f"{kind[0]}8{_unit(rest[2])}") if len(rest) > 2 else np.dtype(kind)
        else:
            made = np.dtype(kind)
        swaps = order in {"<", ">"} and nested is None and fields is None
        return made.newbyteorder(order) if swaps else made  # type: ignore[no-any-return]

    return Parts("dtype", finish)


def _known(dtype: Any) -> Any:
    import numpy as np

    if not isinstance(dtype, np.dtype):
        raise TypeError(f"no dtype but a {type(dtype).__name__}")
    return dtype


def _shape(shape: Any) -> tuple[int, ...]:
    if type(shape) is int:
        shape = (shape,)
    if type(shape) is not tuple or not all(type(n) is int and n >= 0 for n in shape):
        raise TypeError(f"no array has the shape {shape!r:.40}")
    return shape


def _record(names: Any, fields: Any, size: Any) -> np.dtype[Any]:
    import numpy as np

    found = [fields[name] for name in names]
    form: Any = {
        "names": list(names),
        "formats": [_known(field[0]) for field in found],
        "offsets": [field[1] for field in found],
        "itemsize": size,
    }
    if any(len(field) > 2 for field in found):
        form["titles"] = [field[2] if len(field) > 2 else None for field in found]
    made: np.dtype[Any] = np.dtype(form)
    return made


def _unit(metadata: Any) -> str:
    """As in ``M8[25ns]``."""
    unit, count = metadata[1][0].decode("ascii"), metadata[1][1]
    if unit == "generic":
        return ""
    if unit not in _UNITS or type(count) is not int:
        raise TypeError(f"no time has the unit {unit!r:.40}")
    return f"[{count}{unit}]"


def _plain(data: Any, dtype: Any) -> np.ndarray[Any, Any]:
    """The items in a buffer, which hold no objects."""
    import numpy as np

    if _known(dtype).hasobject:
        raise TypeError("objects are no bytes")
    return np.frombuffer(data, dtype)


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any, axes: Any = None) -> Any:
    flat = _plain(data, dtype)
    if order == "K" and axes is not None:
        return flat.reshape(_shape(shape), order="C").transpose(_shape(axes))
    return flat.reshape(_shape(shape), order=order)


def _scalar(dtype: Any, data: Any) -> Any:
    found = _plain(data, dtype)
    if found.shape != (1,):
        raise TypeError("no scalar but an array")
    return found[0]


def _array(kind: Any, *_shape_and_kind: Any) -> Parts:
    if kind is not NDARRAY:
        raise TypeError("no plain array")

    def finish(state: Any) -> Any:
        import numpy as np

        _version, shape, dtype, by_columns, content = state
        order: Any = "F" if by_columns else "C"
        if _known(dtype) == np.dtype(object):
            if type(content) is not list:
                raise TypeError("objects are no bytes")
            array = np.empty(len(content), object)
            for index, item in enumerate(content):
                array[index] = item
        else:
            array = _plain(content, dtype).copy()
        return array.reshape(_shape(shape), order=order)

    return Parts("ndarray", finish)


def _by_module() -> dict[Name, Maker]:
    """numpy 1 and 2 keep the same functions in differently named modules."""
    makers = {("numpy", "ndarray"): NDARRAY, ("numpy", "dtype"): Maker("dtype", _dtype)}
    for core in ("numpy.core", "numpy._core"):
        makers[f"{core}.multiarray", "_reconstruct"] = Maker("_reconstruct", _array)
        makers[f"{core}.multiarray", "scalar"] = Maker("scalar", _scalar)
        makers[f"{core}.numeric", "_frombuffer"] = Maker("_frombuffer", _from_buffer)
    return makers


ARRAYS: Final = _by_module()
