"""XMem as a tracker of vidseg: streams without end, objects that come and go, resume, bad input, weights, geometry."""

from __future__ import annotations

from copy import deepcopy
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from fake_device import FakeDevice, OnDevice, on_device
from vidseg.errors import InputError, UsageError, WeightsError
from vidseg.types import Frame, Prompt, RemovesObjects, Tracker, Tracks, VideoInfo
from vidseg.weights.fit import config_from_metadata
from vidseg_trackers.mask_tracking.label_map import objects_in_label_map
from vidseg_trackers.mask_tracking.preprocess import InnerGeometry, prepare_frame, prepare_masks
from vidseg_trackers.xmem.config import XMemConfig
from vidseg_trackers.xmem.inference_core import InferenceCore
from vidseg_trackers.xmem.options import XMemOptions
from vidseg_trackers.xmem.tracker import XMemTracker, build
from vidseg_trackers.xmem.weights import load_network
from xmem_rule import TOY, rule_network, toy_network, toy_video

CPU = torch.device("cpu")
QUICK = {"mem_every": 2, "max_mid_term_frames": 5, "min_mid_term_frames": 2, "num_prototypes": 16}


def tracker(height: int = 64, width: int = 80, dtype: torch.dtype = torch.float32, **options: object) -> XMemTracker:
    network = toy_network() if dtype == torch.float32 else deepcopy(toy_network()).to(dtype)
    made = XMemTracker(network, XMemOptions.from_mapping({"max_long_term_elements": 64, **QUICK, **options}))
    made.start(VideoInfo(width, height, Fraction(25)))
    return made


def block(y: int, x: int, height: int = 64, width: int = 80, side: int = 20) -> np.ndarray:
    mask = np.zeros((height, width), np.bool_)
    mask[y : y + side, x : x + side] = True
    return mask


def prompt(frame: int, i: int, y: int, x: int) -> Prompt:
    return Prompt(frame, i, mask=block(y, x))


def predicted_mask(xmem: XMemTracker, frame: Frame) -> np.ndarray:
    """The mask (H, W) of the first object on the next frame, which the tracker sees again afterwards."""
    state = xmem.state_dict()
    (tracks,) = xmem.step(frame)
    xmem.load_state_dict(state)
    assert tracks.masks is not None
    return (tracks.masks[0] > 0.5).numpy()


def times_of(core: InferenceCore) -> set[int]:
    """Times of the frames that a memory holds."""
    return set(core.memory.table["time"].tolist())  # type: ignore[union-attr]


def same(a: Tracks, b: Tracks) -> bool:
    pairs = [(a.ids, b.ids), (a.boxes, b.boxes), (a.scores, b.scores), (a.masks, b.masks)]
    return all(np.array_equal(x, y) for x, y in pairs)  # type: ignore[arg-type]


def test_it_is_a_tracker_and_says_what_it_saw() -> None:
    xmem = tracker()
    assert isinstance(xmem, Tracker)
    frames = toy_video(3)
    (nothing,) = xmem.step(frames[0])
    assert len(nothing.ids) == 0
    (tracks,) = xmem.step(frames[1], [prompt(1, 7, 10, 30), prompt(1, 3, 40, 5)])
    assert tracks.ids.tolist() == [3, 7]
    assert tracks.boxes.tolist() == [[5, 40, 25, 60], [30, 10, 50, 30]]
    assert (tracks.scores > 0.99).all()
    assert tracks.masks is not None
    assert tracks.masks.shape == (2, 64, 80)
    assert tracks.masks.dtype == torch.float32
    (after,) = xmem.step(frames[2])
    assert set(after.ids.tolist()) <= {3, 7}
    assert xmem.finish() == []


def test_memory_is_constant_over_400_frames_with_five_objects_coming_and_going() -> None:
    xmem = tracker(forget_after=40, size=48)
    frames = toy_video(100)
    rng = np.random.default_rng(0)
    seen: set[int] = set()
    elements, tensors = [], []
    for t in range(400):
        prompts = []
        if len(xmem.online.ids) < 5 and t % 4 == 0:
            prompts = [prompt(t, 1 + len(seen) % 255, *rng.integers(0, 40, 2))]
            if prompts[0].object_id in xmem.online.ids:
                prompts = []
            seen |= {p.object_id for p in prompts}
        elif len(xmem.online.ids) > 1 and t % 9 == 0:  # all but the first one leave, whatever the toy network sees
            xmem.online.remove(xmem.online.ids[1:2])
        xmem.step(Frame(t, t, t / 25, frames[t % 100].rgb), prompts)
        if t % 10 == 9:
            elements.append(sum(xmem.online.memory.sizes))
            tensors.append(sum(v.nbytes for v in xmem.state_dict().values() if isinstance(v, torch.Tensor)))
    assert len(seen) > 30
    assert max(elements[10:]) <= 64 + 2 * 5 * 12
    assert max(tensors[20:]) <= 1.1 * max(tensors[:20])


@pytest.mark.parametrize(
    ("options", "dtype"),
    [
        ({}, torch.float32),
        ({}, torch.bfloat16),
        ({"memory": "official"}, torch.float32),
        ({"scene_cut": 0.2, "forget_after": 3}, torch.float32),
    ],
)
def test_a_resumed_run_is_bit_identical(options: dict[str, object], dtype: torch.dtype) -> None:
    frames = toy_video(30)
    whole, first = tracker(dtype=dtype, **options), tracker(dtype=dtype, **options)
    prompts = {0: [prompt(0, 1, 10, 10)], 4: [prompt(4, 2, 30, 40)]}
    prompts |= {t: [prompt(t, 1, 15, 15)] for t in (9, 20)}
    expected = [whole.step(f, prompts.get(f.index, []))[0] for f in frames]
    for frame in frames[:14]:
        first.step(frame, prompts.get(frame.index, []))
    state = first.state_dict()
    first.step(frames[14])  # a snapshot does not change with what follows
    tensors = load(save({k: v for k, v in state.items() if isinstance(v, torch.Tensor)}))
    second = tracker(dtype=dtype, **options)
    second.load_state_dict({**{k: v for k, v in state.items() if not isinstance(v, torch.Tensor)}, **tensors})
    for frame, wanted in zip(frames[14:], expected[14:], strict=True):
        assert same(second.step(frame, prompts.get(frame.index, []))[0], wanted)


def test_a_later_prompt_corrects_its_object_and_leaves_the_others() -> None:
    xmem = tracker()
    frames = toy_video(8)
    xmem.step(frames[0], [prompt(0, 1, 5, 5), prompt(0, 2, 40, 50)])
    for frame in frames[1:7]:
        xmem.step(frame)
    (tracks,) = xmem.step(frames[7], [prompt(7, 1, 30, 30)])
    assert xmem.online.ids == [1, 2]
    box = dict(zip(tracks.ids.tolist(), tracks.boxes.tolist(), strict=True))[1]
    assert box == [30, 30, 50, 50]
    assert xmem.online.memory.prompted == {1: [0, xmem.online.memory.now - 1], 2: [0]}  # type: ignore[union-attr]


@pytest.mark.parametrize("options", [{}, {"deep_update_every": 3}])
def test_a_correction_changes_nothing_that_is_remembered_of_the_others(options: dict[str, object]) -> None:
    plain, corrected = tracker(**options), tracker(**options)
    frames = toy_video(8)
    for xmem in (plain, corrected):
        xmem.step(frames[0], [prompt(0, 1, 5, 5), prompt(0, 2, 40, 50)])
        for frame in frames[1:7]:
            xmem.step(frame)
    plain.step(frames[7])
    corrected.step(frames[7], [prompt(7, 1, 30, 30)])
    a, b = plain.online, corrected.online
    assert (a.last_memory, a.last_deep) == (b.last_memory, b.last_deep)
    assert a.hidden is not None
    assert b.hidden is not None
    assert torch.equal(a.hidden[:, 1], b.hidden[:, 1])
    assert not torch.equal(a.hidden[:, 0], b.hidden[:, 0])
    query = torch.randn(20, TOY.key_dim, generator=torch.Generator().manual_seed(0)), torch.ones(20, TOY.key_dim)
    with torch.inference_mode():
        reads = [core.memory.read(*query, [1, 2]) for core in (a, b)]
    torch.testing.assert_close(reads[0][1], reads[1][1])
    assert not torch.allclose(reads[0][0], reads[1][0])


def test_a_correction_that_changes_little_leaves_what_came_before() -> None:
    """The predicted mask and a few pixels: nothing is taken for certain but those, and nothing forgotten."""
    frames, made = toy_video(8), []
    for change in (None, 0, 4, 400):
        xmem = tracker()
        xmem.step(frames[0], [prompt(0, 1, 5, 5)])
        for frame in frames[1:7]:
            xmem.step(frame)
        predicted = predicted_mask(xmem, frames[7])
        if change is None:
            xmem.step(frames[7])
        else:
            mask = predicted.copy()
            mask.reshape(-1)[np.flatnonzero(predicted)[:change]] = False
            (tracks,) = xmem.step(frames[7], [Prompt(7, 1, mask=mask)])
            assert np.array_equal(tracks.masks[0].numpy() > 0.5, mask)  # type: ignore[index]
        made.append(xmem.online)
    assert int(predicted.sum()) > 800
    plain, same, small, large = made
    for core in (same, small):
        assert core.last_memory == plain.last_memory
        assert torch.equal(core.hidden, plain.hidden)  # type: ignore[arg-type]
        assert times_of(core) > times_of(plain)
    assert not torch.equal(same.memory.values[1][-20:], small.memory.values[1][-20:])  # type: ignore[union-attr]
    assert large.last_memory == 7
    assert times_of(large) == {0, max(times_of(small))}


def test_where_masks_overlap_the_smaller_is_in_front() -> None:
    geometry = InnerGeometry.of((64, 80), -1)
    big, small = block(0, 0, side=40), block(10, 10, side=10)
    masks = prepare_masks({1: big, 2: small}, geometry, CPU)
    assert list(masks) == [1, 2]
    assert int(masks[1].sum()) == 1500
    assert int(masks[2].sum()) == 100


def test_an_absent_object_is_left_out_keeps_its_id_and_is_forgotten_when_asked() -> None:
    xmem = tracker(forget_after=3)
    frames = toy_video(9)
    xmem.step(frames[0], [prompt(0, 1, 5, 5), prompt(0, 2, 40, 50)])
    xmem._forget_absent({2})
    assert xmem.online.ids == [1, 2]
    xmem._forget_absent({2})
    xmem._forget_absent({2})
    assert xmem.online.ids == [2]
    assert set(xmem.online.memory.values) == {2}  # type: ignore[union-attr]
    (tracks,) = xmem.step(frames[1])
    assert 1 not in tracks.ids
    xmem._forget_absent(set())
    xmem._forget_absent(set())
    xmem._forget_absent(set())
    assert xmem.online.memory.sizes == (0, 0)
    assert len(xmem.step(frames[2])[0].ids) == 0
    assert xmem.step(frames[3], [prompt(3, 9, 5, 5)])[0].ids.tolist() == [9]


def test_ids_have_no_limit_and_objects_are_removed_on_request() -> None:
    xmem = tracker()
    frames = toy_video(3)
    assert xmem.step(frames[0], [prompt(0, 3, 5, 5), prompt(0, 70000, 40, 50)])[0].ids.tolist() == [3, 70000]
    assert isinstance(xmem, RemovesObjects) and xmem.can_remove
    xmem.remove([3, 9])
    assert xmem.online.ids == [70000]
    assert 3 not in xmem.step(frames[1])[0].ids
    assert not tracker(memory="official").can_remove


def test_a_scene_cut_resets_the_sensory_memory_only_when_asked() -> None:
    dark, light = np.zeros((64, 80, 3), np.uint8), np.full((64, 80, 3), 255, np.uint8)
    for scene_cut, resets in ((0.0, 0), (0.5, 1)):
        xmem = tracker(scene_cut=scene_cut)
        count = []
        forget = xmem.online.forget_motion
        xmem.online.forget_motion = lambda f=forget, c=count: (c.append(1), f())[1]  # type: ignore[method-assign]
        xmem.step(Frame(0, 0, 0.0, dark), [prompt(0, 1, 5, 5)])
        for t, image in enumerate([dark, light, light], start=1):
            xmem.step(Frame(t, t, 0.0, image))
        assert len(count) == resets


def test_tiny_video_with_fewer_positions_than_top_k() -> None:
    xmem = tracker(20, 33, size=-1)
    for t in range(12):
        image = np.full((20, 33, 3), 10 * t, np.uint8)
        (tracks,) = xmem.step(Frame(t, t, 0.0, image), [Prompt(0, 1, mask=block(2, 3, 20, 33, 9))] if t == 0 else [])
        assert tracks.masks is not None
        assert tracks.masks.isfinite().all()
        if t == 0:
            assert tracks.boxes.tolist() == [[3, 2, 12, 11]]


def test_bf16_stays_close_and_reads_in_float32() -> None:
    network = load_network("compact-xmem", device=CPU, dtype=torch.bfloat16, offline=True)
    assert network.decoder.pred.weight.dtype == torch.bfloat16
    probabilities = []
    for made in (network, load_network("compact-xmem", device=CPU, offline=True)):
        xmem = XMemTracker(made, XMemOptions(size=64))
        xmem.start(VideoInfo(80, 64, Fraction(25)))
        frames = toy_video(3)
        xmem.step(frames[0], [prompt(0, 1, 20, 30)])
        assert xmem.online.memory.table["expanded"].dtype == torch.float32  # type: ignore[union-attr]
        with torch.inference_mode():
            image = prepare_frame(frames[1].rgb, InnerGeometry.of((64, 80), -1), True, CPU).to(xmem.dtype)
            probabilities.append(xmem.online.step(image, {}))
    assert probabilities[0].dtype == torch.float32
    assert (probabilities[0] - probabilities[1]).abs().mean() < 0.06


@pytest.mark.parametrize(
    ("prompts", "message"),
    [
        ([Prompt(0, 1, mask=np.ones((10, 12), np.bool_))], "object 1 on frame 0: the mask has 12x10 pixels"),
        ([Prompt(0, 4, mask=block(0, 0)), Prompt(0, 4, mask=block(30, 30))], "object 4 on frame 0 is given twice"),
        ([Prompt(0, 1, mask=np.zeros((64, 80), np.bool_))], "empty"),
        ([Prompt(0, 1, box=(0, 0, 5, 5))], "draw boxes and points with HQ-SAM first"),
    ],
)
def test_bad_prompts_are_named(prompts: list[Prompt], message: str) -> None:
    xmem = tracker()
    with pytest.raises(UsageError, match=message):
        xmem.step(toy_video(1)[0], prompts)
    assert xmem.online.ids == []


def test_a_frame_of_another_size_is_named() -> None:
    xmem = tracker()
    xmem.step(toy_video(1)[0], [prompt(0, 1, 5, 5)])
    with pytest.raises(InputError, match="frame 1 has 40x32 pixels, the video 80x64"):
        xmem.step(Frame(1, 1, 0.0, np.zeros((32, 40, 3), np.uint8)))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mem_evry": 5}, "did you mean 'mem_every'"),
        ({"colour": 5}, "xmem tracker: unknown option 'colour': allowed are weights, size, "),
        ({"mem_every": "5"}, "mem_every: expected an int, got '5'"),
        ({"long_term": 1}, "long_term: expected a bool, got 1"),
        ({"mem_every": 0}, "at least 1"),
        ({"size": 3}, "at least 16"),
        ({"memory": "oficial"}, "did you mean 'official'"),
        ({"max_mid_term_frames": 5}, r"more than min_mid_term_frames \(5\)"),
        ({"num_prototypes": 10000}, "max_long_term_elements"),
        ({"memory": "official", "forget_after": 5}, "memory=correct"),
        ({"weights": "xmen"}, "did you mean 'xmem'"),
    ],
)
def test_bad_options_are_named(options: dict[str, object], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(options, device=CPU, dtype=torch.float32, offline=True)


def test_official_files_give_their_dimensions_also_without_sensory_memory_and_for_one_object(tmp_path: Path) -> None:
    state = {k: v.half() if v.is_floating_point() else v for k, v in rule_network().state_dict().items()}
    state = {k: v for k, v in state.items() if "hidden" not in k}
    for block1 in ("conv1", "downsample"):
        key = f"decoder.fuser.block1.{block1}.weight"
        state[key] = state[key][:, : 1024 + 512]
    state["value_encoder.conv1.weight"] = state["value_encoder.conv1.weight"][:, :4]
    torch.save(state, tmp_path / "XMem-s0.pth")
    network = load_network(str(tmp_path / "XMem-s0.pth"), device=CPU, offline=True)
    assert network.config == XMemConfig(hidden_dim=0)
    assert not network.value_encoder.get_parameter("conv1.weight")[:, 4].any()
    xmem = XMemTracker(network, XMemOptions(size=64))
    xmem.start(VideoInfo(80, 64, Fraction(25)))
    for frame in toy_video(2):
        xmem.step(frame, [prompt(0, 1, 20, 30)] if frame.index == 0 else [])
    assert xmem.online.hidden is None
    del state["key_proj.e_proj.bias"]
    torch.save(state, tmp_path / "broken.pth")
    with pytest.raises(WeightsError, match=r"broken\.pth.*key_proj\.e_proj\.bias"):
        load_network(str(tmp_path / "broken.pth"), device=CPU, offline=True)


def test_config_goes_through_json() -> None:
    assert config_from_metadata(XMemConfig, TOY.to_json(), "x.pth") == TOY
    with pytest.raises(WeightsError, match=r"x.pth: its configuration .*did you mean 'key_dim'"):
        config_from_metadata(XMemConfig, '{"key_dims": 3}', "x.pth")
    for text, words in (("{", "Expecting property name"), ("[]", "a list, not an object"), ('{"key_dim": 0}', "= 0")):
        with pytest.raises(WeightsError, match=rf"x.pth: its configuration cannot be read .*{words}"):
            config_from_metadata(XMemConfig, text, "x.pth")


@pytest.mark.parametrize("size", [(60, 90), (77, 130), (31, 45), (200, 301)])
def test_boxes_are_those_of_the_whole_label_map(size: tuple[int, int]) -> None:
    g = torch.Generator().manual_seed(1)
    noise = torch.nn.functional.interpolate(torch.randn(1, 5, 6, 9, generator=g), (60, 90), mode="bicubic")[0]
    probabilities = torch.softmax(6 * noise - torch.tensor([0.0, 2, 6, 12, 60])[:, None, None], 0)
    whole = torch.nn.functional.interpolate(probabilities[None], size, mode="bilinear", align_corners=False)[0]
    labels = whole.argmax(0)
    wanted = {}
    for i in range(1, 5):
        ys, xs = torch.nonzero(labels == i, as_tuple=True)
        if len(ys):
            box = (int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1)
            wanted[i - 1] = (box, float(whole[i][labels == i].mean()))
    with FakeDevice() as device:
        there = objects_in_label_map(probabilities.as_subclass(OnDevice), size)
    assert dict(+device.waits) == {"to the host": 1}
    for found in (objects_in_label_map(probabilities, size), there):
        assert {one.row: one.box for one in found} == {row: box for row, (box, _) in wanted.items()}
        assert 1 < len(found) < 4
        for one in found:
            assert one.score == pytest.approx(wanted[one.row][1], abs=1e-4)


def test_the_key_encoder_of_the_compact_network_stays_exact_in_half_precision() -> None:
    """Also what it sees: of the numbers of a frame only those that are passed on are rounded."""
    exact, half = (load_network("compact-xmem", device=CPU, dtype=d, offline=True) for d in (torch.float32, torch.half))
    assert half.decoder.pred.weight.dtype == half.key_proj.key_proj.weight.dtype == torch.half
    looks = []
    for network in (exact, half):
        network.key_proj = deepcopy(exact.key_proj)  # float32 takes what it gets as it is
        network.key_proj.forward = lambda f16: (f16, f16, f16)  # type: ignore[method-assign]
        tracker = XMemTracker(network)
        tracker.start(VideoInfo(80, 64, Fraction(25)))
        looks.append(tracker.look(toy_video(1)[0]).seen)
    assert all(torch.equal(a.half(), b) for a, b in zip(*looks, strict=True))


def test_the_device_is_asked_three_times_per_frame_whatever_is_on_it() -> None:
    """Whether the frame is blank, whether its objects are there, and where."""
    frames, waits = toy_video(12), []
    for count in (1, 4):
        with FakeDevice() as device:
            xmem = XMemTracker(on_device(deepcopy(toy_network())), XMemOptions.from_mapping({"mem_every": 100}))
            xmem.start(VideoInfo(80, 64, Fraction(25)))
            xmem.step(frames[0], [prompt(0, i + 1, 5 + 10 * i, 5 + 15 * i) for i in range(count)])
            before = device.waits.copy()
            for frame in frames[1:]:
                assert len(xmem.step(frame)[0].ids)
        waits.append(dict(device.waits - before))
    assert waits[0] == waits[1] and sum(waits[0].values()) == 3 * len(frames[1:])


@pytest.mark.parametrize("size", [(16, 4096), (4096, 16), (1, 4096), (100, 401), (1, 100_000), (3, 5), (1, 1)])
def test_no_shape_costs_more_than_an_ordinary_video(size: tuple[int, int]) -> None:
    for inner in (320, 384, 480):
        usual, shape = InnerGeometry.of((480, 854), inner), InnerGeometry.of(size, inner)
        assert shape.padded[0] * shape.padded[1] <= usual.padded[0] * usual.padded[1]
        assert min(shape.inner) >= 1


def test_ordinary_shapes_keep_the_official_size() -> None:
    for height, width in [(480, 854), (854, 480), (1080, 2592), (1080, 3840), (2400, 1080), (600, 600), (100, 400)]:
        short = min(height, width)
        assert InnerGeometry.of((height, width), 384).inner == (int(384 * height / short), int(384 * width / short))
    assert InnerGeometry.of((16, 4096), -1).inner == (16, 4096)


def test_long_frames_are_followed() -> None:
    xmem = tracker(16, 4096)
    given = np.zeros((16, 4096), np.bool_)
    given[:, 1000:1400] = True
    for frame in toy_video(3, 16, 4096):
        (tracks,) = xmem.step(frame, [Prompt(0, 1, mask=given)] if frame.index == 0 else [])
        if frame.index == 0:
            np.testing.assert_allclose(tracks.boxes, [[1000, 0, 1400, 16]], atol=8)
    assert sum(xmem.online.memory.sizes) <= 2 * 4 * 8  # two memory frames of at most 64x128 pixels, a row for 16x16


def test_geometry_and_resizing_are_the_official_ones() -> None:
    assert InnerGeometry.of((1080, 1920), 480).inner == (480, 853)
    assert InnerGeometry.of((480, 854), 480).padded == (480, 864)
    odd = InnerGeometry.of((79, 93), -1)
    assert (odd.top, odd.left, odd.padded) == (0, 1, (80, 96))
    image = np.random.default_rng(0).integers(0, 255, (120, 200, 3), np.uint8)
    geometry = InnerGeometry.of((120, 200), 48)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    exact = ((torch.from_numpy(image) / 255 - mean) / std).permute(2, 0, 1)[None]
    for antialias, tolerance in ((False, 1e-5), (True, 0.02)):
        wanted = torch.nn.functional.interpolate(exact, (48, 80), mode="bilinear", antialias=antialias)
        got = prepare_frame(image, geometry, antialias, CPU)
        assert (got - wanted).abs().max() < tolerance
    speck = np.zeros((120, 200), np.bool_)
    speck[1, 1] = True
    assert int(prepare_masks({1: speck}, geometry, CPU)[1].sum()) == 1
