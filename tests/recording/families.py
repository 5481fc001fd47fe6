"""A tiny model of every family for which transformers declares a router: random weights, two to five layers.

A family that a newer transformers brings is not here, and `test_families.py` says so: give it an entry (its options are
what its configuration needs to be small and to have experts), look at what its router returns, and, where that is not
``(logits, weights, ids)``, add it to ``EXCEPTIONS`` in ``moefps.recording.readings``.
"""

from __future__ import annotations

from recording.tiny import IMAGE, N_CANVAS, N_EXPERTS, VOCABULARY, Family, declared_families

__all__ = ["BY_NAME", "FAMILIES", "IMAGE", "Family", "declared_families"]

DENSE_FIRST = ["dense", "sparse", "sparse"]
MROPE = {"rope_type": "default", "rope_theta": 1e4, "mrope_section": [1, 1, 2]}
MIXED = ["linear_attention", "full_attention", "linear_attention"]
SHORT = {"d_rel": 4, "rel_extent": 16, "swa_num_attention_heads": 4, "swa_num_key_value_heads": 4, "swa_head_dim": 8}

FAMILIES = (
    Family("afmoe", "AfmoeForCausalLM"),
    Family("aria", "AriaTextForCausalLM"),
    Family("axk1", "AXK1ForCausalLM"),
    Family("axk2", "AXK2ForCausalLM"),
    Family("bailing_hybrid", "BailingHybridForCausalLM", {"layer_group_size": 3}),
    Family("beam", "BeamForCausalLM", {"mlp_layer_types": DENSE_FIRST}),
    Family("cohere2_moe", "Cohere2MoeForCausalLM"),
    Family(
        "dbrx",
        "DbrxForCausalLM",
        {
            "d_model": 32,
            "n_heads": 4,
            "n_layers": 2,
            "max_seq_len": 128,
            "attn_config": {"model_type": "", "kv_n_heads": 4, "rope_theta": 10000.0, "clip_qkv": 8},
            "ffn_config": {"hidden_size": 32, "ffn_hidden_size": 16, "moe_num_experts": N_EXPERTS, "moe_top_k": 2},
        },
    ),
    Family("deepseek_ocr2", "DeepseekOcr2ForConditionalGeneration", {"text_config": {"mlp_layer_types": DENSE_FIRST}}),
    Family("deepseek_v2", "DeepseekV2ForCausalLM"),
    Family("deepseek_v3", "DeepseekV3ForCausalLM"),
    Family("deepseek_v32", "DeepseekV32ForCausalLM"),
    Family(
        "deepseek_v4",
        "DeepseekV4ForCausalLM",
        {
            "o_groups": 2,
            "o_lora_rank": 8,
            "hc_mult": 2,
            "sliding_window": 16,
            "mlp_layer_types": ["hash_moe", "moe", "moe"],
        },
    ),
    Family(
        "diffusion_gemma",
        "DiffusionGemmaForBlockDiffusion",
        {
            "canvas_length": N_CANVAS,
            "text_config": {"num_hidden_layers": 2, "layer_types": ["sliding_attention", "full_attention"]},
            "vision_config": {
                "model_type": "gemma4_vision",
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "num_key_value_heads": 4,
                "head_dim": 8,
                "patch_size": 4,
                "position_embedding_size": 64,
            },
        },
        notes="the decoder reads a canvas, and its own routers share no rows with the encoder's",
    ),
    Family("doge", "DogeForCausalLM", {"num_experts": 16}, notes="its logits are split across the batch"),
    Family("dots1", "Dots1ForCausalLM"),
    Family(
        "dots3_note",
        "Dots3NoteForConditionalGeneration",
        {
            "text_config": {"shared_experts_intermediate_size": 16, "layer_types": ["indexed_attention"] * 3},
            "vision_config": {"mlp_layer_types": DENSE_FIRST},
        },
        notes="routers in the vision tower, whose rows are patches",
    ),
    Family("ernie4_5_moe", "Ernie4_5_MoeForCausalLM"),
    Family(
        "ernie4_5_vl_moe",
        "Ernie4_5_VLMoeForConditionalGeneration",
        {
            "image_start_token_id": 56,
            "image_end_token_id": 57,
            "video_start_token_id": 58,
            "video_end_token_id": 59,
            "text_config": {"moe_intermediate_size": [16, 16], "rope_parameters": MROPE},
        },
        notes="two routers a layer, one for text and one for images",
    ),
    Family("exaone_moe", "ExaoneMoeForCausalLM"),
    Family("flex_olmo", "FlexOlmoForCausalLM"),
    Family("flint", "FlintForCausalLM", {"mlp_only_layers": [0]}),
    Family(
        "gemma4",
        "Gemma4ForCausalLM",
        {
            "vocab_size_per_layer_input": VOCABULARY,
            "hidden_size_per_layer_input": 8,
            "global_head_dim": 8,
            "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        },
    ),
    Family("glm4_moe", "Glm4MoeForCausalLM"),
    Family("glm4_moe_lite", "Glm4MoeLiteForCausalLM"),
    Family(
        "glm4v_moe",
        "Glm4vMoeForConditionalGeneration",
        {"text_config": {"rope_parameters": MROPE | {"mrope_section": [1, 0, 1], "partial_rotary_factor": 0.5}}},
    ),
    Family(
        "glm5_next",
        "Glm5NextForConditionalGeneration",
        {
            "text_config": {
                "qk_rope_head_dim": 0,
                "head_dim": 0,
                "layer_types": ["linear_attention", "indexed_attention", "linear_attention"],
                "mlp_layer_types": DENSE_FIRST,
            }
        },
    ),
    Family("glm_moe_dsa", "GlmMoeDsaForCausalLM"),
    Family("gpt_oss", "GptOssForCausalLM"),
    Family("granitemoe", "GraniteMoeForCausalLM"),
    Family("granitemoe_swa", "GraniteMoeSWAForCausalLM"),
    Family("granitemoehybrid", "GraniteMoeHybridForCausalLM", {"layer_types": ["mamba", "attention", "mamba"]}),
    Family("granitemoeshared", "GraniteMoeSharedForCausalLM"),
    Family("hunyuan_v1_moe", "HunYuanMoEV1ForCausalLM"),
    Family("hy_v3", "HYV3ForCausalLM"),
    Family("hy_v4", "HYV4ForCausalLM"),
    Family("inkling", "InklingForCausalLM", SHORT | {"sliding_window_size": 64, "mlp_layer_types": DENSE_FIRST}),
    Family("inkling2", "Inkling2ForCausalLM", SHORT | {"sliding_window_size": 64}),
    Family("jamba", "JambaForCausalLM", {"attn_layer_period": 2, "attn_layer_offset": 0, "expert_layer_offset": 0}),
    Family("jetmoe", "JetMoeForCausalLM", {"kv_channels": 8}, notes="two routers a layer: attention, then MLP"),
    Family("kimi_linear", "KimiLinearForCausalLM", {"layer_types": MIXED}),
    Family("kolibri1", "Kolibri1ForCausalLM"),
    Family("laguna", "LagunaForCausalLM"),
    Family("lfm2_moe", "Lfm2MoeForCausalLM", {"layer_types": ["conv", "full_attention", "conv"]}),
    Family("llama4", "Llama4ForCausalLM", notes="every expert runs, on inputs multiplied by its score"),
    Family(
        "longcat_flash",
        "LongcatFlashForCausalLM",
        {
            "num_layers": 2,
            "ffn_hidden_size": 32,
            "expert_ffn_hidden_size": 16,
            "zero_expert_num": 4,
            "head_dim": 4,
            "moe_topk": 3,
        },
        notes="the last four experts do nothing",
    ),
    Family("mellum", "MellumForCausalLM"),
    Family(
        "mimo_v2_flash",
        "MiMoV2FlashForCausalLM",
        {
            # Sliding layers have twice as many key-value heads.
            "num_key_value_heads": 2,
            "rope_parameters": {
                kind: {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 0.5}
                for kind in ("full_attention", "sliding_attention")
            },
        },
    ),
    Family("minimax", "MiniMaxForCausalLM"),
    Family("minimax_m2", "MiniMaxM2ForCausalLM"),
    Family("minimax_m3_vl", "MiniMaxM3VLForCausalLM"),
    Family("mistral4", "Mistral4ForCausalLM"),
    Family(
        "mistral_large4",
        "MistralLarge4ForConditionalGeneration",
        {
            "vision_config": {
                "model_type": "pixtral",
                "hidden_size": 32,
                "intermediate_size": 32,
                "num_hidden_layers": 1,
                "num_attention_heads": 4,
                "head_dim": 8,
                "image_size": 16,
                "patch_size": 4,
            }
        },
    ),
    Family("mixtral", "MixtralForCausalLM"),
    Family(
        "muse_spark",
        "MuseSparkForConditionalGeneration",
        {
            "text_config": {"moe_hidden_size": 16},
            "audio_config": {
                "num_hidden_layers": 2,
                "patch_sizes": (2, 2),
                "hidden_sizes": (8, 8),
                "depths": (1, 1),
            },
        },
    ),
    Family(
        "nemotron_h",
        "NemotronHForCausalLM",
        {
            "layers_block_type": ["mamba", "moe", "attention", "moe"],
            "mamba_num_heads": 4,
            "mamba_head_dim": 8,
            "ssm_state_size": 8,
            "n_groups": 2,
            "chunk_size": 8,
            "moe_shared_expert_intermediate_size": 16,
        },
    ),
    Family(
        "nllb_moe",
        "NllbMoeForConditionalGeneration",
        {
            "d_model": 32,
            "encoder_layers": 2,
            "decoder_layers": 2,
            "encoder_attention_heads": 4,
            "decoder_attention_heads": 4,
            "encoder_ffn_dim": 32,
            "decoder_ffn_dim": 32,
            "encoder_sparse_step": 2,
            "decoder_sparse_step": 1,
            "init_std": 0.3,
            "pad_token_id": 0,
            "bos_token_id": 1,
        },
        notes="its experts take the mask for ids, so only the router is right; drops depend on the batch",
    ),
    Family("olmoe", "OlmoeForCausalLM"),
    Family("openai_privacy_filter", "OpenAIPrivacyFilterForTokenClassification"),
    Family("phimoe", "PhimoeForCausalLM"),
    Family("qwen2_moe", "Qwen2MoeForCausalLM"),
    Family("qwen3_5_moe", "Qwen3_5MoeForCausalLM", {"layer_types": MIXED}),
    Family("qwen3_moe", "Qwen3MoeForCausalLM"),
    Family("qwen3_next", "Qwen3NextForCausalLM", {"layer_types": MIXED}),
    Family(
        "qwen3_omni_moe",
        "Qwen3OmniMoeThinkerForConditionalGeneration",
        {"text_config": {"rope_parameters": MROPE}, "vision_start_token_id": 55},
        notes="the thinker",
    ),
    Family(
        "qwen3_omni_moe/talker",
        "Qwen3OmniMoeTalkerModel",
        {"rope_parameters": MROPE, "shared_expert_intermediate_size": 16},
        notes="takes inputs_embeds only",
    ),
    Family("qwen3_vl_moe", "Qwen3VLMoeForConditionalGeneration", {"text_config": {"rope_parameters": MROPE}}),
    Family(
        "qwen4_exp",
        "Qwen4ExpForCausalLM",
        {
            "layer_types": ["linear_attention", "indexed_attention", "linear_attention"],
            "hc_lowrank": 8,
            "hc_count": 2,
            "indexer_n_heads": 2,
            "indexer_kv_heads": 1,
            "indexer_head_dim": 8,
            "indexer_budget": 64,
            "indexer_compress_ratio": 4,
        },
    ),
    Family("solar_open", "SolarOpenForCausalLM"),
    Family(
        "step3p7",
        "Step3p7ForConditionalGeneration",
        {"text_config": {"mlp_layer_types": DENSE_FIRST, "share_expert_dim": 16}},
    ),
    Family(
        "switch_transformers",
        "SwitchTransformersForConditionalGeneration",
        {
            "d_model": 32,
            "d_kv": 8,
            "d_ff": 32,
            "num_layers": 2,
            "num_decoder_layers": 2,
            "num_sparse_encoder_layers": 1,
            "num_sparse_decoder_layers": 2,
            "expert_capacity": 2,
            "decoder_start_token_id": 0,
        },
        notes="an expert takes two tokens of a sequence, the rest is dropped",
    ),
    Family("unlimited_ocr", "UnlimitedOcrForConditionalGeneration"),
    Family("zaya", "ZayaForCausalLM", {"num_experts_per_tok": 1, "router_hidden_size": 8}, notes="skips tokens"),
)

BY_NAME = {family.name: family for family in FAMILIES}
