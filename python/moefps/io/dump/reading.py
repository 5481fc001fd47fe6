"""An open dump: its tables, its arrays by memory map, and views of single samples."""

from __future__ import annotations

import operator
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps._progress import progress_callback
from moefps._words import counted
from moefps.errors import ArgumentError, DumpError
from moefps.io.dump.checking import CHECKED, Rules, ValueChecks
from moefps.io.dump.fingerprinting import FingerprintSet, compute_fingerprints, resolve_kind
from moefps.io.dump.opening import Opened, open_files, read_tokens
from moefps.io.dump.sample_view import DumpSample
from moefps.io.paths import check_path

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import numpy.typing as npt
    import polars as pl

    from moefps._typing import PathLike, Progress
    from moefps.io.dump.manifest import LayerInfo, Manifest

__all__ = ["Dump", "open_dump"]


def open_dump(path: PathLike) -> Dump:
    """Open a dump: a trace on disk.

    The manifest, every header, all shapes and offsets are checked now. The values of the arrays are checked once, by
    whatever reads them first. Nothing is loaded but the table of samples.

    Parameters
    ----------
    path : path
        The dump's folder.

    Returns
    -------
    Dump

    Raises
    ------
    ArgumentError
        `path` is no path.
    FileError
        There is no such folder, or a file is missing, truncated or cannot be read.
    DumpError
        The folder is no dump; the dump is half-written or of another version; an array has another shape than the
        manifest says; the offsets do not add up; a file is a link out of the folder.
    DtypeError
        An array is made of something else, or holds pickled objects.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from moefps.io.dump import write_dump
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "dump"
    >>> _ = write_dump(path, expert_ids=np.array([[[0]], [[3]], [[3]]]), offsets=[0, 1, 3], n_experts=4)
    >>> dump = open_dump(path)
    >>> dump
    Dump(2 samples, 3 tokens, 1 layer of 4 experts, top-1)
    >>> dump.fingerprints("counts")[1].tolist()
    [[0.0, 0.0, 0.0, 1.0]]
    """
    check_path(path, "path", "the folder of a dump")
    return Dump(path, open_files(path))


class Dump:
    """A trace on disk, as `open_dump` gives it.

    Attributes
    ----------
    path : Path
        The folder.
    manifest : Manifest
        What the dump says about itself.
    samples : polars.DataFrame
        A row a sample: ``sample``, ``token_start``, ``n_tokens``, and the user's own columns.
    token_starts : ndarray of int64 [N + 1]
        Sample i has the token rows ``token_starts[i]:token_starts[i + 1]``.
    expert_ids : ndarray of int16 [T, L, k]
        Chosen experts, -1 for an empty slot. This and the arrays below are read-only memory maps of the files as they
        are: call `check_values` before you compute with them. What `sample`, `fingerprints` and all of moefps read is
        checked already.
    expert_weights : ndarray [T, L, k] or None
        Weights as the router returned them.
    hidden_states : ndarray [T, L', d] or None
        Hidden states at ``manifest.hidden_layers``.
    router_vectors : ndarray [L, E, d] or None
        The routers' own weight rows.
    """

    def __init__(self, path: PathLike, opened: Opened) -> None:
        self.path = Path(path)
        self.manifest: Manifest = opened.manifest
        self.samples: pl.DataFrame = opened.samples
        self.token_starts: npt.NDArray[np.int64] = opened.starts
        self._arrays = opened.arrays
        self.expert_ids: npt.NDArray[np.int16] = opened.arrays["expert_ids"]
        self.expert_weights: npt.NDArray[Any] | None = opened.arrays.get("expert_weights")
        self.hidden_states: npt.NDArray[Any] | None = opened.arrays.get("hidden_states")
        self.router_vectors: npt.NDArray[Any] | None = opened.arrays.get("router_vectors")
        self._has_tokens = opened.has_tokens
        self._tokens: pl.DataFrame | None = None
        rules = Rules(self.layers, self.top_k)
        self._checks = ValueChecks(os.fspath(path), rules, opened.arrays, opened.starts)

    def __repr__(self) -> str:
        return (
            f"Dump({counted(self.n_samples, 'sample')}, {counted(self.n_tokens, 'token')}, "
            f"{counted(self.n_layers, 'layer')} of {counted(self.n_experts, 'expert')}, top-{self.top_k})"
        )

    @property
    def n_samples(self) -> int:
        """Number of samples, N."""
        return self.manifest.n_samples

    @property
    def n_tokens(self) -> int:
        """Number of tokens of all samples, T."""
        return self.manifest.n_tokens

    @property
    def layers(self) -> tuple[LayerInfo, ...]:
        """The MoE layers, in order."""
        return self.manifest.layers

    @property
    def n_layers(self) -> int:
        """Number of MoE layers, L."""
        return self.manifest.n_layers

    @property
    def n_experts(self) -> int:
        """Experts of the widest layer, E, passive ones included."""
        return self.manifest.n_experts

    @property
    def top_k(self) -> int:
        """Slots of a token in the arrays, k."""
        return self.manifest.top_k

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that are there."""
        return tuple(self._arrays)

    @property
    def tokens(self) -> pl.DataFrame | None:
        """A row a token: ``sample``, ``position``, ``token_id`` and labels; None where the dump has no such table.

        Read at the first use.

        Raises
        ------
        DumpError
            The table is damaged, or does not agree with the offsets.
        """
        if self._has_tokens and self._tokens is None:
            self._tokens = read_tokens(self.path, self.token_starts)
        return self._tokens

    def stored(self, name: str) -> npt.NDArray[Any]:
        """Give an array of the dump by name, as a read-only memory map.

        Raises
        ------
        DumpError
            The dump does not hold it.
        """
        if name not in self._arrays:
            raise DumpError(f"{self.path}: holds no {name}, only {', '.join(self._arrays)}")
        return self._arrays[name]

    def router_logits(self) -> dict[int, npt.NDArray[Any]] | dict[str, npt.NDArray[Any]]:
        """Give the routers' logits by layer.

        Returns
        -------
        dict of ndarray [T, E]
            For each layer, with its own number of experts: views of the memory map, not checked (see `check_values`).
            The keys are the model's own layer numbers; where two layers share a number, as in an encoder-decoder, all
            keys are module paths instead.

        Raises
        ------
        DumpError
            The dump holds no logits.
        """
        logits = self.stored("router_logits")
        views = [logits[:, layer.index, : layer.n_experts] for layer in self.layers]
        by_number = {layer.layer: view for layer, view in zip(self.layers, views, strict=True)}
        if len(by_number) == self.n_layers:
            return by_number
        return {layer.path: view for layer, view in zip(self.layers, views, strict=True)}

    def check_values(
        self,
        names: Sequence[str] | None = None,
        *,
        first: int = 0,
        stop: int | None = None,
        progress: Progress = False,
    ) -> None:
        """Check the values of arrays, where nothing has read them yet.

        Parameters
        ----------
        names : sequence of str, optional
            Which arrays; when not given all of ``expert_ids``, ``expert_weights``, ``router_logits`` and
            ``fingerprints`` that are there.
        first, stop : int
            The rows, from `first` to before `stop`.
        progress : bool or callable
            True shows a bar; a callable gets ``(done, total)``.

        Raises
        ------
        DataError
            An id is not below its layer's number of experts; a weight is NaN, infinite, or negative without
            ``signed_weights``; a logit is NaN or plus infinity; a fingerprint's row is no distribution. The message
            names the file and the row.
        DumpError
            The dump does not hold an array.
        """
        for name in self._checks.names if names is None else names:
            if self.stored(name) is not None and name in CHECKED:
                with progress_callback(progress, f"Checking {name}") as advance:
                    self._checks.ensure(name, first, stop, advance)

    def sample(self, index: int) -> DumpSample:
        """Give one sample.

        Parameters
        ----------
        index : int
            0..N-1; negative ones count from the end.

        Raises
        ------
        ArgumentError
            There is no such sample.
        """
        return DumpSample(self, self._sample_index(index))

    def __len__(self) -> int:
        return self.n_samples

    def __getitem__(self, index: int) -> DumpSample:
        try:
            return self.sample(index)
        except ArgumentError as error:
            # What ends a loop over a sequence.
            raise IndexError(str(error)) from None

    def __iter__(self) -> Iterator[DumpSample]:
        return (DumpSample(self, index) for index in range(self.n_samples))

    def fingerprint_kind(self, kind: str | None = None) -> str:
        """Say which kind of fingerprints `fingerprints` gives: the one asked for, else the dump's own, else weights.

        Raises
        ------
        ArgumentError
            There is no such kind.
        DumpError
            The dump cannot give it.
        """
        return resolve_kind(self, kind)

    def fingerprints(
        self,
        kind: str | None = None,
        *,
        window: int | None = None,
        stride: int | None = None,
        layers: Sequence[int] | None = None,
        drop_empty: bool = False,
        progress: Progress = False,
    ) -> npt.NDArray[np.float32]:
        """Give the fingerprint of every sample, or of every window of every sample.

        Parameters
        ----------
        kind : {"probs", "weights", "counts"}, optional
            ``probs``: mean over tokens of the router's full distribution. ``weights``: mean over tokens of the
            weights divided by their sum. ``counts``: share of assignments. When not given, the kind that the dump
            holds, else ``weights``; `fingerprint_kind` says which.
        window : int, optional
            Tokens in a window; a fingerprint for every whole window, and one for a whole sample that is shorter.
        stride : int, optional
            Tokens from one window to the next; the window's length when not given.
        layers : sequence of int, optional
            Which layers, 0..L-1; all when not given.
        drop_empty : bool
            True leaves out samples without a fingerprint; `fingerprint_set` says which are left.
        progress : bool or callable
            True shows a bar; a callable gets ``(done, total)``.

        Returns
        -------
        ndarray of float32 [N, L, E]
            Rows that sum to 1. All E experts count, passive ones too; layers with fewer are padded with zeros. A
            token without a filled slot in a layer counts nowhere there; a token whose weights sum to 0 is left out
            of ``weights``, and `fingerprint_set` counts those.

        Raises
        ------
        DataError
            A value of the dump is not accepted, or a sample has no filled slot in a layer: both are named.
        DumpError
            The dump holds nothing to compute the kind from.
        ArgumentError
            `kind`, `window`, `stride` or `layers` is not accepted.

        Examples
        --------
        >>> import numpy as np, tempfile, pathlib
        >>> from moefps.io.dump import write_dump
        >>> path = pathlib.Path(tempfile.mkdtemp()) / "dump"
        >>> ids, weights = np.array([[[0, 1]], [[1, 2]]]), np.array([[[3, 1]], [[1, 1]]], dtype=np.float32)
        >>> dump = write_dump(path, expert_ids=ids, expert_weights=weights, offsets=[0, 2], n_experts=4)
        >>> dump.fingerprints().tolist()
        [[[0.375, 0.375, 0.25, 0.0]]]
        """
        found = self.fingerprint_set(
            kind, window=window, stride=stride, layers=layers, drop_empty=drop_empty, progress=progress
        )
        return found.array

    def fingerprint_set(
        self,
        kind: str | None = None,
        *,
        window: int | None = None,
        stride: int | None = None,
        layers: Sequence[int] | None = None,
        drop_empty: bool = False,
        progress: Progress = False,
    ) -> FingerprintSet:
        """Give fingerprints as `fingerprints` does, with a table that says what each of them is of.

        Parameters
        ----------
        kind, window, stride, layers, drop_empty, progress
            As for `fingerprints`.

        Returns
        -------
        FingerprintSet
        """
        return compute_fingerprints(
            self,
            kind=kind,
            window=window,
            stride=stride,
            layers=layers,
            drop_empty=drop_empty,
            progress=progress,
        )

    def _sample_index(self, index: int) -> int:
        try:
            found = operator.index(index)
        except TypeError:
            raise ArgumentError(f"sample: {index!r}; accepted: an integer") from None
        if not -self.n_samples <= found < self.n_samples:
            raise ArgumentError(f"sample: {found}; accepted: 0 to {self.n_samples - 1}")
        return found % self.n_samples
