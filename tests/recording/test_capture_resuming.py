"""A capture that was interrupted goes on, and only with what it was begun with."""

from __future__ import annotations

import time

import numpy as np
import pytest

torch = pytest.importorskip("torch")
pytest.importorskip("transformers")

import moefps  # noqa: E402


@pytest.fixture(scope="module")
def samples():
    rng = np.random.default_rng(0)
    return [rng.integers(1, 97, size=n).tolist() for n in (5, 17, 1, 9, 9, 30, 2, 12)]


def test_an_interrupted_capture_goes_on_where_it_was(qwen, samples, tmp_path, monkeypatch):
    whole = moefps.capture(qwen, samples, batch_tokens=20, logits=True, output=tmp_path / "whole")
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) == 4:
            raise KeyboardInterrupt

    handle = qwen.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        moefps.capture(qwen, samples, batch_tokens=20, logits=True, output=tmp_path / "part")
    handle.remove()
    with pytest.raises(moefps.DumpError, match="resume"):
        moefps.open_dump(tmp_path / "part")
    with pytest.raises(moefps.FileError, match="resume"):
        moefps.capture(qwen, samples, batch_tokens=20, logits=True, output=tmp_path / "part")
    with pytest.raises(moefps.DumpError, match=r"\w"):
        moefps.capture(qwen, samples, batch_tokens=21, logits=True, output=tmp_path / "part", resume=True)
    moefps.capture(qwen, samples, batch_tokens=20, logits=True, output=tmp_path / "part", resume=True)
    for name in ("expert_ids", "expert_weights", "router_logits", "fingerprints"):
        assert (tmp_path / "part" / f"{name}.npy").read_bytes() == (tmp_path / "whole" / f"{name}.npy").read_bytes()
    assert whole.n_samples == len(samples)


def half_written(model, samples, path, **how):
    """Leave a dump with its first batch alone."""
    journal = path / "writing" / "journal"
    calls = []

    def stop(*_):
        calls.append(1)
        if len(calls) == 2:
            # What still waits to be written when the interrupt comes is dropped.
            deadline = time.monotonic() + 30
            while not (journal.is_file() and journal.stat().st_size) and time.monotonic() < deadline:
                time.sleep(0.02)
            raise KeyboardInterrupt

    handle = model.register_forward_pre_hook(stop)
    with pytest.raises(KeyboardInterrupt):
        moefps.capture(model, samples, output=path, **how)
    handle.remove()


def test_a_batch_that_was_cut_in_the_middle_goes_on(qwen, tmp_path):
    samples = [[1 + i, 2, 3] for i in range(8)]
    moefps.capture(qwen, samples, batch_tokens=12, output=tmp_path / "whole")
    half_written(qwen, samples, tmp_path / "part", batch_tokens=12)
    journal = tmp_path / "part" / "writing" / "journal"
    lines = journal.read_bytes().splitlines(keepends=True)
    assert len(lines) == 4
    # As a kill leaves it that comes while the batch is being written.
    journal.write_bytes(b"".join(lines[:3]))
    moefps.capture(qwen, samples, batch_tokens=12, output=tmp_path / "part", resume=True)
    for name in ("expert_ids", "expert_weights", "fingerprints"):
        assert (tmp_path / "part" / f"{name}.npy").read_bytes() == (tmp_path / "whole" / f"{name}.npy").read_bytes()


def test_other_weights_or_texts_do_not_go_on_with_a_capture(qwen, samples, tmp_path):
    half_written(qwen, samples, tmp_path / "part", batch_tokens=20)
    how = {"batch_tokens": 20, "output": tmp_path / "part", "resume": True}
    with pytest.raises(moefps.DumpError, match="begun with 8 samples, now there are 7"):
        moefps.capture(qwen, samples[:-1], **how)
    with pytest.raises(moefps.DumpError, match=r"plan\.texts"):
        moefps.capture(qwen, [*samples[:-1], samples[-1][::-1]], **how)
    cut = pytest.warns(moefps.CaptureWarning, match="cut")
    with cut, pytest.raises(moefps.DumpError, match=r"plan\.max_length was null and is now 3"):
        moefps.capture(qwen, samples, max_length=3, **how)
    with torch.no_grad():
        qwen.model.layers[2].mlp.experts.down_proj[5].mul_(1.01)
    with pytest.raises(moefps.DumpError, match=r"plan\.weights"):
        moefps.capture(qwen, samples, **how)
