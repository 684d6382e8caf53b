"""``forget(model, data, …)``: rows of whatever a Python user holds, named in one call."""

from typing import Any, NamedTuple

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
import torch
from PIL import Image
from refusals import refusal
from torch import nn
from torch.utils.data import DataLoader, Dataset, Subset, SubsetRandomSampler, TensorDataset

from efface import FeatureSpec, Records, Split, forget, load_data, score
from efface.errors import UnknownRecords
from efface.io.data import as_records
from efface.prepare import name_records, validate_split

N = 40
X = torch.randn(N, 5, generator=torch.Generator().manual_seed(0))
Y = torch.arange(N) % 3
IDS = tuple(f"p{row:02d}" for row in range(N))
AGES = [20 + row for row in range(N)]
SPEC = FeatureSpec({f"f{k}": {} for k in range(5)})
FRAME = pd.DataFrame({f"f{k}": X[:, k].numpy() for k in range(5)})
FRAME = FRAME.assign(label=Y.numpy(), age=AGES, id=IDS)
WITHIN = {"preprocessing": SPEC}


class Items(Dataset):
    """Items of any form."""

    def __init__(self, item, classes=None):
        self.item = item
        if classes:
            self.classes = classes

    def __len__(self):
        return N

    def __getitem__(self, row):
        return self.item(row)


def keyed(row):
    return {"input": X[row], "target": int(Y[row]), "id": IDS[row], "age": AGES[row]}


class Patient(NamedTuple):
    scan: Any
    diagnosis: int
    patient: str


PAIRS, KEYED = TensorDataset(X, Y), Items(keyed)
TRANSFORMED = datasets.Dataset.from_pandas(FRAME).with_transform(
    lambda batch: {"pixel_values": [X[AGES.index(age)] for age in batch["age"]]}
)
ARRAYED = datasets.Dataset.from_dict({"features": X.tolist(), "y": Y.tolist(), "id": IDS})
# what people hold: the data, and what else the call needs
WITH_IDS = {
    "records": (Records(X, Y, IDS), {}),
    "arrays": ((X.double().numpy(), Y.numpy(), np.array(IDS)), {}),
    "a mapping of arrays": ({"x": X.numpy(), "y": Y.numpy(), "ids": np.array(IDS)}, {}),
    "named tuples": (Items(lambda row: Patient(X[row], int(Y[row]), IDS[row])), {}),
    "mappings": (KEYED, {}),
    "a list of mappings": ([keyed(row) for row in range(N)], {}),
    "a loader of mappings": (DataLoader(KEYED, batch_size=7, shuffle=True), {}),
    "a DataFrame": (FRAME, WITHIN),
    "an arrow table": (pa.Table.from_pandas(FRAME), WITHIN),
    "datasets": (datasets.Dataset.from_pandas(FRAME), WITHIN),
    "datasets with a transform": (TRANSFORMED, {}),
    "datasets of arrays": (ARRAYED.rename_column("y", "label"), {}),
    "load_data": (load_data(FRAME), WITHIN),
}
WITHOUT_IDS = {
    "tensors": (X, Y),
    "frames": (FRAME[[f"f{k}" for k in range(5)]], FRAME["label"]),
    "a data set": PAIRS,
    "a list of pairs": [(X[row], Y[row]) for row in range(N)],
    "a loader": DataLoader(PAIRS, batch_size=6, shuffle=True),
    "a loader without batches": DataLoader(PAIRS, batch_size=None),
    "a part of a data set": Subset(TensorDataset(X.flip(0), Y.flip(0)), range(N - 1, -1, -1)),
}


def named(data, *, preprocessing=None, classes=None, holdout=None, retain=None, **way):
    """What ``forget`` makes of its arguments."""
    ways = dict.fromkeys(("ids", "where", "indices", "forget_class")) | way
    parts = {"holdout": holdout, "retain": retain}
    return name_records(data, ways, parts, preprocessing, classes)


def the_same(split, rows, ids=None):
    assert torch.allclose(split.forget.x, X[rows])
    assert split.forget.y.tolist() == Y[rows].tolist()
    assert split.forget.ids == tuple((ids or list(map(str, range(N))))[row] for row in rows)
    assert split.forget.numbered == (ids is None)


@pytest.mark.parametrize("form", WITH_IDS)
def test_records_are_named_by_id_row_class_and_expression_in_every_form(form):
    data, more = WITH_IDS[form]
    the_same(named(data, ids=["p07", "p03", "p07"], **more)[0], [7, 3], IDS)
    the_same(named(data, indices=[7, 3], **more)[0], [7, 3], IDS)
    split, others, note = named(data, forget_class=2, **more)
    the_same(split, list(range(2, N, 3)), IDS)
    assert split.forget_classes == (2,)
    assert sorted(others.ids) == [name for row, name in enumerate(IDS) if row % 3 != 2]
    assert note == {"named": "forget_class 2"}
    label = "target" if form.endswith("mappings") else "label"
    the_same(named(data, where=f"{label}=1 and id<p09", **more)[0], [1, 4, 7], IDS)


@pytest.mark.parametrize("form", WITHOUT_IDS)
def test_without_ids_the_numbers_of_the_items_name_records_of_the_data_set(form):
    data = WITHOUT_IDS[form]
    for way in ({"indices": [7, 3]}, {"ids": [7, 3]}, {"indices": np.array([7, 3])}):
        the_same(named(data, **way)[0], [7, 3])
    the_same(named(data, where="label=2")[0], list(range(2, N, 3)))


def test_expressions_see_the_keys_of_items_and_the_names_of_classes():
    rows = named(KEYED, where="age>=50 and target!=0")[0]
    the_same(rows, [row for row in range(30, N) if row % 3], IDS)
    animals = Items(lambda row: (X[row], int(Y[row])), classes=["cat", "dog", "owl"])
    the_same(named(animals, where="label=dog")[0], list(range(1, N, 3)))
    split = named(DataLoader(animals, batch_size=8), forget_class="owl")[0]
    assert (split.forget_classes, len(split.forget)) == ((2,), 13)
    # renumbered classes are not those that have the names
    animals.target_transform = lambda y: 2 - y
    assert "Wanted a class of 0, 1, 2. Got 'owl'." in refusal(named, animals, forget_class="owl")


def test_only_the_records_that_are_named_and_a_sample_are_read():
    read = []

    def item(row):
        read.append(row)
        return X[row % N], 0

    large = Items(item)
    large.__class__ = type("Large", (Items,), {"__len__": lambda _: 10_000})
    split, others, _ = named(large, indices=[9_999])
    assert (len(split.forget), len(others), len(set(read))) == (1, 250, 251)


def test_the_data_itself_as_retain_is_all_rows_but_those_that_are_named():
    """By row: a transform that draws makes another input of a record each time."""
    drawn = Items(lambda row: (torch.rand(5), int(Y[row])))
    split = named(drawn, indices=range(5), retain=drawn)[0]
    assert split.retain.ids == tuple(map(str, range(5, N)))
    assert "besides those to forget" in refusal(named, drawn, indices=range(N), retain=drawn)


def test_of_one_data_set_rows_are_told_apart_under_loaders_and_subsets():
    drawn = Items(lambda row: (torch.rand(5), int(Y[row])))
    loader, even = DataLoader(drawn, batch_size=7), Subset(drawn, range(0, N, 2))
    rest, listed = list(range(5, N)), {"indices": range(5)}
    assert named(loader, retain=drawn, **listed)[0].retain.ids == tuple(map(str, rest))
    assert named(drawn, retain=loader, **listed)[0].retain.ids == tuple(map(str, rest))
    assert named(drawn, retain=even, **listed)[0].retain.y.tolist() == Y[6:N:2].tolist()
    assert len(named(even, retain=drawn, **listed)[0].retain) == N - 5
    some = DataLoader(drawn, sampler=SubsetRandomSampler([1, 2, 9]))
    assert named(drawn, retain=some, **listed)[0].retain.ids == ("9",)
    split = Split(Subset(drawn, range(5)), holdout=drawn, retain=loader)
    counts = validate_split(split, None)[1]
    assert (counts["holdout"], counts["retain"]) == (N - 5, N - 5)
    table = datasets.Dataset.from_pandas(FRAME).with_transform(
        lambda batch: {"x": [torch.rand(5) for _ in batch["label"]]}
    )
    assert len(named(load_data(table), retain=table, **listed)[0].retain) == N - 5


def test_a_row_without_a_label_that_nobody_named_refuses_nothing(caplog):
    frame = FRAME.assign(label=FRAME.label.where(FRAME.index != 30).astype("Int64"))
    split, others, _ = named(frame, ids=["p07"], retain=frame, **WITHIN)
    assert (len(split.retain), len(others), "p30" in others.ids) == (N - 2, N - 2, False)
    assert "1 of 39 records that stay cannot be used" in caplog.text
    assert "p30" in refusal(named, frame, ids=["p30"], **WITHIN)


def test_an_integer_is_a_class_number_and_a_text_a_name():
    data = Items(lambda row: (X[row], int(Y[row])), classes=["2", "1", "0"])
    for name, number in {"2": 0, 2: 2, np.int64(2): 2}.items():
        split = named(data, forget_class=name)[0]
        assert (split.forget_classes, set(split.forget.y.tolist())) == ((number,), {number})


def test_items_may_hold_lists_of_several_lengths():
    ragged = Items(lambda row: keyed(row) | {"boxes": [[1, 2], [3]][: row % 3]})
    the_same(named(ragged, ids=["p07"])[0], [7], IDS)


def test_a_loader_keeps_its_generator_as_it_was():
    own = torch.Generator().manual_seed(3)
    loader = DataLoader(PAIRS, batch_size=6, shuffle=True, generator=own)
    before = own.get_state()
    named(loader, indices=[1])
    as_records(loader)
    assert own.get_state().equal(before)


def test_an_index_of_pandas_may_hold_the_ids():
    indexed = FRAME.set_index("id")
    the_same(named(indexed, ids=["p07"], **WITHIN)[0], [7], IDS)
    indexed.index.name = "nr"
    the_same(named(indexed, ids=["p07"], **WITHIN)[0], [7], IDS)
    # a column that holds the ids counts more
    the_same(named(FRAME.iloc[10:], ids=["p12"], **WITHIN)[0], [12], IDS)


def test_a_part_of_a_frame_keeps_the_numbers_of_the_whole():
    bare = FRAME.drop(columns="id")
    for part in (bare.iloc[10:], bare[bare.age > 25], bare.sample(frac=0.9, random_state=0)):
        the_same(named(part, ids=[12], **WITHIN)[0], [12])
        assert "unknown: 99" in refusal(named, part, ids=[99], kind=UnknownRecords, **WITHIN)
    two = pd.concat([bare.iloc[:20], bare.iloc[:20]])
    levels = bare.set_index([pd.Index(AGES, name="nr"), pd.Index(IDS, name="b")])
    for frame, column in ((two, "__index_level_0__"), (levels, "nr")):
        text = refusal(named, frame, ids=[12], **WITHIN)
        assert text.startswith(f"Wanted an id column instead of row numbers. Got '{column}'")
        the_same(named(frame, indices=[12], **WITHIN)[0], [12])


BOTH = Items(lambda row: {"x": X[row], "input": X[row], "label": 0})
TWO_IDS = Items(lambda row: {"x": X[row], "label": 0, "id": 1, "record_id": 2})
KEYS_SEEN = Items(lambda row: {"scan": X[row], "label": 0})
ONE_OF = "one of ids=, where=, indices=, forget_class= with the data. Got"
GIVE_ONE = "Give one; Split(forget=records) names all of its records."
NUMBERS = "row numbers 0..39 as indices. Got {}. Write indices=[3, 17]; of a mask give "
NUMBERS += "mask.nonzero()."
WHOLE = "a loader of its whole data set, to name rows. Got {} of 40, by its sampler or drop_last. "
WHOLE += "Give the data set itself, or a Subset of it."
SOME = DataLoader(PAIRS, sampler=SubsetRandomSampler([1, 2]))
SOME_DROPPED = DataLoader(PAIRS, batch_size=7, drop_last=True)
INPUT = "an input in each item, as one of pixel_values, image, images, img, x, input, inputs, "
INPUT += "features. Got {}. Let the items be (x, y) or (x, y, id)."
IDS_BOTH = "an id in each item, as one of id, record_id. Got both id and record_id. Let the items "
IDS_BOTH += "be (x, y) or (x, y, id)."
NONE = "at least one record to forget. Got {}, of 40 records. Name some that the data hold."
A_LIST = "ids as a list. Got 'a.csv'. Write ids=['a.csv'], or of a file ids=read_ids('a.csv')."
PREPROCESSING = "the preprocessing of images or rows. Got none. Give preprocessing="
PREPROCESSING += "Preprocessing(mean, std, size) or FeatureSpec(columns)."
SPLIT_ALONE = "a Split alone. Got ids, holdout as well. Say it in the Split, or give the data set."
NO_NUMBERS = {"7": 7, "40": [40], "-1": [-1], "1.0": [1.0], "'12'": "12"}
NO_NUMBERS |= {"False, True": (Y == 1)[:2]}
ROW = {"indices": [0]}
REFUSED = [
    (PAIRS, {}, f"{ONE_OF} none. {GIVE_ONE}"),
    (PAIRS, {"ids": [1], "where": "label=1"}, f"{ONE_OF} ids and where. {GIVE_ONE}"),
    (Split(PAIRS), {"ids": [1], "holdout": PAIRS}, SPLIT_ALONE),
    *((PAIRS, {"indices": given}, NUMBERS.format(came)) for came, given in NO_NUMBERS.items()),
    (PAIRS, {"ids": "a.csv"}, A_LIST),
    (PAIRS, {"ids": b"abc"}, A_LIST.replace("'a.csv'", "b'abc'")),
    (PAIRS, {"indices": []}, NONE.format("0 by indices")),
    (PAIRS, {"where": "label=7"}, NONE.format("where label=7")),
    ("train.csv", {"ids": ["a"]}, "records. Got 'train.csv'. Give load_data('train.csv')."),
    (SOME, ROW, WHOLE.format(2)),
    (SOME_DROPPED, ROW, WHOLE.format(35)),
    (BOTH, ROW, INPUT.format("both x and input")),
    (TWO_IDS, ROW, IDS_BOTH),
    (KEYS_SEEN, ROW, INPUT.format("the keys scan, label")),
    ({"train": PAIRS}, ROW, INPUT.format("the keys train")),
    (FRAME, ROW, PREPROCESSING),
    (pd.DataFrame({"a": [1, "b"], "label": [0, 1]}), ROW, None),
    (pd.DataFrame([[1, 0]], columns=["label", "label"]), ROW, None),
]


@pytest.mark.parametrize(("data", "call", "message"), REFUSED)
def test_what_is_ambiguous_or_no_data_is_refused_with_the_keys_seen(data, call, message):
    text = refusal(named, data, **call)
    assert message is None or text == f"Wanted {message}"


def test_a_picture_next_to_its_tensor_is_not_the_input():
    both = Items(lambda row: {"image": Image.new("L", (2, 2)), "pixel_values": X[row], "labels": 0})
    assert as_records(both).x.equal(X)


def test_a_table_in_memory_opens_nothing_that_its_cells_name(monkeypatch):
    monkeypatch.setattr("datasets.Image.decode_example", lambda *_, **__: pytest.fail("opened"))
    cells = [{"bytes": None, "path": "http://127.0.0.1:9/x.png"}] * 2
    kinds = datasets.Features({"image": datasets.Image(), "label": datasets.Value("int64")})
    table = datasets.Dataset.from_dict({"image": cells, "label": [0, 1]}, features=kinds)
    assert "the preprocessing" in refusal(named, table, indices=[0])


def test_three_lines_give_what_a_split_gives(tiny_net, digits):
    known, unseen = digits.take(range(300)), digits.take(range(300, 400))
    data = TensorDataset(known.x, known.y)
    named = {"indices": range(12), "holdout": unseen, "retain": data}
    one = forget(tiny_net, data, settings={"steps": 2}, report="quick", **named)
    split = Split((known.x[:12], known.y[:12]), unseen, Records(known.x, known.y))
    two = forget(tiny_net, split, settings={"steps": 2}, report="quick")
    assert one.manifest.weights == two.manifest.weights
    assert one.manifest.request["named"] == "12 by indices"
    again = score(tiny_net, one.model, data, report="quick", **named)
    assert again.outcome == one.outcome


def test_a_class_in_one_call_goes_as_a_class(tiny_net, digits):
    result = forget(tiny_net, (digits.x, digits.y), forget_class=3, dry_run=True)
    assert result.manifest.request["forget_classes"] == [3]
    assert result.manifest.accuracy["others"]


def test_numpy_of_64_bits_fits_a_model_of_32():
    net = nn.Linear(5, 3)
    result = forget(
        net, (X.double().numpy(), Y.numpy()), indices=[1], dry_run=True, accept=["chance"]
    )
    assert result.outcome == "dry run"
