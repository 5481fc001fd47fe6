"""Whether the model has learnt: held-out losses beside a unigram model's, experts in use, and domains told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

import moefps
from demo_model import jsonl
from demo_model.sources import NAMES
from demo_model.tokens import CHAT, VOCABULARY

LENGTH = 512
WINDOWS = 64  # held-out stretches of a domain whose loss is measured


def _unigram(tokens: np.ndarray) -> np.ndarray:
    """Log-probability of every token, with one added to each count."""
    counts = np.bincount(tokens, minlength=VOCABULARY) + 1.0
    return np.log(counts / counts.sum())


@torch.no_grad()
def _losses(model: PreTrainedModel, tokens: np.ndarray, *unigrams: np.ndarray) -> tuple[int, list[float]]:
    """Mean loss in nats a token of the model and of each unigram model, over the same tokens."""
    n_windows = max(1, min(WINDOWS, len(tokens) // LENGTH))
    windows = np.stack(np.array_split(tokens[: n_windows * LENGTH].astype(np.int64), n_windows))
    total = 0.0
    for window in torch.from_numpy(windows).split(16):
        predicted = model(input_ids=window).logits[:, :-1].float()
        total += float(functional.cross_entropy(predicted.flatten(0, 1), window[:, 1:].flatten(), reduction="sum"))
    measured = windows[:, 1:]
    return measured.size, [total / measured.size, *(-float(logs[measured].mean()) for logs in unigrams)]


@torch.no_grad()
def _routing(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, texts: list[str]
) -> tuple[np.ndarray, np.ndarray]:
    """Fingerprints (kind probs) [N, L, E] and, in counts of tokens, who was chosen [L, E]."""
    calls: list[tuple[Tensor, Tensor]] = []
    handles = [
        layer.mlp.gate.register_forward_hook(lambda _m, _i, outputs: calls.append((outputs[0], outputs[2])))
        for layer in model.model.layers
    ]
    fingerprints = []
    load = torch.zeros(model.config.num_hidden_layers, model.config.num_experts, dtype=torch.int64)
    for text in texts:
        calls.clear()
        model(**tokenizer(text, return_tensors="pt"))
        fingerprints.append(torch.stack([logits.float().softmax(-1).mean(0) for logits, _ in calls]).numpy())
        for layer, (_, chosen) in enumerate(calls):
            load[layer] += torch.bincount(chosen.flatten(), minlength=load.shape[1])
    for handle in handles:
        handle.remove()
    return np.stack(fingerprints), load.numpy()


def nearest_neighbour_accuracy(distances: np.ndarray, labels: np.ndarray, groups: np.ndarray) -> float:
    """Share of samples whose nearest sample of another group has the same label.

    Parameters
    ----------
    distances
        [N, N].
    labels, groups
        [N]; with a group for every sample, this is leave-one-out.
    """
    allowed = np.where(groups[:, None] == groups[None, :], np.inf, distances)
    return float((labels[allowed.argmin(axis=1)] == labels).mean())


def evaluate(work: Path, folder: Path) -> dict[str, Any]:
    """Measure a trained model on the held-out documents and samples."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    training = {name: np.load(work / "tokens" / f"{name}-train.npy") for name in (*NAMES, CHAT)}
    everything = _unigram(np.concatenate(list(training.values())))
    losses = {}
    for name in NAMES:
        held_out = np.load(work / "tokens" / f"{name}-held-out.npy")
        count, (ours, own, mixed) = _losses(model, held_out, _unigram(training[name]), everything)
        fitted = _losses(model, training[name])[1][0]
        losses[name] = {"tokens": count, "model": ours, "unigram of the domain": own, "unigram of all": mixed,
                        "model on training text": fitted, "training tokens": len(training[name])}  # fmt: skip
    samples = jsonl.read(work / "heldout.jsonl")
    fingerprints, load = _routing(model, tokenizer, [sample["text"] for sample in samples])
    labels = np.array([sample["domain"] for sample in samples])
    apart = {"leave one out": np.arange(len(samples)), "leave document out": np.array([s["group"] for s in samples])}
    accuracy = {}
    for ground in ("index", "discrete"):
        distances = np.array(moefps.wasserstein_matrix(fingerprints, ground=ground))
        accuracy[ground] = {name: nearest_neighbour_accuracy(distances, labels, g) for name, g in apart.items()}
    share = load / load.sum(axis=1, keepdims=True)
    return {
        "losses": losses,
        "samples": len(samples),
        "documents": len({sample["group"] for sample in samples}),
        "dead experts": (load == 0).sum(axis=1).tolist(),
        "smallest share": share.min(axis=1).tolist(),
        "largest share": share.max(axis=1).tolist(),
        "1-NN accuracy": accuracy,
    }


def shortcomings(report: dict[str, Any]) -> list[str]:
    """List what the model lacks of what it must show; empty where it will do."""
    found = [
        f"{name}: loss {row['model']:.2f} is not under 0.75 of a unigram model's {row['unigram of the domain']:.2f}"
        for name, row in report["losses"].items()
        if row["model"] > 0.75 * row["unigram of the domain"]
    ]
    found += [f"layer {layer}: {dead} dead experts" for layer, dead in enumerate(report["dead experts"]) if dead]
    for ground, by_rule in report["1-NN accuracy"].items():
        found += [f"1-NN, {ground}, {rule}: {value:.3f} < 0.9" for rule, value in by_rule.items() if value < 0.9]
    return found
