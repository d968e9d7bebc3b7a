"""Products of 8-bit rows through torch, and what they prove about the distances of the float32 rows.

The only file of this package that loads torch: its FBGEMM kernels multiply packed 8-bit matrices exactly.
"""

import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch  # rule-skip: owners FBGEMM's packed 8-bit products reach Python only through torch
from numpy.typing import NDArray

BLOCK_ROWS = 8192  # products of 64 queries with a block are 2 MB and stay in the third-level cache
GROUP_ROWS = 32  # rows that are passed over together when the lowest bound among them is too high

ROW_LEVELS = 127
QUERY_LEVELS = 63  # FBGEMM adds two products in 16 bits: 2 * 127 * 127 still fits, 2 * 255 * 127 would not
QUERY_ZERO = 64
FINE = 2 * QUERY_LEVELS  # steps of the second digit in one of the first
TWO_DIGIT_QUERIES = 2  # FBGEMM takes 4 rows in the time of one (waiting for memory): a second digit costs nothing

# Of the sum of the squared lengths: rounding of the bounds themselves (about 20 roundings of 2**-24), of the squared
# lengths (about 20) and of the subtraction of the centre and the division by the unit (eight).
SLACK = 6e-6
UP = 1 + 2e-6  # on lengths that were added up in float32 and must not be too small
SUBTRACTED = 4e-7  # of a row's length: what rounding adds to the difference between the row and its code
TINY = 1e-30

_packing = threading.Lock()


@dataclass(frozen=True, slots=True)
class CodedQueries:
    """Queries as whole numbers, and the factors that turn products into bounds."""

    digits: torch.Tensor  # (Q or 2Q, D)
    factors: torch.Tensor  # (Q, 3)
    steps: NDArray[np.float64]  # (Q,) twice the length of one level
    squares: NDArray[np.float64]  # (Q,) squared lengths
    second: bool


class CodedRows:
    """A block of rows at one byte a dimension, with what each row lost by it.

    Memory: rows * (D + 24) bytes.
    A row so much longer than the unit that float32 cannot hold its squared length has no code: its bound is infinite.

    Let y be a row less the centre, z a query less the centre, a and b their coded forms, r(y) = |y - a| and r(z)
    likewise. Then <y, z> = <a, b> + <y - a, z> + <a, z - b>, so by Cauchy and Schwarz it is at most
    <a, b> + r(y) |z| + (|y| + r(y)) r(z), and |y - z|^2 = |y|^2 + |z|^2 - 2 <y, z> is bounded from below.
    """

    def __init__(self, rows: NDArray[np.float32], centre: NDArray[np.float32], unit: float) -> None:
        centred = rows - centre
        centred /= np.float32(unit)
        scales = np.maximum(centred.max(axis=1), -centred.min(axis=1)) / np.float32(ROW_LEVELS)
        scales[scales < TINY] = 1.0  # a row that is the centre, or as good as: its codes are 0
        codes = centred / scales[:, None]
        np.rint(codes, out=codes)
        np.clip(codes, -ROW_LEVELS, ROW_LEVELS, out=codes)  # rounding of the scale may leave 127.00001
        with np.errstate(over="ignore"):
            squares = np.add.reduce(centred * centred, axis=1).astype(np.float64)
            centred -= codes * scales[:, None]
            lengths = np.sqrt(squares) * UP
            lost = np.sqrt(np.add.reduce(centred * centred, axis=1).astype(np.float64)) * UP + lengths * SUBTRACTED
        bounds = np.stack((squares * (1 - SLACK), lost, lengths + lost))
        bounds[:, ~np.isfinite(squares)] = [[np.inf], [0], [0]]
        self.bounds = bounds.astype(np.float32)
        self._packed = _packed(codes.astype(np.int8), scales)

    @classmethod
    def again(cls, codes: NDArray[np.int8], scales: NDArray[np.float64], bounds: NDArray[np.float32]) -> "CodedRows":
        """The block of which `unpacked` gave codes and scales; `bounds` are kept, not copied."""
        made = cls.__new__(cls)
        made.bounds = bounds
        made._packed = _packed(codes, scales)
        return made

    def unpacked(self) -> tuple[NDArray[np.int8], NDArray[np.float64]]:
        """The codes (N, D) and the scale of each row (N,)."""
        weights, _ = torch.ops.quantized.linear_unpack(self._packed)
        return weights.int_repr().numpy(), weights.q_per_channel_scales().numpy()

    def __len__(self) -> int:
        return len(self.bounds[0])

    def write_bounds(self, queries: CodedQueries, terms: NDArray[np.float32], out: NDArray[np.float32]) -> None:
        """Writes a number for each query and row that, in `queries.steps`, is a lower bound of |y - z|^2 - |z|^2.

        Shapes: terms (3, N), as `bounds` or with infinity above rows that are left out, out (Q, N).
        """
        products = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            queries.digits, 1.0, QUERY_ZERO, self._packed
        )
        if queries.second:
            half = len(products) // 2
            products = torch.add(products[:half], products[half:], alpha=1 / FINE)
        torch.addmm(products, queries.factors, torch.from_numpy(terms), beta=-1, out=torch.from_numpy(out))


def coded_queries(queries: NDArray[np.float32], centre: NDArray[np.float32], unit: float) -> CodedQueries:
    """The queries as whole numbers of one or two digits each."""
    centred = (queries - centre).astype(np.float64) / unit
    squares = np.add.reduce(centred * centred, axis=1)
    lengths = np.sqrt(squares)
    # A query at the centre has no scale of its own; a millionth of the longest row's length then does no harm.
    scales = np.maximum(np.abs(centred).max(axis=1), 1e-6) / QUERY_LEVELS
    levels = centred / scales[:, None]
    digits = np.rint(levels).clip(-QUERY_LEVELS, QUERY_LEVELS)
    coded = digits
    second = len(queries) <= TWO_DIGIT_QUERIES
    if second:
        fine = np.rint((levels - digits) * FINE)
        coded = digits + fine / FINE
        digits = np.concatenate((digits, fine))
    lost = np.sqrt(np.add.reduce((centred - coded * scales[:, None]) ** 2, axis=1))
    factors = np.stack((0.5 / scales, -lengths * UP / scales, -lost * UP / scales), axis=1)
    return CodedQueries(
        digits=torch.from_numpy(digits.astype(np.float32)),
        factors=torch.from_numpy(factors.astype(np.float32)),
        steps=2 * scales,
        squares=squares,
        second=second,
    )


def scan(
    blocks: Sequence[CodedRows], terms: Sequence[NDArray[np.float32]], queries: CodedQueries, n_threads: int
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Bounds as `CodedRows.write_bounds` gives them, and the lowest of each group of rows.

    Shapes: (Q, N) with N filled up with infinity to whole groups, (Q, N / GROUP_ROWS).

    Threads take block after block, each by itself: torch's own would wait for one another at every step of every
    block, which costs more than the work where other programs hold the cores.
    """
    n_rows = sum(map(len, blocks))
    n_groups = -(-n_rows // GROUP_ROWS)
    n_queries = len(queries.factors)
    bounds = np.empty((n_queries, n_groups * GROUP_ROWS), dtype=np.float32)
    bounds[:, n_rows:] = np.inf
    lowest = np.empty((n_queries, n_groups), dtype=np.float32)
    starts = np.cumsum([0, *map(len, blocks)])
    waiting = iter(range(len(blocks)))
    taking = threading.Lock()

    def work(_: int) -> None:
        while True:
            with taking:
                number = next(waiting, None)
            if number is None:
                return
            start, stop = int(starts[number]), int(starts[number + 1])
            blocks[number].write_bounds(queries, terms[number], bounds[:, start:stop])
            groups = slice(start // GROUP_ROWS, -(-stop // GROUP_ROWS))
            whole = bounds[:, groups.start * GROUP_ROWS : groups.stop * GROUP_ROWS]
            grouped = torch.from_numpy(whole.reshape(n_queries, -1, GROUP_ROWS))
            torch.amin(grouped, dim=2, out=torch.from_numpy(lowest[:, groups]))

    workers = min(n_threads, len(blocks))
    list(_pool(n_threads).map(work, range(workers)))
    return bounds, lowest


_pools: dict[int, ThreadPoolExecutor] = {}
_making = threading.Lock()


def _pool(n_threads: int) -> ThreadPoolExecutor:
    """Threads in which torch works alone, made once for each number of them."""
    with _making:
        if n_threads not in _pools:
            before = torch.get_num_threads()
            started = threading.Barrier(n_threads)
            pool = ThreadPoolExecutor(n_threads, thread_name_prefix="scan")
            list(pool.map(_work_alone, [started] * n_threads))
            # torch keeps the number for each thread, and the last one set for threads that are yet to come.
            torch.set_num_threads(before)
            _pools[n_threads] = pool
        return _pools[n_threads]


def _work_alone(started: threading.Barrier) -> None:
    torch.set_num_threads(1)
    started.wait()


def available() -> bool:
    """Whether this machine and this torch multiply 8-bit matrices, and exactly."""
    if "fbgemm" not in torch.backends.quantized.supported_engines:
        return False
    random = np.random.default_rng(0)
    rows = random.integers(-ROW_LEVELS, ROW_LEVELS + 1, (70, 131)).astype(np.int8)
    rows[0] = ROW_LEVELS  # the largest sums there can be
    queries = random.integers(-QUERY_LEVELS, QUERY_LEVELS + 1, (9, 131)).astype(np.float32)
    queries[0] = QUERY_LEVELS
    try:
        products = torch.ops.quantized.linear_with_input_q_dq_qweight_dq_output_fp32(
            torch.from_numpy(queries), 1.0, QUERY_ZERO, _packed(rows, np.ones(70, dtype=np.float32))
        )
    except (AttributeError, RuntimeError):  # another torch, or a build without these kernels
        return False
    return bool((products.numpy() == queries @ rows.T.astype(np.float32)).all())


def _packed(codes: NDArray[np.int8], scales: NDArray[np.float32] | NDArray[np.float64]) -> Any:
    engines = torch.backends.quantized
    with _packing, warnings.catch_warnings():
        # torch 2.13 announces that quantised tensors will go; with a torch that lacks them nothing is available.
        warnings.simplefilter("ignore", UserWarning)
        tensor = torch._make_per_channel_quantized_tensor(
            torch.from_numpy(codes), torch.from_numpy(scales), torch.zeros(len(codes), dtype=torch.long), 0
        )
        before = engines.engine
        engines.engine = "fbgemm"  # decides only how the next line packs
        try:
            return torch.ops.quantized.linear_prepack(tensor, None)
        finally:
            engines.engine = before
