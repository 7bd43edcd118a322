"""The memory bank: the top-k read, values beside their own keys, bounds, removal, and where the official one fails."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load, save

from vidseg.errors import UsageError
from vidseg_trackers.mask_tracking.permanent import permanent_frames
from vidseg_trackers.xmem import memory as memory_module
from vidseg_trackers.xmem.memory import Memory
from vidseg_trackers.xmem.memory_reading import (
    expand_memory,
    expand_query,
    read_dense,
    similarity,
    top_weights,
    weighted_rows,
)
from vidseg_trackers.xmem.official_memory import OfficialMemory
from vidseg_trackers.xmem.options import XMemOptions
from vidseg_trackers.xmem.rows import Rows

HW, C = 12, 6
SMALL = XMemOptions(top_k=8, max_mid_term_frames=5, min_mid_term_frames=2, num_prototypes=10, max_long_term_elements=45)


def look(rng: np.random.Generator, rows: int = HW) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Key, shrinkage, selection."""
    key, shrinkage, selection = rng.normal(size=(rows, C)), 1 + rng.random((rows, 1)), rng.random((rows, C))
    return tuple(torch.tensor(x, dtype=torch.float32) for x in (key, shrinkage, selection))  # type: ignore[return-value]


def test_similarity_is_the_weighted_distance_of_the_paper() -> None:
    rng = np.random.default_rng(0)
    (mk, ms, _), (qk, _, qe) = look(rng, 20), look(rng, 7)
    wanted = -ms[:, 0] * (qe[:, None] * (mk[None] - qk[:, None]) ** 2).sum(-1) / C**0.5
    torch.testing.assert_close(similarity(expand_query(qk, qe), expand_memory(mk, ms)), wanted)


def test_gathering_the_top_values_equals_the_dense_product() -> None:
    rng = np.random.default_rng(1)
    (mk, ms, _), (qk, _, qe) = look(rng, 200), look(rng, 30)
    values = torch.randn(200, 5, generator=torch.Generator().manual_seed(0))
    scores = similarity(expand_query(qk, qe), expand_memory(mk, ms))
    weights, index = top_weights(scores, 30)
    dense = torch.zeros_like(scores).scatter_(1, index, weights)
    assert weights.shape == (30, 30)
    torch.testing.assert_close(weighted_rows(values, weights, index), dense @ values)


def test_far_memories_and_few_memories_give_finite_weights() -> None:
    weights, index = top_weights(torch.tensor([[-5000.0, -5001.0, -9000.0]]), 30)
    assert index.tolist() == [[0, 1, 2]]
    torch.testing.assert_close(weights.sum(1), torch.ones(1))
    torch.testing.assert_close(weights[0, :2], torch.softmax(torch.tensor([0.0, -1.0]), 0))


def test_the_training_read_is_the_read_with_all_elements() -> None:
    g = torch.Generator().manual_seed(0)
    b, n, t, h, w, cv = 2, 3, 2, 3, 4, 5
    key, selection = torch.randn(b, C, h, w, generator=g), torch.rand(b, C, h, w, generator=g)
    mk, ms = torch.randn(b, t, C, h, w, generator=g), 1 + torch.rand(b, t, 1, h, w, generator=g)
    values = torch.randn(b, n, t, cv, h, w, generator=g)
    out = read_dense(key, selection, mk, ms, values)
    rows = lambda x: x.movedim(-3, -1).flatten(0, -2)  # noqa: E731
    memory = Memory(XMemOptions(top_k=1000))
    for i in range(t):
        memory.add(rows(mk[1, i]), rows(ms[1, i]), rows(mk[1, i]), {k + 1: rows(values[1, k, i]) for k in range(n)}, [])
    read = memory.read(rows(key[1]), rows(selection[1]), [1, 2, 3])
    torch.testing.assert_close(out[1], read.unflatten(1, (h, w)).movedim(-1, 1))


def test_long_queries_are_read_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(2)
    query = look(rng, 50)
    outs = []
    for limit in (1 << 24, 100):
        monkeypatch.setattr(memory_module, "MAX_SCORES", limit)
        memory, rng2 = Memory(SMALL), np.random.default_rng(3)
        for _ in range(3):
            key, shrinkage, selection = look(rng2)
            memory.add(key, shrinkage, selection, {1: key}, [])
        outs.append((memory.read(query[0], query[2], [1]), memory.table["use"].clone()))
    torch.testing.assert_close(outs[0], outs[1])


def test_values_stay_beside_their_keys_whatever_happens() -> None:
    """Values tell object and time: each row must belong to its object, to a time it lived at, and to its own key."""
    rng = np.random.default_rng(4)
    memory = Memory(SMALL)
    born: dict[int, int] = {}
    next_id, sizes = 1, []
    for t in range(300):
        new = []
        if not born or (len(born) < 5 and rng.random() < 0.2):
            born[next_id], new = t, [next_id]
            next_id += 1
        elif rng.random() < 0.1 and len(born) > 1:
            gone = int(rng.choice(list(born)))
            del born[gone]
            memory.remove([gone])
        key, shrinkage, selection = look(rng)
        values = {i: torch.tensor([[float(i), float(t)]]).expand(HW, 2) for i in born}
        memory.add(key, shrinkage, selection, values, new)
        read = memory.read(key, selection, list(born))
        times, prototypes = memory.table["time"], memory.table["prototype"]
        assert (times.diff() >= 0).all()
        for row, i in enumerate(born):
            torch.testing.assert_close(read[row, :, 0], torch.full((HW,), float(i)))
            own = memory.values[i]
            time, prototype = times[len(times) - len(own) :], prototypes[len(times) - len(own) :]
            assert int(time[0]) >= born[i]
            assert int((times >= born[i]).sum()) == len(own)
            assert torch.equal(own[~prototype, 1], time[~prototype].float())
            assert (own[prototype, 1] >= born[i] - 1e-3).all()
        work, long = memory.sizes
        sizes.append(work + long)
        assert long <= SMALL.max_long_term_elements
        assert work <= 2 * SMALL.max_mid_term_frames * HW
    assert max(sizes[150:]) <= max(sizes[:150])


def test_corrected_frames_of_living_objects_are_permanent_and_bounded() -> None:
    options, corrected = replace(SMALL, max_permanent_frames=3), (0, 6, 11, 20, 27)
    for limit, kept in ((3, [0, 20, 27]), (10, [0, 6, 11, 20, 27])):
        rng, memory = np.random.default_rng(5), Memory(replace(options, max_permanent_frames=limit))
        for t in range(60):
            key, shrinkage, selection = look(rng)
            memory.add(key, shrinkage, selection, {1: key, 2: key}, [1] if t in corrected else [])
            memory.read(key, selection, [1, 2])
            assert memory.sizes[0] <= (options.max_mid_term_frames + limit) * HW
        working = memory.table["time"][~memory.table["prototype"]].unique().tolist()
        assert [t for t in working if t < 50] == kept
        rows = memory.table["time"] == 20
        assert int(rows.sum()) == HW  # whole, and in the values of every object
        memory.remove([1])
        memory.add(key, shrinkage, selection, {2: key}, [])
        assert not memory.prompted
    assert permanent_frames([3, 5, 9], 1) == [3]


def test_a_correction_hides_what_came_before_from_its_object_and_its_frame_from_the_others() -> None:
    """Values say where a read comes from: channel 0 the frames between the first one and the correction, 1 its own."""
    banks = [Memory(replace(SMALL, forget_on_correction=forget)) for forget in (True, False)]
    rng, most = np.random.default_rng(14), torch.zeros(2, 2, 2)  # bank, object, channel
    query = look(rng)[0]
    for t in range(60):
        key, shrinkage, selection = look(rng)
        key = query + 0.3 * key  # all frames look much alike
        value = torch.tensor([[float(0 < t < 9), float(t == 9)]]).expand(HW, 2)
        prompted = [1, 2] if t == 0 else [1] if t == 9 else []
        for bank in banks:
            corrected = {"anew": [1], "only": [1]} if t == 9 else {}
            bank.add(key, shrinkage, selection, {1: value, 2: value}, prompted, **corrected)
        reads = torch.stack([bank.read(query, selection, [1, 2]).amax(1) for bank in banks])
        assert t > 9 or torch.equal(reads[0, 1], reads[1, 1])
        most = torch.maximum(most, reads) if t >= 9 else most
    assert banks[0].sizes[1] > 0
    assert (most > 0.1).tolist() == [[[False, True], [True, False]], [[True, True], [True, False]]]
    assert most[0, 0, 0] == most[0, 1, 1] == most[1, 1, 1] == 0


def test_what_counts_for_no_object_is_dropped() -> None:
    rng, memory = np.random.default_rng(15), Memory(SMALL)
    for t in range(30):
        key, shrinkage, selection = look(rng)
        given = {0: [1, 2], 20: [1], 25: [2]}.get(t, [])
        memory.add(key, shrinkage, selection, {1: key, 2: key}, given, anew=given if t else [])
        memory.read(key, selection, [1, 2])
        times = set(memory.table["time"].tolist())
        assert (t < 20) or min(times - {0}) < (20 if t < 25 else 26)
        assert (t < 25) or min(times - {0}) == 20
        work, long = memory.sizes
        assert {len(rows) for rows in (*memory.table.values(), *memory.values.values())} == {work + long}
        assert {len(rows) for rows in memory.work.values()} == {work}
    memory.remove([1])
    assert min(set(memory.table["time"].tolist()) - {0}) == 25


def test_a_first_frame_of_a_living_object_stays() -> None:
    rng = np.random.default_rng(5)
    memory = Memory(SMALL)
    for t in range(40):
        key, shrinkage, selection = look(rng)
        ids = [1, 2] if t >= 7 else [1]
        memory.add(key, shrinkage, selection, dict.fromkeys(ids, key), [1] if t == 0 else [2] if t == 7 else [])
        memory.read(key, selection, ids)
    working = memory.table["time"][~memory.table["prototype"]].unique().tolist()
    assert working[:2] == [0, 7]
    memory.remove([1])
    assert int(memory.table["time"].min()) >= 7


def test_one_group_reads_the_same_from_both_banks_and_late_groups_do_not() -> None:
    for late in (False, True):
        banks = [Memory(SMALL), OfficialMemory(SMALL)]
        rng, worst = np.random.default_rng(6), 0.0
        for t in range(10 if late else 40):
            key, shrinkage, selection = look(rng)
            ids = [1, 2, 3] if late and t >= 1 else [1, 2]
            values = {i: key * i for i in ids}
            reads = [bank.read(key, selection, [1, 2]) for bank in banks] if t else []
            if t > 1 and late:
                reads = [bank.read(key, selection, [3]) for bank in banks]
            worst = max(worst, float((reads[0] - reads[1]).abs().max())) if reads else worst
            for bank in banks:
                bank.add(key, shrinkage, selection, values, [i for i in ids if t == 0 or (i == 3 and t == 1)])
        assert banks[0].sizes[1] > 0
        if late:
            assert worst > 0.1
        else:
            assert banks[0].sizes == banks[1].sizes
            assert worst < 1e-4


def test_the_official_bank_says_what_it_cannot_do() -> None:
    rng = np.random.default_rng(7)
    bank = OfficialMemory(SMALL)
    with pytest.raises(UsageError, match="memory=correct"):
        for t in range(100):
            key, shrinkage, selection = look(rng)
            ids = [1, 2] if t >= 1 else [1]
            bank.add(key, shrinkage, selection, dict.fromkeys(ids, key), [])
            bank.read(key, selection, ids)
    with pytest.raises(UsageError, match="cannot remove"):
        bank.remove([1])


@pytest.mark.parametrize("kind", [Memory, OfficialMemory])
def test_state_goes_through_a_file(kind: type[Memory] | type[OfficialMemory]) -> None:
    rng = np.random.default_rng(8)
    bank = kind(SMALL)

    def feed(memory: Memory | OfficialMemory, rng: np.random.Generator, steps: range) -> list[torch.Tensor]:
        out = []
        for t in steps:
            key, shrinkage, selection = look(rng)
            values = {i: key * i for i in ([1, 2] if t else [1])}
            corrected = {3: {"only": [1]}, 8: {"anew": [1], "only": [1]}}.get(t, {})
            memory.add(key, shrinkage, selection, values, [1] if t in (0, 3, 8) else [], **corrected)
            out.append(memory.read(key, selection, [1, 2] if t else [1]))
        return out

    feed(bank, rng, range(9))
    state = bank.state_dict()
    tensors = load(save({k: v for k, v in state.items() if isinstance(v, torch.Tensor)}))
    scalars = {k: v for k, v in state.items() if not isinstance(v, torch.Tensor)}
    other = kind(SMALL)
    other.load_state_dict({**tensors, **scalars}, torch.device("cpu"))
    a = feed(bank, np.random.default_rng(9), range(9, 12))
    b = feed(other, np.random.default_rng(9), range(9, 12))
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def test_a_snapshot_does_not_change() -> None:
    rng, memory = np.random.default_rng(10), Memory(SMALL)
    states = []
    for t in range(12):
        key, shrinkage, selection = look(rng)
        memory.add(key, shrinkage, selection, {1: key}, [1] if not t else [])
        memory.read(key, selection, [1])
        state = {name: v for name, v in memory.state_dict().items() if isinstance(v, torch.Tensor)}
        states.append((state, {name: v.clone() for name, v in state.items()}))
    assert all(torch.equal(v, copy[name]) for state, copy in states for name, v in state.items())


def test_prototypes_hold_no_keys() -> None:
    """The long-term memory is what grows: a row of it has the similarity's side and its values, nothing else."""
    rng, memory = np.random.default_rng(11), Memory(SMALL)
    for t in range(30):
        key, shrinkage, selection = look(rng)
        memory.add(key, shrinkage, selection, {1: key}, [1] if not t else [])
        memory.read(key, selection, [1])
    work, long = memory.sizes
    assert long > 0
    assert {len(v) for v in memory.work.values()} == {work}
    assert {len(v) for v in memory.table.values()} == {work + long}


def test_the_room_of_the_memory_is_taken_once() -> None:
    """Tensors that grow with the video would be in memory twice, and leave holes in the heap."""
    rng, memory = np.random.default_rng(12), Memory(SMALL)
    places, sizes = [], []
    for t in range(60):
        key, shrinkage, selection = look(rng)
        memory.add(key, shrinkage, selection, {1: key}, [1] if not t else [])
        memory.read(key, selection, [1])
        tensors = (*memory.table.values(), *memory.work.values(), *memory.values.values())
        places.append([tensor.data_ptr() for tensor in tensors])
        sizes.append(sum(memory.sizes))
    assert len(set(map(tuple, places))) == 1
    assert sizes[-1] > 2 * sizes[2]


def test_objects_can_be_removed_outside_of_inference() -> None:
    rng, memory = np.random.default_rng(13), Memory(SMALL)
    key, shrinkage, selection = look(rng)
    with torch.inference_mode():
        memory.add(key, shrinkage, selection, {1: key, 2: key}, [1, 2])
        memory.read(key, selection, [1, 2])
    memory.remove([1])
    memory.add(key, shrinkage, selection, {2: key}, [])
    assert memory.sizes == (2 * HW, 0)


def test_shared_rows_stay_as_they_were_whatever_comes_later() -> None:
    rows = Rows()
    rows.append(torch.arange(6.0).reshape(3, 2), room=8)
    taken = [(rows.share(), rows.all.clone())]
    rows.append(torch.ones(2, 2), room=8)
    taken.append((rows.share(), rows.all.clone()))
    rows.set(rows.all + 5)
    taken.append((rows.share(), rows.all.clone()))
    rows.keep(torch.tensor([1, 3, 5]), torch.full((1, 2), 9.0))
    rows.append(torch.zeros(4, 2), room=8)
    assert all(torch.equal(shared, then) for shared, then in taken)
    assert rows.all[:3].tolist() == [[7.0, 8.0], [6.0, 6.0], [9.0, 9.0]]
