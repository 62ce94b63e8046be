"""Pickles read as data: nothing in the file is ever run.

A pickle is a program for a small machine whose one dangerous instruction is to call what it names.
Here names resolve to a fixed list of harmless stand-ins, made anew for every file: records that
keep the bytes, type and shape of a NumPy array, and inert ones in place of SciPy's sparse matrices
and of chumpy's arrays. Any other name is refused before anything is called. NumPy's own
constructors are not handed out either: with a forged type they can be made to read stray memory.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np

from recon3d.errors import ModelError

MAX_BYTES = 2 << 30

_ARRAY_MODULES = ("numpy.core.multiarray", "numpy._core.multiarray")
_BUFFER_MODULES = ("numpy.core.numeric", "numpy._core.numeric")
_SPARSE = ("csc_matrix", "csr_matrix", "coo_matrix", "csc_array", "csr_array", "coo_array")


class Record:
    """What stands in the place of an object whose class is not wanted: its state, no behaviour."""

    module = name = ""

    def __new__(cls, *args, **kwargs):
        self = object.__new__(cls)
        self.state = {}
        return self

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state):
        # protocol 2 may hand over (dict, slots)
        for part in state if isinstance(state, tuple) else (state,):
            if isinstance(part, dict):
                self.state.update({str(k): v for k, v in part.items()})


class ArrayRecord(Record):
    """A NumPy array of numbers, assembled from its pickled parts."""

    def __new__(cls, *args, **kwargs):
        self = object.__new__(cls)
        self.value = None
        return self

    def __setstate__(self, state):
        _, shape, dtype, fortran, data = state
        self.value = _assemble(data, dtype, shape, "F" if fortran else "C")


class TypeRecord(Record):
    """A NumPy number type."""

    def __new__(cls, spec="", *args, **kwargs):
        self = object.__new__(cls)
        self.spec = _text(spec)
        self.order = "<"
        return self

    def __setstate__(self, state):
        order = _text(state[1])
        self.order = order if order in ("<", ">") else "<"

    @property
    def dtype(self) -> np.dtype:
        dtype = np.dtype(self.spec)
        if dtype.kind not in "biuf" or dtype.itemsize > 16:
            raise ValueError(f"arrays of type {self.spec!r} are not read")
        return dtype.newbyteorder(self.order)


def load_pickle(path: Path, *, what: str = "a model") -> dict:
    """The dictionary in a pickle, arrays as plain NumPy arrays.

    Parameters
    ----------
    path : Path
    what : str
        For messages.

    Raises
    ------
    ModelError
        If the file is no pickle of a dictionary, is damaged, or names anything that is not data.
    """
    try:
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{path}: expected {what} below 2 GiB")
        with open(path, "rb") as file:
            data = _Reader(file, path).load()
    except ModelError:
        raise
    except MemoryError as error:
        raise ModelError(f"{path}: expected {what}, found arrays larger than memory") from error
    except Exception as error:  # whatever a damaged stream makes the machine stumble over
        raise ModelError(f"{path}: expected {what} as a pickle, found {error!r}") from error
    if not isinstance(data, dict):
        raise ModelError(f"{path}: expected a dictionary, found {type(data).__name__}")
    return {_text(key): value for key, value in data.items()}


def as_array(value, path: Path, name: str, dtype=np.float64) -> np.ndarray:
    """A plain array of what a pickle holds under a name.

    Parameters
    ----------
    value
        Array, number list, or `Record` of a chumpy array or sparse matrix.
    path, name
        For messages.

    Raises
    ------
    ModelError
        If it is none of these.
    """
    found = type(value).__name__
    if isinstance(value, ArrayRecord):
        value = value.value
    elif isinstance(value, Record):
        found = f"{value.module}.{value.name}"
        value = _array_of_record(value, path, name)
    try:
        array = np.asarray(value)
        if array.dtype != object:
            return np.ascontiguousarray(array, dtype)
        found = "an array of objects"
    except (TypeError, ValueError):
        pass
    raise ModelError(f"{path}: expected an array under {name!r}, found {found}")


def _array_of_record(record: Record, path: Path, name: str):
    state = record.state
    if record.module.startswith("scipy.sparse"):
        return _dense(record, path, name)
    if "x" in state:  # chumpy.ch.Ch: the value
        return as_array(state["x"], path, name, None)
    if "a" in state and "idxs" in state:  # chumpy.reordering.Select: places of another array
        source = as_array(state["a"], path, name, None).ravel()
        index = as_array(state["idxs"], path, name, np.int64).ravel()
        if index.size and (index.min() < 0 or index.max() >= len(source)):
            raise ModelError(f"{path}: {name!r} selects outside its {len(source)} values")
        shape = state.get("preferred_shape") or state.get("_preferred_shape")
        return source[index].reshape(shape) if shape is not None else source[index]
    return None


def _dense(record: Record, path: Path, name: str) -> np.ndarray:
    from scipy import sparse

    state = record.state
    shape = tuple(int(n) for n in state.get("_shape", state.get("shape", ())))
    try:
        parts = {k: as_array(state[k], path, name, None) for k in _SPARSE_PARTS if k in state}
        if len(shape) != 2 or shape[0] * shape[1] > 1 << 28:
            raise ValueError(f"shape {shape}")
        if "indptr" in parts:
            kind = sparse.csc_matrix if record.name.startswith("csc") else sparse.csr_matrix
            matrix = kind((parts["data"], parts["indices"], parts["indptr"]), shape)
            matrix.check_format(full_check=True)  # compiled code trusts these indices
        else:
            places = state.get("coords") or (state["row"], state["col"])
            places = tuple(as_array(x, path, name, np.int64) for x in places)
            matrix = sparse.coo_matrix((parts["data"], places), shape)
        return matrix.toarray()
    except (KeyError, ValueError) as error:
        raise ModelError(f"{path}: {name!r} is a damaged sparse matrix ({error})") from error


_SPARSE_PARTS = ("data", "indices", "indptr")


class _Reader(pickle.Unpickler):
    """Resolves names to harmless stand-ins, made for this file alone."""

    def __init__(self, file, path: Path):
        super().__init__(file, encoding="latin1")
        self._path = path

    def persistent_load(self, pid):
        raise ModelError(f"{self._path}: refused, the pickle refers to something outside itself")

    def find_class(self, module: str, name: str):
        def record(base):
            return type(str(name), (base,), {"module": module, "name": name})

        if module in _ARRAY_MODULES and name == "_reconstruct":
            return lambda *_: record(ArrayRecord)()
        if module in _ARRAY_MODULES and name == "scalar":
            return lambda dtype, data: _assemble(data, dtype, (), "C")[()]
        if module in _BUFFER_MODULES and name == "_frombuffer":
            return lambda data, dtype, shape, order: _wrapped(_assemble(data, dtype, shape, order))
        if (module, name) == ("numpy", "ndarray"):
            return record(ArrayRecord)
        if (module, name) == ("numpy", "dtype"):
            return record(TypeRecord)
        if (module, name) == ("_codecs", "encode"):
            return lambda text, encoding="latin1": text.encode("latin1")
        if module in ("copy_reg", "copyreg") and name == "_reconstructor":
            return lambda cls, base, state: _new(cls)
        if module in ("__builtin__", "builtins") and name == "object":
            return record(Record)
        if (module, name) == ("collections", "OrderedDict"):
            return lambda items=(): dict(items)
        root = module.split(".")[0]
        if (root == "scipy" and name in _SPARSE) or root == "chumpy":
            return record(Record)
        raise ModelError(
            f"{self._path}: refused, the pickle asks to call {module}.{name}; only arrays are read"
        )


def _new(cls):
    if not (isinstance(cls, type) and issubclass(cls, Record)):
        raise ValueError("not a record")
    return cls()


def _assemble(data, dtype, shape, order) -> np.ndarray:
    """Numbers from bytes; a count that the bytes do not hold is an error."""
    if not isinstance(dtype, TypeRecord):
        raise ValueError("an array without a number type")
    data = data.encode("latin1") if isinstance(data, str) else bytes(data)
    shape = tuple(int(n) for n in shape)
    order = "F" if _text(order) == "F" else "C"
    return np.frombuffer(data, dtype.dtype).reshape(shape, order=order)


def _wrapped(value: np.ndarray) -> ArrayRecord:
    record = ArrayRecord()
    record.value = value
    return record


def _text(value) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)
