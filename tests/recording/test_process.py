"""Captures in processes of their own: killed, and in parallel."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

import moefps
from recording.conftest import build_qwen

ROOT = Path(__file__).parents[2]
ARRAYS = ("expert_ids", "expert_weights", "router_logits", "fingerprints")

SLOW_CAPTURE = """
import sys, time
import torch
import moefps
from recording.test_process import samples
from recording.conftest import build_qwen

torch.set_num_threads(1)
model = build_qwen()
model.register_forward_pre_hook(lambda *_: time.sleep(float(sys.argv[2])))
moefps.capture(model, samples(), batch_tokens=40, logits=True, output=sys.argv[1], resume=True)
"""

PARALLEL_CAPTURE = """
import sys
import torch
import moefps
from recording.test_process import samples

torch.set_num_threads(1)
dump = moefps.capture(sys.argv[1], samples(), batch_tokens=200, tp_plan="auto", output=sys.argv[2])
assert dump.n_samples == len(samples())
torch.distributed.destroy_process_group()
"""


def samples():
    rng = np.random.default_rng(3)
    return [rng.integers(1, 97, size=n).tolist() for n in rng.integers(3, 40, size=60)]


def start(code, *arguments, launcher=(), **environment):
    command = [sys.executable, *launcher, *(["-c", code] if not launcher else [code]), *map(str, arguments)]
    paths = os.pathsep.join(filter(None, [str(ROOT / "tests"), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": paths, **environment}
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def same_arrays(one, other):
    return all((one / f"{name}.npy").read_bytes() == (other / f"{name}.npy").read_bytes() for name in ARRAYS)


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGKILL")
def test_a_killed_capture_is_resumed_byte_for_byte(tmp_path):
    moefps.capture(build_qwen(), samples(), batch_tokens=40, logits=True, output=tmp_path / "whole")
    part = tmp_path / "part"
    process = start(SLOW_CAPTURE, part, 0.15)
    journal = part / "writing" / "journal"
    deadline = time.monotonic() + 60
    # Killed once some samples are whole on the disk, and others are not.
    while not (journal.exists() and journal.stat().st_size) and process.poll() is None:
        assert time.monotonic() < deadline, "the capture wrote nothing"
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    output, _ = process.communicate(timeout=30)
    assert process.returncode == -signal.SIGKILL, output
    with pytest.raises(moefps.DumpError, match="resume"):
        moefps.open_dump(part)
    done = len(journal.read_text().splitlines())
    assert 0 < done < len(samples())
    process = start(SLOW_CAPTURE, part, 0)
    output, _ = process.communicate(timeout=120)
    assert process.returncode == 0, output
    assert same_arrays(part, tmp_path / "whole")
    tokens = moefps.open_dump(part).tokens
    assert tokens.equals(moefps.open_dump(tmp_path / "whole").tokens)


@pytest.mark.slow
def test_tensor_parallelism_writes_once(tmp_path):
    build_qwen().save_pretrained(tmp_path / "model")
    whole = moefps.capture(str(tmp_path / "model"), samples(), batch_tokens=200, device="cpu")
    script = tmp_path / "parallel.py"
    script.write_text(PARALLEL_CAPTURE, encoding="utf-8")
    launcher = ("-m", "torch.distributed.run", "--nproc-per-node=2", "--master-port=29517")
    process = start(
        str(script),
        tmp_path / "model",
        tmp_path / "dump",
        launcher=launcher,
        OMP_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
    )
    output, _ = process.communicate(timeout=240)
    assert process.returncode == 0, output
    dump = moefps.open_dump(tmp_path / "dump")
    np.testing.assert_array_equal(dump.expert_ids, whole.expert_ids)
    np.testing.assert_allclose(dump.expert_weights, whole.expert_weights, atol=1e-5)
