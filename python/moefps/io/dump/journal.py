"""Which samples of a half-written dump are safely on the disk.

A line of the journal names one sample and its number of tokens. It is written only after the sample's bytes reached the
disk, so whatever stops the machine, a sample in the journal is whole. What was not noted yet, the last few seconds, is
captured again.
"""

from __future__ import annotations

import os
import threading
import time
import zlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["Journal", "read_journal"]


def read_journal(path: Path, n_samples: int) -> tuple[dict[int, int], int]:
    """Read which samples are whole.

    Parameters
    ----------
    path : Path
        The journal; one that is missing is empty.
    n_samples : int
        Samples that the dump is to have.

    Returns
    -------
    dict, int
        Tokens by sample, and how many bytes of the journal are good: a power cut can leave a torn end, which counts
        for nothing.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return {}, 0
    found: dict[int, int] = {}
    good = 0
    for line in data.splitlines(keepends=True):
        parts = line.split(b" ")
        if len(parts) != 3 or line != _line(parts[0] + b" " + parts[1]) or not (parts[0] + parts[1]).isdigit():
            break
        sample, n_tokens = int(parts[0]), int(parts[1])
        if sample >= n_samples:
            break
        found[sample] = n_tokens
        good += len(line)
    return found, good


class Journal:
    """Notes whole samples, and brings what was written to the disk every few seconds, in a thread of its own.

    Parameters
    ----------
    path : Path
        The journal.
    good : int
        Bytes of it to keep, as `read_journal` tells.
    sync_data : callable
        Waits until all that was written so far is on the disk.
    seconds : float
        How long to wait between two times.
    """

    def __init__(self, path: Path, good: int, sync_data: Callable[[], None], seconds: float) -> None:
        self._path, self._sync_data, self._seconds = path, sync_data, seconds
        self._number = os.open(path, os.O_WRONLY | os.O_CREAT | getattr(os, "O_BINARY", 0), 0o666)
        os.ftruncate(self._number, good)
        os.lseek(self._number, good, os.SEEK_SET)
        self._waiting: list[bytes] = []
        self._turn = threading.Condition()
        self._flushing = threading.Lock()
        self._ended = False
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="moefps-journal", daemon=True)
        self._thread.start()

    def note(self, sample: int, n_tokens: int) -> None:
        """Note a sample of which every byte was handed to the system.

        Raises
        ------
        OSError
            The disk failed since the last call.
        """
        self._raise_error()
        with self._turn:
            self._waiting.append(_line(b"%d %d" % (sample, n_tokens)))

    def flush(self) -> None:
        """Bring all that was noted to the disk, and wait for it.

        Raises
        ------
        OSError
            The disk failed; what was noted since the last time that it did not is lost.
        """
        self._raise_error()
        with self._flushing:
            with self._turn:
                lines, self._waiting = self._waiting, []
            if not lines:
                return
            try:
                # The order matters: a line on the disk says that the data are.
                self._sync_data()
                data = memoryview(b"".join(lines))
                while data:
                    data = data[os.write(self._number, data) :]
                os.fsync(self._number)
            except OSError as error:
                # What a failed sync leaves on the disk is anyone's guess, so nothing more is noted.
                self._error = error
                raise

    def close(self) -> None:
        """Flush and end, for good.

        Raises
        ------
        OSError
            The disk failed.
        """
        if self._ended:
            return
        with self._turn:
            self._ended = True
            self._turn.notify()
        self._thread.join()
        try:
            self.flush()
        finally:
            os.close(self._number)

    def _run(self) -> None:
        started = time.monotonic()
        while True:
            with self._turn:
                if not self._ended:
                    self._turn.wait(max(0.001, started + self._seconds - time.monotonic()))
                if self._ended:
                    return
            started = time.monotonic()
            try:
                self.flush()
            except OSError:
                # The next call of the writer says so.
                return

    def _raise_error(self) -> None:
        if self._error is not None:
            raise self._error


def _line(text: bytes) -> bytes:
    return b"%s %08x\n" % (text, zlib.crc32(text))
