"""Every family of transformers that has routers: what is captured is what the model did."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from moefps.recording.readings import Reading
from moefps.recording.routers import Router, find_routers, one_by_one_reason
from moefps.recording.scoring import full_probabilities, has_full_probabilities
from recording.executed import WITHOUT_IDS, Watch, block_of, changed_by, ids_given, parent, table
from recording.families import BY_NAME, FAMILIES, Family, declared_families
from recording.tiny import OLD

LENGTHS = (7, 11, 4)
# Families where a sample's routing depends on the batch, or on where the padding is.
ALONE = {"doge", "diffusion_gemma"}
# Declared by transformers, and a part of none of its models.
NEVER_BUILT = {"Qwen3OmniMoeTextTopKRouter"}
# Declared, and blocks with routers inside.
BLOCKS = {"Ernie4_5_VLMoeMoeBlock", "JetMoeAttention"}


@pytest.fixture(params=[family.name for family in FAMILIES])
def family(request: pytest.FixtureRequest) -> Family:
    return BY_NAME[request.param]


@torch.no_grad()
def record(model: nn.Module, inputs: dict[str, Tensor]) -> dict[str, tuple[Router, Reading]]:
    """What every router that ran said in one forward."""
    found: dict[str, tuple[Router, Reading]] = {}
    handles = []
    for router in find_routers(model):

        def emit(reading: Reading, router: Router = router) -> None:
            assert router.path not in found, "a router spoke twice in one forward"
            found[router.path] = router, reading

        handles += router.attach(emit)
    try:
        model(**inputs)
    finally:
        for handle in handles:
            handle.remove()
    return found


def test_every_family_of_transformers_is_here() -> None:
    """A new family must be looked at; how, is said in families.py."""
    known = {family.folder for family in FAMILIES}
    found = dict(declared_families())
    assert len(found) >= (60 if OLD else 72)
    assert OLD or known <= found.keys(), f"no longer in transformers: {sorted(known - found.keys())}"
    new = sorted(found.keys() - known)
    assert not new, (
        f"transformers declares routers for {new}, which tests/recording/families.py does not build: give each a tiny "
        f"configuration there; if its router does not return (logits, weights, ids), it also needs an entry in "
        f"EXCEPTIONS of moefps.recording.readings"
    )


def test_every_declared_router_class_is_found_in_a_model() -> None:
    declared = {cls.__name__ for _, classes in declared_families() for cls in classes}
    found = {type(router.module).__name__ for family in FAMILIES for router in find_routers(family.build())}
    assert declared - found - BLOCKS - NEVER_BUILT == set()
    assert found - declared == {"DeepseekV4HashRouter", "Dots3NoteVisionTopKRouter", "Ernie4_5_VLMoeMoeTopKRouter"}


def test_routers_and_their_numbers_are_told_before_anything_ran(family: Family) -> None:
    model = family.build()
    routers = find_routers(model)
    assert routers
    ran = record(model, family.inputs(LENGTHS))
    for router in routers:
        assert model.get_submodule(router.path) is router.module
        assert f".{router.layer}." in f".{router.path}."
        assert router.routing_type == "token_choice"
        assert not router.derived
        assert router.signed_weights == (family.name in {"gemma4", "diffusion_gemma"})
        if router.path not in ran:
            # Only routers of images have nothing to say about text.
            assert family.name in {"ernie4_5_vl_moe", "dots3_note"}
            assert router.stack == "vision" or not router.covers(family.inputs(LENGTHS)).any()
            continue
        reading = ran[router.path][1]
        assert reading.ids.shape == reading.weights.shape
        assert reading.ids.shape[1] == router.top_k
        assert reading.logits is not None
        assert reading.logits.shape == (len(reading.ids), router.n_experts)
        assert reading.ids.max() < router.n_experts
        assert reading.ids.min() >= -1
        assert not reading.ids.requires_grad
        assert not reading.weights.requires_grad
        assert not reading.logits.requires_grad
        assert reading.weights.isfinite().all()
        assert reading.logits.isfinite().all()


def test_routers_are_in_the_order_of_their_calls(family: Family) -> None:
    ran = list(record(family.build(), family.inputs(LENGTHS)))
    assert ran == [router.path for router in find_routers(family.build()) if router.path in ran]


@torch.no_grad()
def test_ids_are_those_that_the_experts_executed(family: Family) -> None:
    """By a look at the arguments of the experts, or by changing each expert and seeing who changes."""
    model, inputs = family.build(), family.inputs(LENGTHS)
    paths = {router.path: block_of(router.path, family.name) for router in find_routers(model)}
    if family.name not in WITHOUT_IDS:
        paths = {path: parent(path) + ".experts" for path in paths}
    watch = Watch()
    with watch.on(model, paths):
        ran = record(model, inputs)
    n_skipped = 0
    for path, (router, reading) in ran.items():
        (args, kwargs, _) = watch.calls[path][0]
        if family.name in WITHOUT_IDS:
            changed = changed_by(model.get_submodule(paths[path]), args, kwargs, router.n_experts)
            if family.name == "nllb_moe":
                # They take the router's mask for ids: whatever it chose, experts 0 and 1 run. When this fails, they
                # are mended, and the line below holds for them too.
                assert not changed[:, 2:].any()
                continue
            assert torch.equal(table(reading.ids, router.n_experts), changed)
            continue
        ids, weights = ids_given(args, kwargs)
        # The class of zaya that skips is given to its experts as expert 0, with weight 0.
        skipped = reading.ids == (router.n_experts - 1 if family.name == "zaya" else -2)
        n_skipped += int(skipped.sum())
        assert torch.equal(torch.where(skipped, 0, reading.ids), ids)
        assert (weights[skipped] == 0).all()
    assert (n_skipped > 0) == (family.name == "zaya")


@torch.no_grad()
def test_weights_are_those_that_the_router_returned(family: Family) -> None:
    model, inputs = family.build(), family.inputs(LENGTHS)
    watch = Watch()
    with watch.on(model, {router.path: router.path for router in find_routers(model)}):
        ran = record(model, inputs)
    for path, (_router, reading) in ran.items():
        output = watch.calls[path][0][2]
        if family.name in {"dbrx", "doge", "jetmoe"}:
            # Not handed out, or in another order: the weights of all rows, by the rule of the family.
            logits = (output if family.name == "dbrx" else reading.logits).float()
            p = logits.softmax(-1) if family.name == "dbrx" else logits
            expected = p.gather(-1, reading.ids)
            expected = expected / expected.sum(-1, keepdim=True) if family.name == "dbrx" else expected.softmax(-1)
            torch.testing.assert_close(reading.weights, expected, rtol=1e-5, atol=1e-6)
            if family.name == "jetmoe":
                assert torch.equal(reading.weights.flatten().sort().values, output[2].sort().values)
            continue
        if family.name == "llama4":
            expected, logits = output[0].gather(-1, reading.ids), output[1]
            assert (table(reading.ids, reading.logits.shape[1]) == (output[0] != 0)).all()
        elif family.name in {"switch_transformers", "nllb_moe"}:
            logits = output[2].flatten(0, -2)
            empty = reading.ids < 0
            given = output[1].flatten(0, -2)
            given = given if family.name == "switch_transformers" else given.gather(-1, reading.ids.clamp(min=0))
            expected = given.masked_fill(empty, 0)
        else:
            logits, expected = output[0], output[1]
        assert torch.equal(reading.weights, expected)
        assert torch.equal(reading.logits, logits)


def test_a_padded_batch_gives_what_each_sample_gives_alone(family: Family) -> None:
    """Rows are sample after sample, position after position, and padding changes nothing."""
    model, inputs = family.build(), family.inputs(LENGTHS)
    together = record(model, inputs)
    alone = [record(model, family.inputs([length], first=i)) for i, length in enumerate(LENGTHS)]
    n_different = 0
    for path, (router, reading) in together.items():
        valid = family.valid(inputs, router.stack)
        for i, one in enumerate(alone):
            rows = valid.flatten() & (torch.arange(len(LENGTHS)).repeat_interleave(valid.shape[1]) == i)
            expected = one[path][1]
            assert rows.sum() == len(expected.ids)
            if family.name in ALONE:
                n_different += int((reading.ids[rows] != expected.ids).any())
                continue
            assert torch.equal(reading.ids[rows], expected.ids)
            torch.testing.assert_close(reading.weights[rows], expected.weights, rtol=1e-4, atol=1e-5)
            torch.testing.assert_close(reading.logits[rows], expected.logits, rtol=1e-4, atol=1e-4)
    # Those that are not neutral say so, and only those.
    assert (one_by_one_reason(model) is not None) == (family.name in ALONE)
    assert (n_different > 0) == (family.name in ALONE)


def test_scoring_is_what_makes_weights_from_logits(family: Family) -> None:
    """The weights of a token are in the ratio of its scores."""
    model = family.build()
    for path, (router, reading) in record(model, family.inputs(LENGTHS)).items():
        if not has_full_probabilities(router.scoring):
            assert family.name == "phimoe"
            continue
        full = full_probabilities(reading.logits, router.scoring)
        torch.testing.assert_close(full.sum(-1), torch.ones(len(full)))
        kept = (reading.ids >= 0) & (reading.weights != 0)
        share = reading.weights.float() / full.gather(-1, reading.ids.clamp(min=0))
        if family.name in {"gemma4", "diffusion_gemma"}:
            share = share / model.get_submodule(path).per_expert_scale[reading.ids]
        largest = share.masked_fill(~kept, -torch.inf).amax(-1)
        smallest = share.masked_fill(~kept, torch.inf).amin(-1)
        some = kept.any(-1)
        if reading.ids.shape[1] > 1:
            torch.testing.assert_close(largest[some], smallest[some], rtol=1e-4, atol=1e-5)
        else:
            torch.testing.assert_close(share[kept], torch.ones(int(kept.sum())))
        assert (router.scoring == "hash") == (type(router.module).__name__ == "DeepseekV4HashRouter")
        assert (router.scoring == "probabilities") == router.signed_weights
        if router.scoring == "softmax_topk":
            torch.testing.assert_close(
                reading.weights.sum(-1) * (router.top_k if family.name == "openai_privacy_filter" else 1),
                torch.ones(len(full)),
            )


@torch.no_grad()
def test_nllb_takes_the_two_largest() -> None:
    """With room for all, both experts of a token are those of the two largest logits, in this order."""
    family = BY_NAME["nllb_moe"]
    inputs = family.inputs(LENGTHS)
    for router, reading in record(family.build(), inputs).values():
        valid = family.valid(inputs, router.stack).flatten()
        two = reading.logits.topk(2, -1)
        assert torch.equal(reading.ids[valid], two.indices[valid])
        torch.testing.assert_close(reading.weights[valid], functional.normalize(two.values.exp(), 1, -1)[valid])


@torch.no_grad()
def test_dropped_tokens_have_empty_slots() -> None:
    """An expert of switch takes two tokens of a sequence, those of nllb a share of the batch."""
    switch = BY_NAME["switch_transformers"]
    inputs = switch.inputs([11, 11])
    for router, reading in record(switch.build(), inputs).values():
        ids = reading.ids.view(2, -1)
        chosen = reading.logits.argmax(-1).view(2, -1)
        for row, all_of_row in zip(ids, chosen, strict=True):
            for expert in range(router.n_experts):
                wanted = (all_of_row == expert).nonzero()[:, 0]
                assert torch.equal((row == expert).nonzero()[:, 0], wanted[:2])
        assert (reading.ids == -1).any()
        assert (reading.weights[reading.ids == -1] == 0).all()
        assert (reading.weights[reading.ids != -1] > 0).all()
    model = BY_NAME["nllb_moe"].build_anew()
    for router in find_routers(model):
        router.module.moe_eval_capacity_token_fraction = 0.2
    assert "capacity" in one_by_one_reason(model)
    n_empty = 0
    for router, reading in record(model, BY_NAME["nllb_moe"].inputs([11, 11])).values():
        empty = reading.ids < 0
        n_empty += int(empty.sum())
        assert (reading.weights[empty] == 0).all()
        assert (reading.weights[~empty] > 0).all()
        for expert in range(router.n_experts):
            assert (reading.ids == expert).sum() <= -(-len(reading.ids) // 5)
    assert n_empty > 0


@torch.no_grad()
def test_experts_that_do_nothing_are_the_last_ones() -> None:
    passive = {
        family.name: {router.passive_experts for router in find_routers(family.build())} - {0} for family in FAMILIES
    }
    assert {name: found for name, found in passive.items() if found} == {"longcat_flash": {4}, "zaya": {1}}
    longcat = BY_NAME["longcat_flash"]
    ran = record(longcat.build(), longcat.inputs(LENGTHS))
    assert any((reading.ids >= 8).any() for _, reading in ran.values())
    for router, reading in record(BY_NAME["zaya"].build(), BY_NAME["zaya"].inputs(LENGTHS)).values():
        biased = reading.logits.softmax(-1) + router.module.balancing_biases
        assert torch.equal(reading.ids[:, 0], biased.argmax(-1))


def test_hash_layers_look_up_their_experts() -> None:
    family = BY_NAME["deepseek_v4"]
    inputs = family.inputs(LENGTHS)
    first, *others = record(family.build(), inputs).values()
    assert [router.scoring for router, _ in (first, *others)] == ["hash", "sqrt_softplus", "sqrt_softplus"]
    assert torch.equal(first[1].ids, first[0].module.tid2eid[inputs["input_ids"].flatten()])


def test_stacks() -> None:
    stacks = {family.name: [router.stack for router in find_routers(family.build())] for family in FAMILIES}
    assert {name: found for name, found in stacks.items() if set(found) != {None}} == {
        "diffusion_gemma": ["encoder"] * 2 + ["decoder"] * 2,
        "dots3_note": [None, None, "vision", "vision"],
        "nllb_moe": ["encoder", "decoder", "decoder"],
        "switch_transformers": ["encoder", "decoder", "decoder"],
    }


@torch.no_grad()
def test_bfloat16_models(family: Family) -> None:
    """Ids are the model's own, so that rounding cannot part them from what ran."""
    model = family.build_anew().to(torch.bfloat16)
    if family.name == "inkling2":
        # As from_pretrained keeps it.
        for router in find_routers(model):
            router.module.float()
    inputs = family.inputs(LENGTHS)
    if "inputs_embeds" in inputs:
        inputs["inputs_embeds"] = inputs["inputs_embeds"].bfloat16()
    names = {router.path: parent(router.path) + ".experts" for router in find_routers(model)}
    watch = Watch()
    with watch.on(model, {} if family.name in WITHOUT_IDS else names):
        ran = record(model, inputs)
    for path, (router, reading) in ran.items():
        assert reading.weights.dtype in {torch.bfloat16, torch.float32}
        if family.name not in WITHOUT_IDS:
            ids, _ = ids_given(*watch.calls[path][0][:2])
            skipped = reading.ids == (router.n_experts - 1 if family.name == "zaya" else -2)
            assert torch.equal(torch.where(skipped, 0, reading.ids), ids)
        elif family.name == "llama4":
            assert table(reading.ids, router.n_experts).sum(-1).eq(router.top_k).all()
