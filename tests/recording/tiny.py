"""How a tiny model of a family is built, and what it is fed."""

from __future__ import annotations

import dataclasses
import importlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
import transformers
from torch import Tensor, nn

OLD = tuple(int(part) for part in transformers.__version__.split(".")[:2]) < (5, 23)

N_EXPERTS = 8
VOCABULARY = 64
# Text tokens are drawn from here; the rest marks images, ends and padding.
TEXT = (3, 50)
IMAGE, VIDEO, AUDIO = 60, 61, 62
N_CANVAS = 4

# Every option of a configuration that has one of these names gets this value.
SIZES: Mapping[str, Any] = {
    # Text. Key-value heads are as many as heads: five families fail on others once a mask is given.
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "head_dim": 8,
    "max_position_embeddings": 128,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "initializer_range": 0.3,
    # Experts.
    "num_experts": N_EXPERTS,
    "num_local_experts": N_EXPERTS,
    "n_routed_experts": N_EXPERTS,
    "moe_num_experts": N_EXPERTS,
    "num_experts_per_tok": 2,
    "moe_topk": 2,
    "moe_k": 2,
    "top_k_experts": 2,
    "moe_intermediate_size": 16,
    "shared_expert_intermediate_size": 16,
    "shared_intermediate_size": 16,
    "n_shared_experts": 1,
    "num_shared_experts": 1,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
    "num_dense_layers": 1,
    "is_moe": True,
    "enable_moe_block": True,
    # Attention of many kinds. Sparse ones choose among all positions, so that padding changes nothing.
    "kv_lora_rank": 8,
    "q_lora_rank": 8,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 8,
    "index_topk": 64,
    "index_head_dim": 8,
    "index_n_heads": 2,
    "sliding_window": 64,
    "linear_key_head_dim": 8,
    "linear_value_head_dim": 8,
    "linear_num_key_heads": 2,
    "linear_num_value_heads": 4,
    "linear_head_dim": 8,
    "linear_num_heads": 4,
    "mamba_n_heads": 4,
    "mamba_d_head": 16,
    "mamba_d_state": 8,
    "mamba_chunk_size": 8,
    # Images and sound.
    "depth": 2,
    "num_heads": 4,
    "out_hidden_size": 32,
    "patch_size": 4,
    "image_size": 16,
    "spatial_merge_size": 2,
    "temporal_patch_size": 2,
    "num_position_embeddings": 16,
    "deepstack_visual_indexes": [0, 1],
    "num_mel_bins": 8,
    "encoder_layers": 1,
    "encoder_attention_heads": 2,
    "encoder_ffn_dim": 16,
    "output_dim": 32,
    "downsample_hidden_size": 8,
    "d_model": 16,
    "projection_intermediate_size": 32,
    "projector_hidden_size": 32,
    "projection_hidden_dim": 32,
    "text_hidden_size": 32,
    "adapter_in_dim": 32,
    "adapter_out_dim": 32,
    "adapter_input_size": 32,
    "position_embedding_size": 64,
    "feature_size": 8,
    "output_channels": 8,
    "image_token_id": IMAGE,
    "image_token_index": IMAGE,
    "video_token_id": VIDEO,
    "video_token_index": VIDEO,
    "audio_token_id": AUDIO,
}

_BUILT: dict[str, nn.Module] = {}


@dataclass(frozen=True)
class Family:
    """A family, or a part of one.

    Attributes
    ----------
    name : str
        The folder below ``transformers/models``, for a part followed by ``/`` and its name.
    model : str
        The model class that is built.
    options : mapping
        Options of its configuration, over `SIZES`.
    notes : str
        What is unlike other families.
    """

    name: str
    model: str
    options: Mapping[str, Any] = field(default_factory=dict)
    notes: str = ""

    @property
    def folder(self) -> str:
        """The folder below ``transformers/models``."""
        return self.name.partition("/")[0]

    @property
    def has_decoder(self) -> bool:
        """Whether an encoder and a decoder read texts of their own."""
        return self.folder in {"switch_transformers", "nllb_moe", "diffusion_gemma"}

    def build(self) -> nn.Module:
        """Return the model, in evaluation mode and the same on every call; leave it as it was found."""
        if self.name not in _BUILT:
            _BUILT[self.name] = self.build_anew()
        return _BUILT[self.name]

    def build_anew(self) -> nn.Module:
        """Return a model of one's own, equal to that of `build`."""
        if OLD:
            pytest.skip(f"the families are those of transformers 5.23 and newer, this is {transformers.__version__}")
        model_class = getattr(_modeling(self.folder), self.model)
        torch.manual_seed(0)
        # What a family leaves unset is filled with NaN, found, and set.
        torch.use_deterministic_algorithms(True)
        try:
            model = model_class(_config(model_class.config_class, self.options))
        finally:
            torch.use_deterministic_algorithms(False)
        _spread(model)
        return model.eval()

    def tokens(self, sample: int, length: int) -> Tensor:
        """Token ids of a sample, the same in whatever batch it stands; shape [length]."""
        generator = torch.Generator().manual_seed(sample)
        return torch.randint(*TEXT, (length,), generator=generator)

    def inputs(self, lengths: Sequence[int], padding_side: str = "right", first: int = 0) -> dict[str, Tensor]:
        """Lay samples `first`, `first` + 1, … side by side, as the model's forward takes them.

        A mask is there only where something is padded. A decoder is fed a text about half as long.
        """
        texts = [self.tokens(first + i, length) for i, length in enumerate(lengths)]
        ids, mask = _pad(texts, padding_side)
        inputs = {"input_ids": ids}
        if not mask.all():
            inputs["attention_mask"] = mask
        if self.folder == "diffusion_gemma":
            inputs["decoder_input_ids"] = torch.stack(
                [self.tokens(1000 + first + i, N_CANVAS) for i in range(len(ids))]
            )
            if not mask.all():
                canvas = torch.ones_like(inputs["decoder_input_ids"])
                inputs["decoder_attention_mask"] = torch.cat([mask, canvas], 1)
        elif self.has_decoder:
            answers = [self.tokens(1000 + first + i, (length + 1) // 2) for i, length in enumerate(lengths)]
            inputs["decoder_input_ids"], mask = _pad(answers, "right")
            if not mask.all():
                inputs["decoder_attention_mask"] = mask
        if self.name == "qwen3_omni_moe/talker":
            table = torch.randn(VOCABULARY, 32, generator=torch.Generator().manual_seed(7))
            inputs["inputs_embeds"] = table[inputs.pop("input_ids")]
        return inputs

    def image_inputs(self, n_samples: int = 1) -> dict[str, Tensor]:
        """Samples of eleven tokens; four of the first stand for an image of 16 patches."""
        ids = torch.stack([self.tokens(i, 11) for i in range(n_samples)])
        ids[0, 3:7] = IMAGE
        is_image = (ids == IMAGE).to(torch.int64)
        n_frames = 1 if self.name in {"dots3_note", "ernie4_5_vl_moe"} else 2
        patches = torch.randn(16, 3 * n_frames * 4 * 4, generator=torch.Generator().manual_seed(0))
        inputs = {"input_ids": ids, "pixel_values": patches, "image_grid_thw": torch.tensor([[1, 4, 4]])}
        if self.name != "dots3_note":
            inputs["mm_token_type_ids"] = is_image
        if self.name == "ernie4_5_vl_moe":
            # The marks around an image count as image here.
            inputs["moe_mm_token_type_ids"] = is_image.clone()
            inputs["moe_mm_token_type_ids"][0, [2, 7]] = 1
        return inputs

    def valid(self, inputs: Mapping[str, Tensor], stack: str | None = None) -> Tensor:
        """Which positions of `inputs` are tokens and no padding; bool, shape [B, S]."""
        if stack == "decoder":
            ids = inputs["decoder_input_ids"]
            mask = inputs.get("decoder_attention_mask", torch.ones_like(ids))
            return mask[:, -ids.shape[1] :].bool()
        ids = inputs["input_ids"] if "input_ids" in inputs else inputs["inputs_embeds"][..., 0]
        return inputs.get("attention_mask", torch.ones_like(ids)).bool()


def _pad(texts: Sequence[Tensor], side: str) -> tuple[Tensor, Tensor]:
    """Lay token ids side by side, with their mask."""
    longest = max(len(text) for text in texts)
    ids, mask = torch.zeros(2, len(texts), longest, dtype=torch.int64)
    for row, text in enumerate(texts):
        where = slice(0, len(text)) if side == "right" else slice(longest - len(text), None)
        ids[row, where], mask[row, where] = text, 1
    return ids, mask


def _modeling(folder: str) -> Any:
    return importlib.import_module(f"transformers.models.{folder}.modeling_{folder}")


def _config(config_class: type, options: Mapping[str, Any]) -> Any:
    """Make a configuration with small sizes, and the same of the configurations in it."""
    names = {entry.name for entry in dataclasses.fields(config_class)}
    chosen = {name: value for name, value in SIZES.items() if name in names} | dict(options)
    for name, part in getattr(config_class, "sub_configs", {}).items():
        if dataclasses.is_dataclass(part) and not chosen.get(name, {}).get("model_type"):
            chosen[name] = _config(part, chosen.get(name, {}))
    return config_class(**chosen)


def _spread(model: nn.Module) -> None:
    """Give what starts at 0 or 1 values as training would, so that biases and scales matter."""
    for name, tensor in [*model.named_parameters(), *model.named_buffers()]:
        last = name.rpartition(".")[2]
        with torch.no_grad():
            if last in {"e_score_correction_bias", "expert_bias"}:
                tensor.normal_(0, 0.2)
            elif last == "balancing_biases":
                tensor.normal_(0, 0.05)
            elif last == "per_expert_scale":
                tensor.uniform_(-0.5, 1.5)
            elif tensor.is_floating_point() and tensor.ndim > 1 and (tensor.isnan().any() or not tensor.any()):
                tensor.normal_(0, 0.3)
            elif last == "tid2eid":
                order = torch.rand(len(tensor), N_EXPERTS).argsort(-1)
                tensor.copy_(order[:, : tensor.shape[1]])


def declared_families() -> Iterator[tuple[str, list[type]]]:
    """Go through the families for which transformers declares a router: folder, and the declared classes."""
    for path in sorted((Path(transformers.__file__).parent / "models").glob("*/modeling_*.py")):
        if "router_logits" not in path.read_text(encoding="utf-8"):
            continue
        module = importlib.import_module(f"transformers.models.{path.parent.name}.{path.stem}")
        classes: dict[type, None] = {}
        for owner in vars(module).values():
            recorders = getattr(owner, "_can_record_outputs", None)
            if isinstance(owner, type) and owner.__module__ == module.__name__ and isinstance(recorders, dict):
                found = recorders.get("router_logits", ())
                for recorder in found if isinstance(found, (list, tuple)) else (found,):
                    classes[getattr(recorder, "target_class", recorder)] = None
        if classes:
            yield path.parent.name, list(classes)
