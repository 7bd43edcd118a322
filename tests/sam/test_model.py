"""The network as one object: batches, chunks, geometry, prompts, outputs, and everything odd a user may pass."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from sam_oracle import MINI_VIT, mini_state, prompts, rule_image, vectors
from toys import EncoderCounter, tiny_sam
from vidseg.errors import InputError, UsageError
from vidseg.loading import load_sam
from vidseg.masks.paste import to_original_size, upsample_window
from vidseg.options import from_mapping
from vidseg.sam.build import build_sam, from_state, save_sam
from vidseg.sam.config import SamConfig, named_config
from vidseg.sam.geometry import Geometry, frame_geometry, preprocess
from vidseg.sam.mask_decoder import Candidates, stability_score
from vidseg.sam.model import CPU_PROMPTS, Masks, Sam
from vidseg.sam.prompt_batch import PromptBatch

FULL = named_config("sam-hq-vit-b")


@pytest.fixture(scope="module")
def sam() -> Sam:
    return from_state(MINI_VIT, mini_state(), "test")


def boxes(count: int, width: int = 256, height: int = 192, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    corner = rng.uniform(0, 0.6, (count, 2))
    side = rng.uniform(0.1, 0.4, (count, 2))
    return (np.concatenate([corner, corner + side], 1) * [width, height, width, height]).astype(np.float32)


def assert_same(a: Masks, b: Masks) -> None:
    assert a.geometry == b.geometry
    # Products of other sizes may round otherwise on some CPUs (seen: 2e-5); a logit that small may have either sign.
    assert torch.allclose(a.logits, b.logits, rtol=0, atol=5e-5)
    assert torch.allclose(a.iou, b.iou, rtol=0, atol=1e-5)
    sure = a.logits.abs() > 5e-5
    assert torch.equal((a.logits > 0)[sure], (b.logits > 0)[sure])


# --- whole calls equal the official numbers -----------------------------------------------------------------------


@pytest.mark.threads(2)  # the order of sums: with one thread some CPUs are 3e-5 away
@pytest.mark.parametrize("kind", ["box", "points", "box_points", "mask", "none_point"])
@pytest.mark.parametrize(
    ("output", "candidates"), [("sum", "single"), ("hq", "single"), ("sum", "best"), ("hq", "best")]
)
def test_encode_and_decode_equal_the_official_numbers(sam: Sam, kind: str, output: str, candidates: str) -> None:
    fields = {k: v.numpy() for k, v in prompts(256)[kind].items()}
    if "masks" in fields:
        fields["masks"] = fields["masks"][:, 0]
    features = sam.encode([rule_image(192, 256)])
    (answer,) = sam.decode(features, [PromptBatch(**fields)], output, candidates)  # type: ignore[arg-type]
    want = vectors("mini_vit")
    name = f"mm{int(candidates == 'best')}"
    assert np.abs(answer.logits.numpy() - want[f"{kind}__mask_{name}_hq{int(output == 'hq')}"]).max() < 2e-5
    assert np.abs(answer.iou.numpy() - want[f"{kind}__iou_{name}"]).max() < 2e-5


def test_all_candidates_hold_the_best_one_and_outputs_add_up(sam: Sam) -> None:
    features, prompt = sam.encode([rule_image(192, 256)]), PromptBatch(boxes=boxes(5))
    (every,) = sam.decode(features, [prompt], candidates="all")
    (best,) = sam.decode(features, [prompt], candidates="best")
    assert every.logits.shape == (5, 3, 64, 64) and every.iou.shape == (5, 3)
    index = every.iou.argmax(1)
    assert torch.allclose(every.logits[torch.arange(5), index], best.logits[:, 0], atol=1e-6)
    parts = {out: sam.decode(features, [prompt], out)[0].logits for out in ("sum", "hq", "sam")}
    assert torch.allclose(parts["sum"], parts["hq"] + parts["sam"], atol=1e-5)
    assert not torch.equal(parts["hq"], parts["sam"])


# --- batches ------------------------------------------------------------------------------------------------------


def test_fifty_boxes_in_any_chunks(sam: Sam) -> None:
    features, prompt = sam.encode([rule_image(192, 256)]), PromptBatch(boxes=boxes(50))
    (once,) = sam.decode(features, [prompt], max_batch=50)
    for chunk in (1, 7, None):
        assert_same(sam.decode(features, [prompt], max_batch=chunk)[0], once)
    for i in (0, 31, 49):
        (alone,) = sam.decode(features, [PromptBatch(boxes=prompt.boxes[i : i + 1])])
        assert_same(alone, Masks(once.logits[i : i + 1], once.iou[i : i + 1], once.geometry))


@pytest.mark.parametrize("candidates", ["single", "all"])
def test_frames_with_different_numbers_of_boxes(sam: Sam, candidates: Candidates) -> None:
    images = [rule_image(192, 256), rule_image(256, 100), rule_image(50, 60), rule_image(256, 256)]
    counter = EncoderCounter(sam)
    features = sam.encode(images)
    assert counter.images == 4
    asked = [PromptBatch(boxes=boxes(n, i.shape[1], i.shape[0], n)) for n, i in zip((0, 1, 3, 9), images, strict=True)]
    together = sam.decode(features, asked, candidates=candidates, max_batch=4)
    assert counter.images == 4
    for image, prompt, answer in zip(images, asked, together, strict=True):
        (alone,) = sam.decode(sam.encode([image]), [prompt], candidates=candidates)
        assert len(answer.logits) == len(prompt)
        assert_same(answer, alone)


def test_a_cpu_encodes_and_decodes_as_much_at_once_as_stays_in_its_cache(
    sam: Sam, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []
    sam.image_encoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[0])))
    sam.mask_decoder.register_forward_hook(lambda module, inputs, output: sizes.append(len(inputs[2])))
    images = [rule_image(64, 64)] * 5
    (padded,) = {f.geometry.padded for f in sam.encode(images)}
    monkeypatch.setattr("vidseg.sam.model.CPU_PIXELS", 2 * padded[0] * padded[1])
    features = sam.encode(images)
    sam.decode(features[:1], [PromptBatch(boxes=boxes(CPU_PROMPTS + 1, 64, 64))])
    assert sizes == [5, 2, 2, 1, CPU_PROMPTS, 1]


@pytest.mark.parametrize("count", [0, 1, 50])
def test_the_encoder_runs_once_per_frame(sam: Sam, count: int) -> None:
    counter = EncoderCounter(sam)
    sam.decode(sam.encode([rule_image(64, 64)]), [PromptBatch(boxes=boxes(count, 64, 64))])
    assert counter.images == 1


def test_the_first_layer_projects_the_image_once_per_frame(sam: Sam) -> None:
    seen: list[int] = []
    layer = sam.mask_decoder.transformer.layers[0]
    projections = (
        layer.cross_attn_token_to_image.k_proj,
        layer.cross_attn_token_to_image.v_proj,
        layer.cross_attn_image_to_token.q_proj,
    )
    hooks = [p.register_forward_hook(lambda m, args, out: seen.append(len(args[0]))) for p in projections]
    features = sam.encode([rule_image(64, 64), rule_image(50, 64)])
    sam.decode(features, [PromptBatch(boxes=boxes(20, 64, 64)), PromptBatch(boxes=boxes(10, 64, 50))], max_batch=30)
    for hook in hooks:
        hook.remove()
    assert seen == [2, 2, 2]


def test_mixed_kinds_in_one_call(sam: Sam) -> None:
    (features,) = sam.encode([rule_image(192, 256)])
    low = np.full((2, 64, 64), -5, np.float32)
    low[:, 10:30, 20:40] = 5
    asked = [
        PromptBatch(boxes=boxes(2)),
        PromptBatch(points=np.array([[[30.0, 40.0]]]), labels=np.array([[1]])),
        PromptBatch(points=np.array([[[30.0, 40.0], [90, 90]]]), labels=np.array([[1, 0]])),
        PromptBatch(boxes=boxes(2), masks=low),
        PromptBatch(boxes=boxes(1), points=np.array([[[30.0, 40.0]]]), labels=np.array([[1]])),
        PromptBatch(masks=low),
        PromptBatch(boxes=boxes(3, seed=4)),
    ]
    for prompt, answer in zip(asked, sam.decode([features] * len(asked), asked), strict=True):
        assert_same(answer, sam.decode([features], [prompt])[0])


def test_the_compact_network_pads_only_to_the_stride() -> None:
    tiny = tiny_sam()
    images = [rule_image(72, 128), rule_image(128, 72), rule_image(720, 1280)]
    features = tiny.encode(images)
    assert [f.geometry.padded for f in features] == [(96, 128), (128, 96), (96, 128)]
    answers = tiny.decode(features, [PromptBatch(boxes=boxes(n, 60, 60)) for n in (2, 1, 3)])
    assert [a.logits.shape for a in answers] == [(2, 1, 24, 32), (1, 1, 32, 24), (3, 1, 24, 32)]
    assert answers[2].upsampled().shape == (3, 1, 720, 1280)
    for image, answer, n in zip(images, answers, (2, 1, 3), strict=True):
        assert_same(answer, tiny.decode(tiny.encode([image]), [PromptBatch(boxes=boxes(n, 60, 60))])[0])


def test_bfloat16_is_close(sam: Sam, tmp_path: Path) -> None:
    save_sam(sam, tmp_path / "mini.safetensors")
    half = load_sam(tmp_path / "mini.safetensors", dtype=torch.bfloat16)
    prompt = [PromptBatch(boxes=boxes(4))]
    (a,) = sam.decode(sam.encode([rule_image(192, 256)]), prompt)
    (b,) = half.decode(half.encode([rule_image(192, 256)]), prompt)
    assert b.logits.dtype == torch.float32
    assert ((a.logits > 0) == (b.logits > 0)).float().mean() > 0.97


def test_gradients_reach_every_part() -> None:
    tiny = build_sam(tiny_sam().config).train()
    embedding, early = tiny.image_encoder(torch.randn(2, 3, 64, 64))
    fused = tiny.mask_decoder.fuse(embedding, early)
    sparse, dense = tiny.prompt_encoder(boxes=torch.tensor([[1.0, 2, 30, 40]] * 3), masks=torch.randn(3, 1, 16, 16))
    out = tiny.mask_decoder(
        embedding, tiny.prompt_encoder.dense_pe(4, 4), sparse, dense, torch.tensor([0, 0, 1]), fused, range(4)
    )
    (out.sam.square().sum() + out.hq.square().sum() + out.iou.sum()).backward()
    unused = {"point_embeddings.0", "point_embeddings.1", "not_a_point_embed", "no_mask_embed"}
    unused |= {"objectness"}  # learned by a command of its own
    silent = [k for k, p in tiny.named_parameters() if p.grad is None and not any(u in k for u in unused)]
    assert silent == []


# --- before and after the network ---------------------------------------------------------------------------------


def test_geometry_as_the_official_resize() -> None:
    assert frame_geometry((192, 256), FULL) == Geometry((192, 256), (768, 1024), (1024, 1024))
    assert frame_geometry((1080, 1920), FULL).resized == (576, 1024)
    assert frame_geometry((427, 640), FULL).resized == (683, 1024)
    assert frame_geometry((1, 1), FULL).resized == (1024, 1024)
    assert frame_geometry((20000, 10), FULL).resized == (1024, 1)
    assert frame_geometry((100000, 10), FULL).resized == (1024, 1)  # the official code fails with a width of 0
    assert frame_geometry((427, 640), FULL).scale == (1024 / 640, 683 / 427)


def test_preprocessing_pads_after_normalising() -> None:
    image = rule_image(192, 256)
    pixels = preprocess([image], [frame_geometry((192, 256), MINI_VIT)], MINI_VIT, torch.device("cpu"))
    assert pixels.shape == (1, 3, 256, 256)
    assert (pixels[:, :, 192:] == 0).all()
    mean, std = np.array(MINI_VIT.pixel_mean), np.array(MINI_VIT.pixel_std)
    assert np.allclose(pixels[0, :, :192].permute(1, 2, 0), (image - mean) / std, atol=1e-5)


def test_resize_is_antialiased() -> None:
    stripes = np.zeros((512, 512, 3), np.uint8)
    stripes[:, ::2] = 255
    pixels = preprocess([stripes], [frame_geometry((512, 512), MINI_VIT)], MINI_VIT, torch.device("cpu"))
    grey = pixels[0, 0, 5:-5, 5:-5] * MINI_VIT.pixel_std[0] + MINI_VIT.pixel_mean[0]
    assert (grey - 127.5).abs().max() < 1.5


@pytest.mark.parametrize("geometry", [(1080, 1920), (427, 640), (60, 33), (2, 900)])
def test_window_of_the_paste_equals_the_whole(geometry: tuple[int, int]) -> None:
    g = frame_geometry(geometry, FULL)
    logits = torch.randn(2, *g.low_res, generator=torch.Generator().manual_seed(0)) * 4
    whole = to_original_size(logits, g.padded, g.resized, g.original)
    height, width = geometry
    windows = [(0, 0, width, height), (width - 1, height - 1, width, height), (0, 0, 1, 1)]
    rng = np.random.default_rng(1)
    for _ in range(6):
        x, y = np.sort(rng.integers(0, width, 2)), np.sort(rng.integers(0, height, 2))
        windows.append((int(x[0]), int(y[0]), int(x[1]) + 1, int(y[1]) + 1))
    for x1, y1, x2, y2 in windows:
        part = upsample_window(logits, g.padded, g.resized, g.original, (x1, y1, x2, y2))
        assert torch.allclose(part, whole[:, y1:y2, x1:x2], rtol=0, atol=2e-3 if height > 1000 else 1e-3)


def test_two_steps_are_not_one() -> None:
    g = frame_geometry((427, 640), FULL)
    logits = torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0))
    two = to_original_size(logits, g.padded, g.resized, g.original) > 0
    one = torch.nn.functional.interpolate(logits[None, :, :171], g.original, mode="bilinear")[0] > 0
    assert (two != one).float().mean() > 0.001


def test_windows_outside_the_image_are_refused() -> None:
    with pytest.raises(UsageError, match="does not lie in the image of 200x100"):
        upsample_window(torch.zeros(1, 4, 4), (16, 16), (8, 16), (100, 200), (0, 0, 201, 5))


def test_stability_score() -> None:
    logits = torch.tensor([[3.0, 0.5, -0.5, -3.0]] * 2)[None]
    assert stability_score(logits).tolist() == pytest.approx([1 / 3])
    assert stability_score(torch.full((1, 2, 2), -9.0)).tolist() == [0.0]


# --- bad input ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(1, 1), (10, 2000), (2000, 10)])
def test_images_of_odd_sizes_work(sam: Sam, size: tuple[int, int]) -> None:
    (answer,) = sam.decode(
        sam.encode([np.zeros((*size, 3), np.uint8)]), [PromptBatch(boxes=np.array([[0, 0, 1, 1.0]]))]
    )
    assert answer.upsampled().shape == (1, 1, *size)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((4, 5), np.uint8), r"uint8 \(4, 5\).*convert grey or RGBA"),
        (np.zeros((4, 5, 4), np.uint8), r"uint8 \(4, 5, 4\).*convert grey or RGBA"),
        (np.zeros((4, 5, 3), np.float32), "float32"),
        (np.zeros((0, 5, 3), np.uint8), "5x0 pixels is empty"),
        ("image.png", "image is str"),
    ],
)
def test_wrong_images(sam: Sam, image: np.ndarray, words: str) -> None:
    with pytest.raises(InputError, match=words):
        sam.encode([image])


P, L = np.zeros((1, 2, 2)), np.ones((1, 2), np.int64)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        (
            {"boxes": np.array([[1, 2, 3, 4], [1, np.nan, 3, 4.0]])},
            r"boxes, row 1: \[1.0, nan, 3.*not finite",
        ),
        ({"boxes": np.array([[1, 2, np.inf, 4.0]])}, "not finite"),
        ({"boxes": np.array([[5, 2, 3, 4.0]])}, r"box 0 \[5.0, 2.0, 3.0, 4.0\]: x1 <= x2"),
        ({"boxes": np.zeros((2, 3))}, r"shape \(2, 3\): \(N, 4\) expected"),
        ({"boxes": [1, 2, 3, 4]}, "an array or a tensor expected, got list"),
        ({"points": P}, "go together"),
        ({"points": P * np.nan, "labels": L}, "not finite"),
        ({"points": P, "labels": L * 2}, r"labels \[2\]: allowed are 1, 0 and -1"),
        ({"points": P, "labels": L[:, :1]}, "do not fit"),
        ({"points": P, "labels": L, "boxes": np.zeros((3, 4))}, "3 boxes, 1 points, 1 labels"),
        ({"masks": np.full((1, 4, 4), np.nan)}, "masks, row 0 is not finite"),
        ({}, "empty prompts"),
    ],
)
def test_wrong_prompts(fields: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        PromptBatch(**fields)


def test_wrong_calls(sam: Sam) -> None:
    features = sam.encode([rule_image(20, 30)])
    with pytest.raises(UsageError, match="1 frames but 2 sets"):
        sam.decode(features, [PromptBatch(boxes=boxes(1))] * 2)
    with pytest.raises(UsageError, match=r"mask prompts \(1, 32, 32\): \(N, 64, 64\) expected for an image of 30x20"):
        sam.decode(features, [PromptBatch(masks=np.zeros((1, 32, 32), np.float32))])
    with pytest.raises(UsageError, match="max_batch"):
        sam.decode(features, [PromptBatch(boxes=boxes(1))], max_batch=-1)
    state = {k: v for k, v in mini_state().items() if not k.split(".")[1].startswith(("hf_", "compress", "embedding_"))}
    config = from_mapping(
        SamConfig,
        {"encoder": "vit", "hq": False, "output": "sam", "image_size": 256, "prompt_dim": 64, "decoder_mlp_dim": 128,
         "iou_hidden_dim": 64, "vit": {"embed_dim": 48, "depth": 4, "num_heads": 3, "global_blocks": [1, 3]}},
        where="test",
    )  # fmt: skip
    plain = from_state(config, state, "test")
    (features_plain,) = plain.encode([rule_image(20, 30)])
    assert features_plain.fused is None
    assert plain.decode([features_plain], [PromptBatch(boxes=boxes(1))])[0].logits.shape == (1, 1, 64, 64)
    with pytest.raises(UsageError, match="only 'sam' is possible"):
        plain.decode([features_plain], [PromptBatch(boxes=boxes(1))], "hq")


def test_prompts_outside_the_image_are_answered(sam: Sam) -> None:
    features = sam.encode([rule_image(40, 60)])
    far = PromptBatch(boxes=np.array([[-500.0, -500, -400, -400], [1e4, 1e4, 1e5, 1e5]]))
    points = PromptBatch(points=np.array([[[-10.0, 999.0]]]), labels=np.array([[1]]))
    for answer in sam.decode(features * 2, [far, points]):
        assert torch.isfinite(answer.logits).all()


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"encoder": "vitt"}, r"did you mean 'vit'\?\): use one of vit, tiny_vit, compact"),
        ({"encoder": "vit"}, "section 'vit' is required"),
        ({"encoder": "compact", "imagesize": 512}, r"unknown option 'imagesize' \(did you mean 'image_size'"),
        ({"encoder": "compact", "image_size": 500}, "image_size 500: expected a multiple of 32"),
        ({"encoder": "compact", "hq": False}, "has only 'sam'"),
        (
            {"encoder": "compact", "early_channels": 8, "pad": "round"},
            "pad: 'round' is not allowed: use one of",
        ),
        ({"hq": True}, "option 'encoder' is missing"),
    ],
)
def test_wrong_configurations(values: dict[str, object], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        from_mapping(SamConfig, values, where="model.yaml")


def test_unknown_configuration() -> None:
    with pytest.raises(UsageError, match="did you mean 'mobile-sam'"):
        named_config("mobilesam")
    assert isinstance(named_config("mobile-sam"), SamConfig)
