"""A second opinion: the image model of the package transformers, an independent port of the official code.

Only run here, never copied. The names are those of transformers 5.23.
"""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch

from mask2former_oracle import TOY, TOY_SWIN, moving_waves, toy_network
from vidseg.backbones.resnet import ResNetConfig
from vidseg_trackers.mask2former.clip import query_masks, run_clip
from vidseg_trackers.mask2former.config import Mask2FormerConfig
from vidseg_trackers.mask2former.frames import fit_frame, to_input

transformers = pytest.importorskip("transformers", minversion="5.23.0")

SWIN = "model.pixel_level_module.encoder.swin."
RESNET = "model.pixel_level_module.encoder."
PIXELS = "model.pixel_level_module.decoder."
DECODER = "model.transformer_module."
RENAMES = (
    (r"backbone\.patch_embed\.proj", SWIN + "embeddings.patch_embeddings.projection"),
    (r"backbone\.patch_embed\.norm", SWIN + "embeddings.norm"),
    (r"backbone\.norm(\d)", lambda m: f"model.pixel_level_module.encoder.hidden_states_norms.stage{int(m[1]) + 1}"),
    (r"backbone\.layers", SWIN + "encoder.layers"),
    (r"(blocks\.\d+)\.norm1", r"\1.layernorm_before"),
    (r"(blocks\.\d+)\.norm2", r"\1.layernorm_after"),
    (r"\.attn\.proj", ".attention.o_proj"),
    (r"\.attn\.(relative_position_bias)_table", r".attention.\1.\1_table"),
    (r"\.attn\.(?=qkv)", ".attention."),
    (r"backbone\.stem\.conv1\.norm", RESNET + "embedder.embedder.normalization"),
    (r"backbone\.stem\.conv1", RESNET + "embedder.embedder.convolution"),
    (r"backbone\.res(\d)\.(\d+)\.", lambda m: f"{RESNET}encoder.stages.{int(m[1]) - 2}.layers.{m[2]}."),
    (r"(layers\.\d+\.)conv(\d)\.norm", lambda m: f"{m[1]}layer.{int(m[2]) - 1}.normalization"),
    (r"(layers\.\d+\.)conv(\d)", lambda m: f"{m[1]}layer.{int(m[2]) - 1}.convolution"),
    (r"shortcut\.norm", "shortcut.normalization"),
    (r"shortcut\.weight", "shortcut.convolution.weight"),
    (r"sem_seg_head\.pixel_decoder\.transformer\.encoder", PIXELS + "encoder"),
    (r"sem_seg_head\.pixel_decoder\.transformer\.", PIXELS),
    (r"(encoder\.layers\.\d+)\.norm1", r"\1.self_attn_layer_norm"),
    (r"(encoder\.layers\.\d+)\.norm2", r"\1.final_layer_norm"),
    (r"\.linear(\d)", r".fc\1"),
    (r"sem_seg_head\.pixel_decoder\.input_proj", PIXELS + "input_projections"),
    (r"sem_seg_head\.pixel_decoder\.(adapter_1|layer_1)\.norm", PIXELS + r"\1.1"),
    (r"sem_seg_head\.pixel_decoder\.(adapter_1|layer_1)", PIXELS + r"\1.0"),
    (r"sem_seg_head\.pixel_decoder\.mask_features", PIXELS + "mask_projection"),
    (r"sem_seg_head\.predictor\.class_embed", "class_predictor"),
    (r"sem_seg_head\.predictor\.query_feat", DECODER + "queries_features"),
    (r"sem_seg_head\.predictor\.query_embed", DECODER + "queries_embedder"),
    (r"sem_seg_head\.predictor\.level_embed", DECODER + "level_embed"),
    (r"sem_seg_head\.predictor\.decoder_norm", DECODER + "decoder.layernorm"),
    (r"sem_seg_head\.predictor\.mask_embed\.layers\.(\d)", DECODER + r"decoder.mask_predictor.mask_embedder.\1.0"),
    (r"sem_seg_head\.predictor\.transformer_(self|cross|ffn)(?:_attention)?_layers", DECODER + r"decoder.layers:\1"),
    (r":(self|cross)(\.\d+)\.norm", r"\2.\1_attn_layer_norm"),
    (r":ffn(\.\d+)\.norm", r"\1.final_layer_norm"),
    (r":(?:self|cross|ffn)(\.\d+)", r"\1"),
    (r"\.multihead_attn\.", ".cross_attn."),
)


def translate(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Official names to those of transformers; projections that it keeps apart are split."""
    result = {}
    for key, value in state.items():
        name = key
        for pattern, new in RENAMES:
            name = re.sub(pattern, new, name)
        packed = re.search(r"(\.qkv\.|(?<=self_attn)\.in_proj_)(weight|bias)$", name)
        if packed is None or "cross_attn" in name:
            result[name] = value
            continue
        for letter, part in zip("qkv", value.chunk(3), strict=True):
            result[f"{name[: packed.start()]}.{letter}_proj.{packed[2]}"] = part
    return result


def second_opinion(config: Mask2FormerConfig, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    stages = ["stage1", "stage2", "stage3", "stage4"]
    own = config.backbone
    if isinstance(own, ResNetConfig):
        backbone = transformers.ResNetConfig(
            embedding_size=own.width, hidden_sizes=list(own.channels), depths=list(own.depths), out_features=stages
        )
    else:
        backbone = transformers.SwinConfig(
            embed_dim=own.embed_dim,
            depths=list(own.depths),
            num_heads=list(own.num_heads),
            window_size=own.window,
            out_features=stages,
        )
    network = transformers.Mask2FormerForUniversalSegmentation(
        transformers.Mask2FormerConfig(
            backbone_config=backbone,
            feature_size=config.dim,
            mask_feature_size=config.dim,
            hidden_dim=config.dim,
            encoder_layers=config.encoder_layers,
            encoder_feedforward_dim=config.encoder_ffn,
            decoder_layers=config.decoder_layers + 1,
            dim_feedforward=config.decoder_ffn,
            num_attention_heads=config.heads,
            num_queries=config.queries,
            num_labels=config.classes,
        )
    ).eval()
    answer = network.load_state_dict(translate(state), strict=False)
    assert not answer.unexpected_keys
    rest = r"criterion\.|.*num_batches_tracked$|.*relative_position_index$|.*encoder\.swin\.layernorm\."
    assert not [key for key in answer.missing_keys if not re.match(rest, key)]
    return network


@pytest.mark.parametrize("config", [TOY, TOY_SWIN], ids=["resnet", "swin"])
def test_single_frames_agree(config: Mask2FormerConfig) -> None:
    ours = toy_network(config)
    theirs = second_opinion(config, ours.state_dict())
    sizes = fit_frame((60, 90), 60, 1333)
    frames = moving_waves(2, 60, 90, 6)
    images = to_input(frames, sizes, torch.device("cpu"))
    with torch.inference_mode():
        level = theirs.model.pixel_level_module(images, output_hidden_states=True)
        answer = theirs(pixel_values=images)
        features = ours.encode(images)
    # Features go up to 3, logits to 10; both sides are float32.
    assert float((features.mask_features - level.decoder_last_hidden_state).abs().max()) < 5e-5
    for own, other in zip(features.maps, level.decoder_hidden_states, strict=True):
        assert float((own - other).abs().max()) < 5e-5
    for i, frame in enumerate(frames):
        queries, mask_features = run_clip(ours, [frame], sizes)
        masks = query_masks(queries, torch.arange(config.queries), mask_features)[:, 0]
        np.testing.assert_allclose(queries.class_logits, answer.class_queries_logits[i], atol=1e-3)
        np.testing.assert_allclose(masks, answer.masks_queries_logits[i], atol=1e-3)
        assert float(masks.abs().max()) > 5
