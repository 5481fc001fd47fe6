"""Which models a gap inside a sequence makes no difference to: measured on every family, and told beforehand."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch", reason="capture needs torch, which is not installed")
pytest.importorskip("transformers", reason="capture needs transformers, which is not installed")

from moefps.recording.collecting import Collector  # noqa: E402
from moefps.recording.neutrality import gap_reason  # noqa: E402
from moefps.recording.routers import find_routers  # noqa: E402
from recording.families import FAMILIES  # noqa: E402

# Below every sliding window of the families: a window counts places, gaps included, in both conditions alike.
N = 60
# Refused though this does not show it: convolutions that zero what is masked see no further than the gap here.
CAREFUL = {"lfm2_moe", "zaya"}
TEXTS = [family for family in FAMILIES if not family.has_decoder and family.name != "qwen3_omni_moe/talker"]


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def routing(model, family, kept):
    """Router logits of the tokens, gaps before and between them; of the gaps' positions only those kept are fed."""
    ids, positions = family.tokens(0, N)[None], torch.arange(N)[None]
    mask = torch.ones_like(ids)
    mask[0, :6] = mask[0, 15:44] = 0
    routers = find_routers(model, [])
    with torch.no_grad(), Collector(routers, kind=None, keep_logits=True) as collector:
        collector.begin()
        model(input_ids=ids[:, kept], attention_mask=mask[:, kept], position_ids=positions[:, kept], use_cache=False)
        given = [reading.logits for readings in collector._readings for reading in readings]
    given = [logits for logits in given if logits is not None and len(logits) == int(kept.sum())]
    assert given
    return torch.cat([logits[mask[0, kept].bool()].float().flatten() for logits in given])


@pytest.mark.parametrize("family", TEXTS, ids=[family.name for family in TEXTS])
def test_a_gap_is_neutral_or_said_not_to_be(family):
    model = family.build()
    shorter = torch.ones(N, dtype=torch.bool)
    shorter[1:5] = shorter[16:43] = False
    difference = (routing(model, family, shorter) - routing(model, family, ~torch.zeros_like(shorter))).abs().max()
    if gap_reason(model) is None:
        assert difference < 2e-5
    else:
        assert difference > 0.01 or family.name in CAREFUL
