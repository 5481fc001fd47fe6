"""Writing a dump sample by sample, so that a run that is killed can go on."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import numpy as np

from moefps.errors import ArgumentError, DumpError, FileError, MoefpsError, ShapeError
from moefps.io.atomic import file_error
from moefps.io.dump import progress_files
from moefps.io.dump.blocks import check_block, check_capacities, column_rows
from moefps.io.dump.finishing import finish_dump
from moefps.io.dump.folders import WRITING, FolderLock, destination, new_folder
from moefps.io.dump.journal import Journal
from moefps.io.dump.storage import BlockFile
from moefps.io.dump.user_tables import check_sample_columns

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path
    from types import TracebackType

    import numpy.typing as npt
    import polars as pl

    from moefps._typing import PathLike
    from moefps.io.dump.header import DumpHeader
    from moefps.io.dump.reading import Dump

__all__ = ["DumpWriter"]


class DumpWriter:
    """Writes a dump, sample by sample in any order, and survives being killed.

    Every array is laid out at once with room for the most tokens that each sample can have, and a sample's rows go to
    their final place. A journal says which samples are whole; every few seconds a thread of the writer waits for the
    disk and brings the journal up to date. Until `finish`, the manifest says "writing".

    Parameters
    ----------
    path : path
        The dump's folder, which is made.
    header : DumpHeader
        What is known before.
    capacities : array_like of int [N]
        The most tokens that each sample can have.
    samples : polars.DataFrame or mapping, optional
        The samples' own columns, N rows.
    overwrite : bool
        True replaces a dump that is there, whole or not. Anything else is never replaced.
    resume : bool
        True goes on with a half-written dump of the same header, capacities and samples; begins one where there is
        none.
    sync_seconds : float
        How often the journal is brought to the disk: what was written since then is written again after a crash.

    Attributes
    ----------
    path : Path
        The folder, links followed.
    done : ndarray of bool [N]
        The samples that are written; after `resume`, those that are whole on the disk.

    Raises
    ------
    FileError
        There is something already, the folder around it is missing, or the disk is full or not writable.
    DumpError
        Another process is writing the dump; or with `resume`: it is complete, damaged, or was begun with another
        header, other samples or other capacities, and which.
    ArgumentError, DtypeError, ShapeError
        The header, `capacities` or `samples` is not what it has to be.

    Examples
    --------
    >>> import numpy as np, tempfile, pathlib
    >>> from moefps.io.dump import DumpHeader, LayerInfo
    >>> layer = LayerInfo(index=0, path="model.layers.0.mlp.gate", layer=0, n_experts=4, top_k=1)
    >>> header = DumpHeader(layers=(layer,), arrays={"expert_ids": np.dtype(np.int16)})
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "dump"
    >>> with DumpWriter(path, header, capacities=[3, 2]) as writer:
    ...     writer.write(1, expert_ids=np.array([[[2]], [[3]]], dtype=np.int16))
    ...     writer.write(0, expert_ids=np.array([[[0]]], dtype=np.int16))
    ...     dump = writer.finish()
    >>> dump.expert_ids.ravel().tolist(), dump.samples["n_tokens"].to_list()
    ([0, 2, 3], [1, 2])
    """

    def __init__(
        self,
        path: PathLike,
        header: DumpHeader,
        *,
        capacities: npt.ArrayLike,
        samples: pl.DataFrame | Mapping[str, Any] | None = None,
        overwrite: bool = False,
        resume: bool = False,
        sync_seconds: float = 0.5,
    ) -> None:
        header.check()
        self._name, self._header = os.fspath(path), header
        self._capacities = check_capacities(capacities)
        self._starts = np.concatenate([[0], np.cumsum(self._capacities)])
        self._samples = check_sample_columns(samples, len(self._capacities))
        if overwrite and resume:
            raise ArgumentError("overwrite: True together with resume=True; accepted: one of them")
        self._files: dict[str, BlockFile] = {}
        self._lock: FolderLock | None = None
        self._journal: Journal | None = None
        place = destination(path)
        self.path: Path = place.path
        try:
            if not (resume and place.manifest is not None):
                with new_folder(place, self._name, overwrite=overwrite) as folder:
                    progress_files.begin(folder, header, self._capacities, self._samples)
            elif place.manifest.state == "complete":
                raise DumpError(f"{self._name}: is complete already; pass --overwrite to write it again")
            self._lock = FolderLock(self.path, self._name)
            if resume:
                progress_files.check_same(self.path, self._name, header, self._capacities, self._samples)
            self._open(sync_seconds)
        except BaseException as error:
            self._release()
            if isinstance(error, OSError) and not isinstance(error, FileError):
                raise file_error(self._name, error) from error
            raise

    @property
    def n_samples(self) -> int:
        """Number of samples, N."""
        return len(self._capacities)

    @property
    def closed(self) -> bool:
        """Whether the writer was closed or has finished."""
        return self._journal is None

    def write(
        self,
        sample: int,
        *,
        expert_ids: npt.NDArray[np.int16],
        expert_weights: npt.NDArray[Any] | None = None,
        router_logits: npt.NDArray[Any] | None = None,
        hidden_states: npt.NDArray[Any] | None = None,
        fingerprint: npt.NDArray[np.float32] | None = None,
        token_ids: npt.ArrayLike | None = None,
        positions: npt.ArrayLike | None = None,
        labels: Mapping[str, npt.ArrayLike] | None = None,
    ) -> None:
        """Write one sample, whole.

        The arrays are those of the header, of its dtypes; values are not looked at here, but by whatever reads the
        dump first.

        Parameters
        ----------
        sample : int
            Which one, 0..N-1; each once.
        expert_ids : ndarray of int16 [n, L, k]
            Chosen experts, -1 for an empty slot; n at most the sample's capacity.
        expert_weights : ndarray [n, L, k], optional
            Weights as the router returned them.
        router_logits : ndarray [n, L, E], optional
            Logits.
        hidden_states : ndarray [n, L', d], optional
            Hidden states.
        fingerprint : ndarray of float32 [L, E], optional
            The sample's fingerprint.
        token_ids : array_like of int [n], optional
            The tokens; -1, as all are when not given, for a position that has none.
        positions : array_like of int [n], optional
            Where in its sequence each token stood; 0..n-1 when not given.
        labels : mapping of str to array_like [n], optional
            The further token columns of the header: all of them.

        Raises
        ------
        ArgumentError, DtypeError, ShapeError, DataError
            An argument is missing, not in the header, or does not have the shape, the dtype or the range it must have.
        FileError
            The disk is full or failed. The sample is not written then, and the dump can be gone on with.
        """
        journal = self._check_open()
        n_tokens = self._check_sample(sample, expert_ids)
        given = {
            "expert_ids": expert_ids,
            "expert_weights": expert_weights,
            "router_logits": router_logits,
            "hidden_states": hidden_states,
            "fingerprints": fingerprint,
        }
        first = int(self._starts[sample])
        blocks = self._array_blocks(given, sample, n_tokens)
        columns = {"token_id": -1 if token_ids is None else token_ids, "position": positions, **(labels or {})}
        if positions is None:
            columns["position"] = np.arange(n_tokens, dtype=np.int32)
        blocks += [
            (self._files[name], first, column_rows(name, column, columns, n_tokens))
            for name, column in self._header.token_columns().items()
        ]
        unknown = next((name for name in columns if name not in self._files), None)
        if unknown is not None:
            raise ArgumentError(f"labels: {unknown!r} is not in the header's token_labels")
        try:
            for file, row, rows in blocks:
                file.write_rows(row, rows)
            journal.note(sample, n_tokens)
        except OSError as error:
            raise file_error(self._name, error) from error
        self._lengths[sample] = n_tokens
        self.done[sample] = True

    def write_router_vectors(self, vectors: npt.NDArray[Any]) -> None:
        """Write the routers' own weight rows, [L, E, d], once; rows that no router has may be NaN.

        Raises
        ------
        ArgumentError, DtypeError, ShapeError
            The header has none, or they do not have its dtype or the sizes L and E.
        FileError
            The disk is full or failed.
        """
        self._check_open()
        if "router_vectors" not in self._header.arrays:
            raise ArgumentError("router_vectors: the header's arrays do not list them")
        shape = self._header.array_shape("router_vectors", self.n_samples, 0)
        check_block("router_vectors", vectors, np.dtype(self._header.arrays["router_vectors"]), shape)
        try:
            progress_files.write_whole(self.path / "router_vectors.npy", vectors)
        except OSError as error:
            raise file_error(self._name, error) from error

    def finish(self) -> Dump:
        """Make the dump complete and open it.

        Where samples came out shorter than their capacity, the arrays are moved together, one after the other, which
        for a while takes the disk space of one array more.

        Raises
        ------
        DumpError
            Samples or the router vectors are missing.
        FileError
            The disk is full or failed; the dump is left half-written and can be gone on with.
        """
        journal = self._check_open()
        missing = np.flatnonzero(~self.done)
        if len(missing):
            raise DumpError(
                f"{self._name}: {len(missing):,} of {self.n_samples:,} samples are not written, "
                f"the first is sample {missing[0]}"
            )
        if "router_vectors" in self._header.arrays and not (self.path / "router_vectors.npy").is_file():
            raise DumpError(f"{self._name}: router_vectors are not written, which the header lists")
        try:
            journal.flush()
            finish_dump(self.path, self._header, self._files, self._starts, self._lengths, self._samples)
        except OSError as error:
            if isinstance(error, MoefpsError):
                raise
            raise file_error(self._name, error) from error
        finally:
            self.close()
        progress_files.remove(self.path)
        from moefps.io.dump.reading import open_dump

        return open_dump(self._name)

    def close(self) -> None:
        """Leave the dump half-written, with every sample written so far; a second call does nothing.

        Raises
        ------
        FileError
            The disk is full or failed: the last samples are lost, the dump can be gone on with.
        """
        journal, self._journal = self._journal, None
        try:
            if journal is not None:
                journal.close()
        except OSError as error:
            raise file_error(self._name, error) from error
        finally:
            self._release()

    def __enter__(self) -> DumpWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.closed:
            return
        if kind is None:
            try:
                self.finish()
            finally:
                self.close()
            return
        try:
            self.close()
        except FileError:
            # What went wrong first is what the caller needs to hear.
            return

    def _open(self, sync_seconds: float) -> None:
        """Open all files, and learn from the journal what is done."""
        lengths, good = progress_files.read_lengths(self.path, self._name, self._capacities)
        self.done: npt.NDArray[np.bool_] = lengths >= 0
        self._lengths = np.maximum(lengths, 0)
        n_final = int(self._lengths.sum()) if self.done.all() else None
        self._files = progress_files.open_files(self.path, self._header, self._capacities, n_final)
        self._journal = Journal(
            self.path / WRITING / progress_files.JOURNAL, good, self._sync_files, max(0.0, sync_seconds)
        )

    def _sync_files(self) -> None:
        for file in self._files.values():
            file.sync()

    def _release(self) -> None:
        for file in self._files.values():
            file.close()
        if self._lock is not None:
            self._lock.release()

    def _check_open(self) -> Journal:
        if self._journal is None:
            raise DumpError(f"{self._name}: the writer is closed")
        return self._journal

    def _check_sample(self, sample: int, expert_ids: npt.NDArray[Any]) -> int:
        """Give the number of tokens of a sample that may be written now."""
        if not 0 <= sample < self.n_samples:
            raise ArgumentError(f"sample: {sample}; accepted: 0 to {self.n_samples - 1}")
        if self.done[sample]:
            raise ArgumentError(f"sample: {sample} is written already; accepted: each sample once")
        n_tokens = int(np.shape(expert_ids)[0]) if np.ndim(expert_ids) else 0
        if n_tokens > self._capacities[sample]:
            raise ShapeError(
                f"expert_ids: sample {sample} has {n_tokens:,} tokens; accepted: at most its capacity, "
                f"{self._capacities[sample]:,}"
            )
        return n_tokens

    def _array_blocks(
        self, given: Mapping[str, npt.NDArray[Any] | None], sample: int, n_tokens: int
    ) -> list[tuple[BlockFile, int, npt.NDArray[Any]]]:
        """Check the arrays of a sample against the header, and say where each goes."""
        blocks = []
        for name, array in given.items():
            if (array is not None) != (name in self._header.arrays):
                found, where = ("given", "not in") if array is not None else ("missing", "in")
                raise ArgumentError(f"{name}: {found}, but {where} the header's arrays")
            if array is None:
                continue
            shape = self._header.array_shape(name, 1, n_tokens)
            per_sample = name == "fingerprints"
            check_block(name, array, np.dtype(self._header.arrays[name]), shape[1:] if per_sample else shape)
            row = sample if per_sample else int(self._starts[sample])
            blocks.append((self._files[name], row, np.ascontiguousarray(array)))
        return blocks
