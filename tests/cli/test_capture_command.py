"""`moefps capture` on the real command: what `moefps.capture` gives, and what is wrong in one line."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest

import moefps
from small_model import TEXTS, save_small_model, small_tokenizer

torch = pytest.importorskip("torch", reason="capture needs torch, which is not installed")
transformers = pytest.importorskip("transformers", reason="capture needs transformers, which is not installed")

REMOTE = Path(__file__).resolve().parents[1] / "recording" / "remote_code"


@pytest.fixture(scope="session")
def folders(tmp_path_factory):
    """A folder with a Mixture-of-Experts, and one with a dense model."""
    top = tmp_path_factory.mktemp("models")
    save_small_model(top / "moe")
    save_small_model(top / "dense", n_experts=0)
    return top


@pytest.fixture
def texts(here, folders, monkeypatch):
    """Texts with columns in the current folder, and the models beside them."""
    # For processes of their own, and for this one, where the hub's library has been imported already.
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    for name in ("moe", "dense"):
        Path(name).symlink_to(folders / name)
    rows = [{"text": text, "domain": "abcab"[i], "n": i} for i, text in enumerate(TEXTS)]
    Path("t.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return TEXTS


@pytest.fixture(autouse=True)
def quiet_again():
    """The command quietens transformers for its process, which is this one."""
    from transformers.utils import logging

    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)
    torch.set_num_threads(torch.get_num_threads())


def same_arrays(a, b):
    for name in a.arrays:
        assert np.array_equal(a.stored(name), b.stored(name)), name


def test_captures_what_the_api_does(texts, process):
    done = process("capture", "moe", "t.jsonl", "-o", "t.dump", "--logits", "--batch-tokens", "64", "--device", "cpu")
    lines = done.stdout.splitlines()
    dump = moefps.open_dump("t.dump")
    assert lines[0].startswith(f"t.dump: 5 samples, {dump.n_tokens} tokens, ")
    assert lines[1] == "  3 layers of 8 experts, top-2"
    assert lines[2] == "  holds expert_ids, expert_weights, router_logits, fingerprints of kind probs"
    assert re.fullmatch(r"  in .* with loading the model, [\d,]+ tokens/s without it", lines[3])
    assert done.stderr == ""
    assert dump.samples.select("text", "domain", "n").rows() == [(text, "abcab"[i], i) for i, text in enumerate(texts)]
    model = transformers.AutoModelForCausalLM.from_pretrained("moe")
    tokenizer = transformers.AutoTokenizer.from_pretrained("moe")
    expected = moefps.capture(model, texts, tokenizer=tokenizer, logits=True, batch_tokens=64)
    assert np.array_equal(dump.expert_ids, expected.expert_ids)
    np.testing.assert_allclose(dump.fingerprints(), expected.fingerprints(), atol=1e-6)


def test_options_reach_the_recorder(texts, cli):
    cli(
        "capture", "moe", "t.jsonl", "-o", "a.dump", "--layers", "0,2", "--hidden-states", "0-1", "--router-vectors",
        "--kind", "counts", "--max-length", "4", "--dtype", "bfloat16", "--device", "cpu",
    )  # fmt: skip
    dump = moefps.open_dump("a.dump")
    assert [layer.layer for layer in dump.layers] == [0, 2]
    assert dump.manifest.hidden_layers == (0, 1)
    assert dump.router_vectors.shape == (2, 8, 32)
    assert dump.manifest.fingerprint_kind == "counts"
    assert dump.samples["n_tokens"].max() == 4
    assert dump.manifest.model["dtype"] == "bfloat16"


def test_warnings_are_lines(texts, cli):
    result = cli("capture", "moe", "t.jsonl", "-o", "a.dump", "--max-length", "4", "--device", "cpu")
    assert re.fullmatch(r"warning: .*cut \d of 5 texts\n", result.stderr)
    assert cli("capture", "moe", "t.jsonl", "-o", "b.dump", "--max-length", "4", "--device", "cpu", "-q").stderr == ""


def test_generation(texts, cli):
    cli("capture", "moe", "t.jsonl", "-o", "a.dump", "--generate", "3", "--device", "cpu")
    dump = moefps.open_dump("a.dump")
    lengths = [len(ids) for ids in transformers.AutoTokenizer.from_pretrained("moe")(texts)["input_ids"]]
    assert all(n <= found <= n + 2 for n, found in zip(lengths, dump.samples["n_tokens"], strict=True))
    sampled = ["--generate", "3", "--sample", "--temperature", "2", "--top-p", "0.9", "--seed", "5", "--device", "cpu"]
    for name in ("b.dump", "c.dump"):
        cli("capture", "moe", "t.jsonl", "-o", name, *sampled)
    same_arrays(moefps.open_dump("b.dump"), moefps.open_dump("c.dump"))


def test_chat(texts, cli):
    Path("c.jsonl").write_text(json.dumps({"messages": [{"role": "user", "content": "Hi"}], "id": 1}) + "\n")
    cli("capture", "moe", "c.jsonl", "-o", "a.dump", "--chat", "--device", "cpu")
    dump = moefps.open_dump("a.dump")
    ids = transformers.AutoTokenizer.from_pretrained("moe")("<user>Hi")["input_ids"]
    assert dump.tokens["token_id"].to_list() == ids
    assert dump.samples["id"].to_list() == [1]
    assert json.loads(dump.samples["messages"][0]) == [{"role": "user", "content": "Hi"}]


@pytest.mark.parametrize("output_format", ["json", "csv"])
def test_formats(output_format, texts, cli):
    result = cli("capture", "moe", "t.jsonl", "-o", "a.dump", "--device", "cpu", "--format", output_format)
    record = (
        json.loads(result.stdout)
        if output_format == "json"
        else pl.read_csv(io.BytesIO(result.stdout_bytes)).row(0, named=True)
    )
    assert (record["n_samples"], record["n_layers"], record["fingerprint_kind"]) == (5, 3, "probs")


def test_texts_from_stdin(texts, process):
    done = process(
        "capture", "moe", "-", "-o", "a.dump", "--device", "cpu", stdin=None, input="one text\nanother one\n"
    )
    assert done.stdout.startswith("a.dump: 2 samples, ")


@pytest.mark.slow
def test_a_capture_that_is_killed_says_so_and_goes_on(texts, cli, process, start_process):
    if os.name != "posix":
        pytest.skip("kill -9 is a POSIX thing")
    Path("many.txt").write_text("".join(f"text number {i} of many, with a few words in it\n" for i in range(500)))
    arguments = ("many.txt", "--logits", "--batch-tokens", "40", "--device", "cpu")
    running = start_process("capture", "moe", *arguments, "-o", "a.dump")
    journal = Path("a.dump/writing/journal")
    deadline = time.monotonic() + 60
    while not (journal.is_file() and journal.stat().st_size) and time.monotonic() < deadline:
        assert running.poll() is None, "it was over before it could be killed"
        time.sleep(0.05)
    running.send_signal(signal.SIGKILL)
    running.wait()
    line = cli("info", "a.dump", code=2).stderr
    done = re.search(r"half-written, ([\d,]+) of 500 samples are whole", line)
    assert 0 < int(done[1].replace(",", "")) < 500
    assert "--resume" in line
    assert "--resume" in cli("capture", "moe", *arguments, "-o", "a.dump", code=2).stderr
    process("capture", "moe", *arguments, "-o", "a.dump", "--resume")
    process("capture", "moe", *arguments, "-o", "b.dump")
    for name in ("expert_ids", "expert_weights", "router_logits", "fingerprints"):
        assert Path(f"a.dump/{name}.npy").read_bytes() == Path(f"b.dump/{name}.npy").read_bytes()
    same = moefps.open_dump("a.dump").samples.equals(moefps.open_dump("b.dump").samples)
    assert same


@pytest.mark.slow
def test_ctrl_c_says_how_to_go_on(texts, process, start_process):
    if os.name != "posix":
        pytest.skip("there is no SIGINT to send")
    Path("many.txt").write_text("".join(f"text number {i} of many, with a few words in it\n" for i in range(2000)))
    ask = ("capture", "moe", "many.txt", "-o", "a.dump", "--batch-tokens", "40", "--device", "cpu")
    running = start_process(*ask, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while not Path("a.dump/manifest.json").is_file() and time.monotonic() < deadline:
        assert running.poll() is None, "it was over before it could be interrupted"
        time.sleep(0.05)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=10)
    assert running.returncode == 130
    assert out == ""
    assert err.splitlines() == ["a.dump: is half-written; the same command with --resume goes on", "interrupted"]
    process(*ask, "--resume")


def test_a_model_without_experts(texts, cli):
    result = cli("capture", "dense", "t.jsonl", "-o", "a.dump", "--device", "cpu", code=2)
    assert result.stderr == "error: dense: has no MoE layer, so there is no routing to record\n"
    assert result.stdout == ""
    assert not Path("a.dump").exists()


def test_code_of_the_models_own_is_not_run_unasked(texts, cli, tmp_path, monkeypatch):
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    shutil.copytree(REMOTE, "remote", ignore=shutil.ignore_patterns("__pycache__"))
    small_tokenizer().save_pretrained("remote")
    line = cli("capture", "remote", "t.jsonl", "-o", "a.dump", "--device", "cpu", code=2).stderr
    assert "--trust-remote-code" in line
    assert len(line.splitlines()) == 1
    assert not (tmp_path / "modules").exists()


@pytest.mark.slow
def test_code_of_the_models_own_when_asked(texts, process, tmp_path, monkeypatch):
    """A folder with code, weights and a tokenizer, and routers that only the user can name."""
    monkeypatch.setenv("HF_MODULES_CACHE", str(tmp_path / "modules"))
    shutil.copytree(REMOTE, "remote", ignore=shutil.ignore_patterns("__pycache__"))
    config = json.loads(Path("remote/config.json").read_text())
    Path("remote/config.json").write_text(json.dumps({**config, "vocab_size": 300}))
    small_tokenizer().save_pretrained("remote")
    code = (
        "from transformers import AutoConfig, AutoModelForCausalLM as Auto; "
        "config = AutoConfig.from_pretrained('remote', trust_remote_code=True); "
        "Auto.from_config(config, trust_remote_code=True).save_pretrained('weights')"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)
    shutil.copy("weights/model.safetensors", "remote")
    ask = ("capture", "remote", "t.jsonl", "-o", "a.dump", "--device", "cpu", "--trust-remote-code")
    assert re.fullmatch(r"error: stages\.1\.mlp.*--router.*\n", process(*ask, code=2).stderr)
    process(*ask, "--router", "stages.*.mlp.gate:logits=0,top_k=2,scoring=softmax")
    dump = moefps.open_dump("a.dump")
    assert [layer.path for layer in dump.layers] == ["stages.1.mlp.gate", "stages.3.mlp.gate"]
    text = process("info", "a.dump").stdout
    assert "2 layers of 8 experts, top-2, scoring softmax" in text
    assert "derived from router logits" in text


BAD = {
    "no such model": (["nope", "t.jsonl"], "error: nope: .*cannot be loaded"),
    "no such text": (["moe", "no.txt"], "error: no.txt: cannot be read: no such file"),
    "no such field": (["moe", "t.jsonl", "--text-field", "prompt"], "t.jsonl: has no field prompt, found text, domain, n"),  # noqa: E501
    "an empty line": (["moe", "empty.txt"], "empty.txt: line 2: text is empty"),
    "a column of ours": (["moe", "ours.csv"], "ours.csv: has a field sample, which moefps writes itself"),
    "output exists": (["moe", "t.jsonl", "-o", "taken"], "taken: is a folder with other files"),
    "no folder": (["moe", "t.jsonl", "-o", "no/a.dump"], "no/a.dump: the folder no does not exist"),
    "no such layer": (["moe", "t.jsonl", "--layers", "3"], "--layers: .*3"),
    "no such hidden layer": (["moe", "t.jsonl", "--hidden-states", "9"], "--hidden-states: got layer 9; accepted: 0 to 2"),  # noqa: E501
    "layers": (["moe", "t.jsonl", "--layers", "x"], "--layers: found 'x'"),
    "a router that is not there": (["moe", "t.jsonl", "--router", "no.such.gate"], "no.such.gate"),
    "a router that is none": (["moe", "t.jsonl", "--router", "gate:logits=x"], "gate:logits=x"),
    "temperature alone": (["moe", "t.jsonl", "--temperature", "1"], "--temperature is for --sample"),
    "seed alone": (["moe", "t.jsonl", "--generate", "2", "--seed", "1"], "--seed is for --sample"),
    "sample alone": (["moe", "t.jsonl", "--sample"], "--sample is for --generate"),
    "two ways to go": (["moe", "t.jsonl", "--resume", "--overwrite"], "--resume and --overwrite exclude each other"),
    "two places": (["moe", "t.jsonl", "--device", "cpu", "--device-map", "auto"], "exclude each other"),
    "no GPU": (["moe", "t.jsonl", "--device", "cuda:99"], "--device: got 'cuda:99'|cuda:99"),
    "no such device": (["moe", "t.jsonl", "--device", "foo"], "--device: got 'foo'; accepted: cpu, cuda"),
    "too cold": (["moe", "t.jsonl", "--generate", "2", "--sample", "--temperature", "0"], "'--temperature': 0.0"),
    "batches": (["moe", "t.jsonl", "--batch-tokens", "0"], "invalid value for '--batch-tokens'"),
    "decoder field": (["moe", "t.jsonl", "--decoder-field", "answer"], "t.jsonl: has no field answer, found"),
    "decoder field of numbers": (["moe", "t.jsonl", "--decoder-field", "n"], "the field n is not a text in every row"),
    "no decoder": (["moe", "t.jsonl", "--decoder-field", "domain"], "t.jsonl: the model has no decoder"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_one_line_and_exit_2(case, texts, refuses):
    arguments, words = BAD[case]
    Path("empty.txt").write_text("a\n\nb\n")
    Path("ours.csv").write_text("text,sample\na,1\n")
    Path("taken").mkdir()
    Path("taken/mine.txt").write_text("kept")
    if "-o" not in arguments:
        arguments = [*arguments, "-o", "a.dump"]
    refuses(words, "capture", *arguments)


def test_a_missing_extra_is_one_line(here, process):
    """With a transformers that cannot be imported, as where it is not installed."""
    Path("t.txt").write_text("a\n")
    Path("hidden").mkdir()
    code = "raise ModuleNotFoundError(\"No module named 'transformers'\", name='transformers')\n"
    Path("hidden/transformers.py").write_text(code)
    done = process(
        "capture",
        "moe",
        "t.txt",
        "-o",
        "a.dump",
        code=2,
        env={**os.environ, "PYTHONPATH": str(Path("hidden").resolve())},
    )
    assert done.stderr == (
        "error: capture needs transformers, which is not installed; run: pip install 'moefps[capture]'\n"
    )
