"""RoutingCallback logs what a direct count of the same batches gives, and leaves the model as it was found."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn
from transformers import Trainer, TrainerCallback, TrainingArguments

from moefps.errors import ArgumentError, CaptureError
from moefps.metrics.analyzer import RoutingAnalyzer
from moefps.metrics.training import RoutingCallback
from recording.families import BY_NAME
from recording.tiny import OLD
from support import refused

METRICS = ("load_balancing_coefficient", "maxvio_batch", "top_k_overlap", "top_k_entropy", "expert_overlap")
PAD = 0
DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"))]


def hooks_of(model):
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


class Batches:
    """Collates, and remembers."""

    def __init__(self):
        self.seen = []

    def __call__(self, rows):
        longest = max(len(row["input_ids"]) for row in rows)
        ids = torch.full((len(rows), longest), PAD)
        mask = torch.zeros_like(ids)
        for i, row in enumerate(rows):
            # On either side.
            where = slice(0, len(row["input_ids"])) if i % 2 else slice(longest - len(row["input_ids"]), None)
            ids[i, where], mask[i, where] = row["input_ids"], 1
        self.seen.append({"input_ids": ids, "attention_mask": mask, "labels": ids.masked_fill(mask == 0, -100)})
        return dict(self.seen[-1])


class Listening(TrainerCallback):
    """What an integration sees: it comes before the callback that logs."""

    def __init__(self):
        self.logs, self.hooks = [], []

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.logs.append((state.global_step, dict(logs)))

    def on_step_begin(self, args, state, control, model=None, **kwargs):
        self.hooks.append(hooks_of(model))


def rows(n=24, seed=0):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(2, 8, (n,), generator=generator).tolist()
    return [{"input_ids": torch.randint(3, 90, (length,), generator=generator)} for length in lengths]


def run(model, callback, folder, *, train=None, evaluate=None, trainer_class=Trainer, checkpoints=0, **options):
    """Train for a few steps that change nothing."""
    settings = {
        "max_steps": 6,
        "per_device_train_batch_size": 3,
        "learning_rate": 0.0,
        "report_to": [],
        "use_cpu": True,
        "dataloader_pin_memory": False,
        "disable_tqdm": True,
        "logging_strategy": "steps",
        "logging_steps": 2,
        "save_strategy": "no",
        "remove_unused_columns": False,
    }
    batches, listening = Batches(), Listening()
    trainer = trainer_class(
        model,
        TrainingArguments(output_dir=str(folder), **(settings | options)),
        data_collator=batches,
        train_dataset=rows() if train is None else train,
        eval_dataset=evaluate,
        callbacks=[listening, callback],
    )
    trainer.train()
    assert hooks_of(model) == checkpoints
    return trainer, batches.seen, listening


def direct(model, batches, metrics=METRICS):
    """The same from the router logits that transformers gives."""
    model.eval()
    analyzer = RoutingAnalyzer(8)
    for batch in batches:
        with torch.no_grad():
            output = model(
                input_ids=batch["input_ids"], attention_mask=batch["attention_mask"], output_router_logits=True
            )
        for layer, logits in enumerate(output.router_logits):
            weights, ids = logits.float().softmax(-1).topk(2, dim=-1)
            shape = (*batch["input_ids"].shape, -1)
            weights = (weights / weights.sum(-1, keepdim=True)).view(shape)
            analyzer.update(ids.view(shape), weights, layer=layer, mask=batch["attention_mask"])
    return analyzer.result(metrics)


def logged(trainer, prefix="routing/"):
    found = {}
    for entry in trainer.state.log_history:
        values = {k.removeprefix(prefix): v for k, v in entry.items() if k.startswith(prefix)}
        if values:
            assert entry["step"] not in found
            found[entry["step"]] = values
    return found


def assert_same(found, expected, aggregates=("mean",)):
    means = {row["metric"]: row for row in expected.summary.iter_rows(named=True)}
    for name in METRICS:
        for aggregate in aggregates:
            key = name if aggregate == "mean" else f"{name}/{aggregate}"
            assert found[key] == pytest.approx(means[name][aggregate], rel=1e-6, abs=1e-6), key


def test_logged_values_are_those_of_the_batches(qwen, tmp_path):
    callback = RoutingCallback(METRICS, every=2, aggregates=("mean", "max"), by_layer=True)
    trainer, batches, listening = run(qwen, callback, tmp_path)
    found = logged(trainer)
    assert sorted(found) == [2, 4, 6]
    for step, values in found.items():
        expected = direct(qwen, batches[step - 1 : step])
        assert_same(values, expected, ("mean", "max"))
        for layer in range(3):
            value = expected.value("maxvio_batch", layer=layer)
            assert values[f"maxvio_batch/layer_{layer}"] == pytest.approx(value)
        assert len(values) == len(METRICS) * 5
    # Integrations have seen them, and the losses are logged at the same steps as ever.
    assert [step for step, logs in listening.logs if "routing/maxvio_batch" in logs] == [2, 4, 6]
    assert [step for step, logs in listening.logs if "loss" in logs] == [2, 4, 6]
    # Hooks are there in the steps that are logged alone.
    assert listening.hooks == [0] * 6


@pytest.mark.parametrize("checkpointing", [False, True])
def test_batches_of_a_step_count_together_and_once(qwen, tmp_path, checkpointing):
    options = {"gradient_accumulation_steps": 2, "max_steps": 2}
    if checkpointing:
        options["gradient_checkpointing" if OLD else "activation_checkpointing"] = True
    # transformers leaves a hook of its own with checkpointing.
    trainer, batches, _ = run(qwen, RoutingCallback(METRICS, every=2), tmp_path, checkpoints=checkpointing, **options)
    if checkpointing:
        (qwen.gradient_checkpointing_disable if OLD else qwen.activation_checkpointing_disable)()
    assert_same(logged(trainer)[2], direct(qwen, batches[2:4]))


@pytest.mark.parametrize("asked", [False, True])
def test_evaluation_counts_when_asked(qwen, tmp_path, asked):
    callback = RoutingCallback(METRICS, every=3, evaluate=asked)
    options = {"eval_strategy": "steps", "eval_steps": 3, "max_steps": 3, "per_device_eval_batch_size": 2}
    trainer, batches, _ = run(qwen, callback, tmp_path, evaluate=rows(4, seed=9), **options)
    train, evaluated = batches[:3], batches[-2:]
    assert_same(logged(trainer)[3], direct(qwen, train[-1:]))
    if asked:
        assert_same(logged(trainer, "eval_routing/")[3], direct(qwen, evaluated))
    else:
        assert not logged(trainer, "eval_routing/")


@pytest.mark.parametrize("device", DEVICES)
def test_packed_sequences_are_told_apart(qwen, device):
    """By their positions: of 3 and 2 tokens in one row, three pairs are neighbours; the last two are padding."""
    row = {
        "input_ids": torch.tensor([[5, 6, 7, 8, 9, 0, 0]], device=device),
        "position_ids": torch.tensor([[0, 1, 2, 0, 1, 2, 3]], device=device),
        "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0]], device=device),
    }
    callback = RoutingCallback(("top_k_overlap",), every=1)
    listener = callback._listener
    listener.attach(qwen.to(device).train(), training=True)
    qwen(**row)
    analyzer = listener.take()
    assert [int(analyzer._layers[layer].counts.pairs[0]) for layer in range(3)] == [3, 3, 3]
    assert int(analyzer._layers[0].counts.tokens[0]) == 5


def test_what_does_not_train_is_not_counted(qwen):
    """Trainers of other kinds score and generate in between."""
    listener = RoutingCallback(every=1)._listener
    listener.attach(qwen.train(), training=True)
    ids = torch.tensor([[5, 6, 7]])
    with torch.no_grad():
        qwen(ids)
    qwen.eval()
    qwen(ids)
    with pytest.raises(CaptureError, match="was not called"):
        listener.take()
    listener.attach(qwen.train(), training=True)
    qwen(ids)
    assert int(listener.take()._layers[0].counts.tokens[0]) == 3


@pytest.mark.parametrize("name", ["switch_transformers", "gemma4", "longcat_flash", "ernie4_5_vl_moe"])
def test_families_of_other_kinds(name):
    """An encoder and a decoder, signed weights, passive experts, routers of parts of the positions."""
    family = BY_NAME[name]
    model = family.build_anew().train()
    listener = RoutingCallback(every=1)._listener
    listener.attach(model, training=True)
    inputs = family.inputs((7, 4, 5))
    if name == "switch_transformers":
        # As a Trainer hands it over: the model makes the decoder's ids of the labels.
        inputs["labels"] = inputs.pop("decoder_input_ids").masked_fill(inputs.pop("decoder_attention_mask") == 0, -100)
    model(**inputs)
    names, analyzer = listener.layer_names(), listener.take()
    assert len(set(names)) == len(names)
    tokens = {names[layer]: int(sums.counts.rows[0]) for layer, sums in analyzer._layers.items()}
    decoder = {n: rows for n, rows in tokens.items() if n.startswith("decoder")}
    if name == "switch_transformers":
        # 4, 2 and 3 labels; the position after the last one is fed, too, where there is one.
        assert set(decoder.values()) == {4 + 3 + 4}
    own = set(tokens.values()) - set(decoder.values())
    assert own == {16}
    assert analyzer.result(METRICS).summary["mean"].null_count() < len(METRICS)


def test_an_error_in_a_step_leaves_no_hooks_for_the_next(qwen, tmp_path):
    class Failing(Trainer):
        def compute_loss(self, model, inputs, *args, **kwargs):
            if self.state.global_step == 1:
                raise KeyboardInterrupt
            return super().compute_loss(model, inputs, *args, **kwargs)

    callback = RoutingCallback(METRICS, every=2)
    with pytest.raises(KeyboardInterrupt):
        run(qwen, callback, tmp_path, trainer_class=Failing)
    trainer, batches, _ = run(qwen, callback, tmp_path, max_steps=2)
    assert_same(logged(trainer)[2], direct(qwen, batches[1:2]))


def test_bad_arguments_are_refused():
    for arguments, words in (
        ((["load_balancing"],), "'load_balancing' is no metric, perhaps"),
        (("maxvio",), "accepted: a sequence of names"),
        ((["expert_token_counts"],), "is not one number a layer"),
        ((["domain_purity"],), "needs domains"),
        ((["maxvio"], 0), "every: 0"),
        ((["maxvio"], 2.5), "every: 2.5"),
    ):
        refused(ArgumentError, lambda a=arguments: RoutingCallback(*a), words)
    refused(ArgumentError, lambda: RoutingCallback(aggregates=["median"]), "aggregates: 'median'")


def test_models_and_settings_that_do_not_fit_are_refused(qwen, tmp_path):
    refused(
        CaptureError, lambda: RoutingCallback(every=1)._listener.attach(nn.Linear(2, 2), training=True), "no router"
    )
    listener = RoutingCallback(every=1)._listener
    listener.attach(qwen.train(), training=True)
    refused(
        CaptureError,
        lambda: qwen(torch.tensor([[5, 6]]), attention_mask=torch.ones(1, 1, 2, 2, dtype=torch.bool)),
        r"attention_mask: shape \(1, 1, 2, 2\)",
    )
    listener.detach()
    assert hooks_of(qwen) == 0
    settings = TrainingArguments(output_dir=str(tmp_path), torch_compile=True, report_to=[], use_cpu=True)
    callback = RoutingCallback(every=1)
    refused(ArgumentError, lambda: callback.on_train_begin(settings, None, None), "torch_compile: True")


def test_transformers_is_needed_only_when_one_is_made():
    code = (
        "import sys\n"
        "sys.modules['transformers'] = None\n"
        "from moefps.metrics.training import RoutingCallback\n"
        "from moefps.errors import MissingExtraError\n"
        "try:\n    RoutingCallback()\nexcept MissingExtraError as error:\n    assert 'moefps[capture]' in str(error)\n"
        "else:\n    raise SystemExit(1)\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
