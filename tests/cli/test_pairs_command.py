"""`moefps pairs build`, `moefps pairs align` and `moefps capture --pairs` on the command."""

from __future__ import annotations

import hashlib
import io
import json
import logging
import shutil
from pathlib import Path

import polars as pl
import pytest

import moefps
from moefps.io.pair_tokens import read_pair_tokens
from moefps.pairing import build_pairs, read_pairs
from small_model import save_small_model

ONE_OF_THEM = "give --trajectories or --template, one of them"
EXISTS = "exists already, pass --overwrite to replace it"
OWN = Path(__file__).resolve().parents[1] / "data" / "pairs"


@pytest.fixture
def files(here):
    """Small problems and trajectories in the current folder."""
    for path in OWN.iterdir():
        shutil.copy(path, path.name)
    return here


@pytest.fixture(scope="session")
def model_folder(tmp_path_factory):
    pytest.importorskip("torch", reason="capture needs torch, which is not installed")
    pytest.importorskip("transformers", reason="aligning needs transformers, which is not installed")
    folder = tmp_path_factory.mktemp("models") / "moe"
    save_small_model(folder)
    return folder


@pytest.fixture(autouse=True)
def quiet_again():
    """The command quietens transformers for its process, which is this one."""
    try:
        from transformers.utils import logging
    except ModuleNotFoundError:
        yield
        return
    before = logging.get_verbosity()
    yield
    logging.set_verbosity(before)


def test_build_names_who_is_left_out(files, cli):
    trajectories = ["--trajectories", "openai.jsonl", "own_1.traj", "taubench.json"]
    done = cli("pairs", "build", "problems.jsonl", *trajectories, "-o", "pairs.jsonl")
    unknown, taken = "openai.jsonl, line 3 (task own/9)", "taubench.json, entry 0 (task 2, trial 1)"
    malformed = "openai.jsonl, line 2 (task own/5): the role of message 2 is 'robot'"
    assert done.stdout.splitlines() == [
        "pairs.jsonl: 3 tasks in two conditions",
        "  no response shows the stub verbatim, so only the solution is compared: 2",
        "  left out: task own/4 has no canonical_solution",
        "  left out: task own/3 has no trajectory",
        f"  left out: task own/5 its trajectory is malformed: {malformed}",
        f"  not used: {unknown}: no problem has its task, own/9",
        f"  not used: {taken}: task 2 has one already, taubench.json, entry 1 (task 2, trial 0)",
    ]
    assert done.stderr == ""
    expected = build_pairs("problems.jsonl", trajectories=["openai.jsonl", "own_1.traj", "taubench.json"])
    assert tuple(read_pairs("pairs.jsonl")[0]) == expected.pairs


@pytest.mark.parametrize(
    "arguments",
    [
        ("problems.jsonl", "--trajectories", "openai.jsonl", "own_1.traj", "-o", "p.jsonl"),
        ("problems.jsonl", "-o", "p.jsonl", "--trajectories", "openai.jsonl", "--trajectories", "own_1.traj"),
        ("-o", "p.jsonl", "--trajectories=openai.jsonl", "own_1.traj", "problems.jsonl"),
        ("--trajectories", "openai.jsonl", "own_1.traj", "problems.jsonl", "-o", "p.jsonl"),
    ],
)
def test_trajectories_in_every_place(files, cli, arguments):
    cli("pairs", "build", *arguments)
    assert [pair.task_id for pair in read_pairs("p.jsonl")[0]] == ["own/0", "own/1"]


def test_build_for_programs(files, cli):
    found = json.loads(
        cli("pairs", "build", "problems.jsonl", "--template", "-o", "a.jsonl", "--format", "json").stdout
    )
    assert found["n_tasks"] == 5
    assert found["left_out"] == {"own/4": "has no canonical_solution"}
    assert found["canonical_only"] == []
    done = cli("pairs", "build", "problems.jsonl", "--template", "-o", "b.jsonl", "--format", "csv")
    row = pl.read_csv(io.StringIO(done.stdout)).row(0, named=True)
    assert (row["n_tasks"], row["left_out"]) == (5, "own/4: has no canonical_solution")


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (("problems.jsonl", "-o", "p.jsonl"), ONE_OF_THEM),
        (("problems.jsonl", "--template", "--trajectories", "a", "-o", "p"), ONE_OF_THEM),
        (("--trajectories", "openai.jsonl", "-o", "p.jsonl"), "missing argument 'PROBLEMS'"),
        (("no.jsonl", "--template", "-o", "p.jsonl"), "no.jsonl: cannot be read: no such file or directory"),
        (("problems.jsonl", "--trajectories", "no.traj", "-o", "p.jsonl"), "no.traj: does not exist"),
        (("problems.jsonl", "--template", "-o", "problems.jsonl"), f"problems.jsonl: {EXISTS}"),
        (("problems.jsonl", "--template", "-o", "no/p.jsonl"), "no/p.jsonl: the folder no does not exist"),
    ],
)  # fmt: skip
def test_build_refuses(files, cli, arguments, line):
    before = sorted(path.name for path in Path().iterdir())
    assert cli("pairs", "build", *arguments, code=2).stderr.splitlines()[0] == f"error: {line}"
    assert sorted(path.name for path in Path().iterdir()) == before


def test_from_problems_to_both_dumps(files, cli, model_folder):
    cli("pairs", "build", "problems.jsonl", "--trajectories", "openai.jsonl", "own_1.traj", "-o", "pairs.jsonl")
    done = cli("pairs", "align", "pairs.jsonl", "--tokenizer", model_folder, "--chat", "-o", "tokens.json")
    lines = done.stdout.splitlines()
    tokens = read_pair_tokens("tokens.json")
    assert lines[0] == f"tokens.json: 2 tasks, the longest of {max(task.n_positions for task in tokens):,} positions"
    assert lines[1].endswith(f"{sum(int(task.is_shared.sum()) for task in tokens):,} at the same positions in both")
    assert tokens.sha256 == hashlib.sha256(Path("tokens.json").read_bytes()).hexdigest()
    dumps = []
    for condition in ("agentic", "assisted"):
        arguments = ["--pairs", "tokens.json", "--condition", condition, "-o", f"{condition}.dump", "--device", "cpu"]
        cli("capture", model_folder, *arguments, "--hidden-states", "1", "-q")
        dumps.append(moefps.open_dump(f"{condition}.dump"))
        assert dumps[-1].manifest.extra["pairs"] == {"sha256": tokens.sha256, "condition": condition}
        assert dumps[-1].hidden_states.shape == (dumps[-1].n_tokens, 1, 32)
    both = (
        dumps[0]
        .tokens.join(dumps[1].tokens, on=["sample", "position"], suffix="_b")
        .filter(pl.col("segment_b").cast(pl.String) != "own")
    )
    assert len(both) == sum(int(task.is_shared.sum()) for task in tokens)
    assert both["token_id"].equals(both["token_id_b"])
    report = json.loads(
        cli("pairs", "align", "pairs.jsonl", "--tokenizer", model_folder, "--chat", "-o", "again.json", "--format",
            "json").stdout
    )  # fmt: skip
    assert report["sha256"] == tokens.sha256
    assert report["n_tasks"] == 2


def test_align_refuses(files, cli, model_folder, tmp_path):
    cli("pairs", "build", "problems.jsonl", "--template", "-o", "pairs.jsonl")
    shutil.copytree(model_folder, "padless")
    config = json.loads(Path("padless/tokenizer_config.json").read_text())
    del config["pad_token"]
    Path("padless/tokenizer_config.json").write_text(json.dumps(config))
    for extra in Path("padless").glob("special_tokens_map.json"):
        extra.unlink()

    def first_line(*arguments):
        return cli("pairs", "align", *arguments, "-o", "t.json", code=2).stderr.splitlines()[0]

    assert first_line("pairs.jsonl", "--tokenizer", "padless") == (
        "error: padless: has no pad token, which fills the places where the assisted condition has nothing; set "
        "tokenizer.pad_token (--pad-token) to one of its tokens, such as the one that ends a text"
    )
    wrong = first_line("pairs.jsonl", "--tokenizer", "padless", "--pad-token", "<none>")
    assert wrong == "error: --pad-token: the tokenizer has no '<none>'; accepted: one of its tokens"
    assert first_line("no.jsonl", "--tokenizer", "padless").startswith("error: no.jsonl: cannot be read")
    assert first_line("pairs.jsonl", "--tokenizer", "./none").startswith("error: tokenizer: ./none does not exist")
    assert first_line("problems.jsonl", "--tokenizer", "padless").startswith(
        "error: problems.jsonl: task own/0: agentic"
    )
    assert not Path("t.json").exists()
    cli("pairs", "align", "pairs.jsonl", "--tokenizer", "padless", "--pad-token", "<end>", "-o", "t.json")
    assert read_pair_tokens("t.json")[0].assisted_aligned_ids[0] == 1
    assert "exists already" in first_line("pairs.jsonl", "--tokenizer", "padless")


def test_a_tokenizer_that_is_not_there(files, cli, monkeypatch):
    """One line, whatever transformers and the hub would tell on the way."""
    transformers = pytest.importorskip("transformers", reason="aligning needs transformers, which is not installed")

    def fails(name):
        logging.getLogger("huggingface_hub.utils._http").warning("Retrying in 1s")
        raise OSError(f"There is no {name}\non the hub. Try again.")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", fails)
    Path("file.json").write_text("{}")
    accepted = "accepted: a folder, or a name on the hub"
    for name, line in {
        "no/such": "cannot be loaded: There is no no/such on the hub",
        "models/none/": f"does not exist; {accepted}",
        "~/none": f"does not exist; {accepted}",
        "file.json": f"is a file; {accepted}",
    }.items():
        done = cli("pairs", "align", "p.jsonl", "--tokenizer", name, "-o", "t.json", code=2)
        assert done.stderr == f"error: tokenizer: {name} {line}\n"


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "give TEXTS or --pairs, one of them"),
        (["t.jsonl", "--pairs", "p.json"], "give TEXTS or --pairs, one of them"),
        (["t.jsonl", "--condition", "agentic"], "--condition is for --pairs"),
        (["--pairs", "p.json"], "--pairs needs --condition agentic or --condition assisted"),
        (["--pairs", "p.json", "--condition", "agentic", "--chat"], "--chat is for TEXTS"),
        (["--pairs", "p.json", "--condition", "agentic", "--text-field", "x"], "--text-field is for TEXTS"),
        (["--pairs", "p.json", "--condition", "agentic"], "p.json: cannot be read: no such file or directory"),
        (["--pairs", "bad.json", "--condition", "agentic"], "bad.json: holds no task; accepted: at least one"),
    ],
)
def test_capture_refuses(files, cli, arguments, line):
    Path("bad.json").write_text("[]")
    assert cli("capture", "model", *arguments, "-o", "d.dump", code=2).stderr.splitlines()[0] == f"error: {line}"


def test_capture_of_pairs_refuses_what_makes_other_tokens(files, cli, model_folder):
    cli("pairs", "build", "problems.jsonl", "--template", "-o", "pairs.jsonl")
    cli("pairs", "align", "pairs.jsonl", "--tokenizer", model_folder, "-o", "t.json")
    start = ["capture", model_folder, "--pairs", "t.json", "--condition", "assisted", "-o", "d.dump"]
    for option, name in (("--generate", "generate"), ("--max-length", "--max-length")):
        line = cli(*start, option, "3", code=2).stderr.splitlines()[0]
        assert line.startswith("error: --") or name in line
        assert "not with" in line


def test_help(cli):
    assert "build" in cli("pairs", "--help").stdout
    assert "HumanEval" in cli("pairs", "build", "-h").stdout
    assert "--pad-token" in cli("pairs", "align", "-h").stdout
