"""Whatever a Python user holds becomes the same records."""

import datasets
import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset

from efface.errors import InputError
from efface.io.data import as_records, content_digests
from efface.io.features import FeatureSpec
from efface.io.images import Preprocessing
from efface.task import task_of
from efface.types import Records

X = torch.arange(40.0).view(10, 1, 2, 2)
Y = torch.arange(10) % 3
IDS = tuple("abcdefghij")
PLAIN = Records(X, Y)
NAMED = Records(X, Y, IDS)


class Items(Dataset):
    """A data set of whatever ``item`` makes of a row."""

    def __init__(self, item, rows=10):
        self.item, self.rows = item, rows

    def __len__(self):
        return self.rows

    def __getitem__(self, row):
        return self.item(row)


class Stream(IterableDataset):
    """A data set that cannot be asked for a row."""

    def __iter__(self):
        return iter(TensorDataset(X, Y))


def pair(row):
    """The least that an item can be."""
    return X[row], Y[row]


def named(row):
    """With an id, and a label as a number."""
    return X[row], int(Y[row]), IDS[row]


def mapping(row):
    """As transformers' processors name things."""
    return {"pixel_values": X[row], "labels": Y[row], "id": IDS[row]}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (PLAIN, PLAIN),
        ((X, Y), PLAIN),
        ([X, Y], PLAIN),
        ((X, Y, IDS), NAMED),
        ((X, Y, list(IDS)), NAMED),
        ((X, Y.to(torch.int32)), PLAIN),
        (TensorDataset(X, Y), PLAIN),
        (Items(pair), PLAIN),
        (Items(named), NAMED),
        (Items(mapping), NAMED),
        (Items(lambda row: (X[row].numpy(), Y[row].item())), PLAIN),
        (Items(lambda row: {"x": X[row], "y": Y[row]}), PLAIN),
        (Items(lambda row: {"image": X[row], "label": Y[row]}), PLAIN),
        (DataLoader(TensorDataset(X, Y), batch_size=3), PLAIN),
        (DataLoader(TensorDataset(X, Y), batch_size=None), PLAIN),
        (DataLoader(Items(named), batch_size=4), NAMED),
        (DataLoader(Items(mapping), batch_size=4), NAMED),
        (DataLoader(TensorDataset(X, Y), batch_size=5, drop_last=True), PLAIN),
    ],
)
def test_every_form_gives_the_same_records(given, expected):
    """Inputs, labels and ids, in their order."""
    records = as_records(given)
    assert records.x.equal(expected.x)
    assert records.y.equal(expected.y)
    assert records.y.dtype == torch.int64
    assert records.ids == expected.ids


@pytest.mark.parametrize(
    ("y", "kept", "kind"),
    [
        (X.flatten(1)[:, 0] / 7, X.flatten(1)[:, 0] / 7, "regression"),
        (X.flatten(1)[:, :3].double(), X.flatten(1)[:, :3], "regression"),
        (X.flatten(1)[:, :1].half(), X.flatten(1)[:, :1], "regression"),
        (torch.eye(10, dtype=torch.int32), torch.eye(10, dtype=torch.int64), "multilabel"),
        (torch.eye(10) > 0, torch.eye(10, dtype=torch.int64), "multilabel"),
        (Y > 1, (Y > 1).long(), "multiclass"),
    ],
)
def test_values_and_many_labels_come_in_every_form(y, kept, kind):
    """As what they are: a value cut to a whole number would be another one."""
    data = TensorDataset(X, y)
    for given in ((X, y), data, Items(lambda row: (X[row], y[row])), DataLoader(data, 3)):
        records = as_records(given)
        assert records.y.dtype == kept.dtype
        assert records.y.equal(kept)
        assert task_of(records).name == kind


def test_zeros_and_ones_with_a_point_are_asked_what_they_are():
    """Many labels as torch's loss takes them, one-hot classes, or values that happen to be so."""
    with pytest.raises(InputError) as caught:
        as_records((X, torch.eye(10)))
    assert str(caught.value) == (
        "Wanted labels y as integers, or values. Got 0 and 1 as floats: ambiguous. "
        "Give y.long() for multilabel or one sigmoid unit, y.argmax(1) for one-hot "
        "rows of classes, or Records(x, y) for values."
    )


def test_a_shuffled_loader_gives_each_record_its_number_in_the_data_set():
    """A number in the shuffled order would name another record tomorrow."""
    records = as_records(DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True))
    assert sorted(records.ids, key=int) == [str(row) for row in range(10)]
    assert records.x.equal(X[[int(identity) for identity in records.ids]])


def test_a_sampler_chooses_the_records():
    """Otherwise everything would be forgotten instead of three records."""
    loader = DataLoader(TensorDataset(X, Y), batch_size=2, sampler=[7, 2, 4])
    assert as_records(loader).ids == ("7", "2", "4")
    assert as_records(Subset(TensorDataset(X, Y), [7, 2, 4])).x.equal(X[[7, 2, 4]])


def test_reading_a_shuffled_loader_leaves_the_random_state_alone(random_state_kept):
    """Law 3: a loader draws its order from the global generator."""
    with random_state_kept():
        as_records(DataLoader(TensorDataset(X, Y), batch_size=3, shuffle=True))


def test_a_loader_that_drops_records_is_refused():
    """A record that is never read is never forgotten."""
    with pytest.raises(InputError) as caught:
        as_records(DataLoader(TensorDataset(X, Y), batch_size=3, drop_last=True))
    assert str(caught.value) == (
        "Wanted a loader of all its records. Got drop_last=True. Make it with drop_last=False."
    )


TABLE = datasets.Dataset.from_dict({"x": [1.0, 2.0], "label": [0, 1]})


@pytest.mark.parametrize(
    ("given", "name"),
    [
        (Stream(), "Stream"),
        (DataLoader(Stream(), batch_size=4), "Stream"),
        (TABLE.to_iterable_dataset(), "IterableDataset"),
        (TABLE.to_iterable_dataset().with_format("torch"), "IterableDataset"),
    ],
)
def test_a_stream_is_refused_by_name_and_told_how_it_becomes_records(given, name):
    """A record that passes by cannot be named again, nor looked at before and after."""
    with pytest.raises(InputError) as caught:
        as_records(given)
    assert str(caught.value) == (
        f"Wanted records with random access. Got a stream, {name}. Cache it: "
        "load_dataset without streaming, datasets.Dataset.from_generator, or tensors (x, y, ids)."
    )


@pytest.mark.parametrize("kind", [datasets.DatasetDict, datasets.IterableDatasetDict])
def test_several_splits_at_once_are_asked_for_one(kind):
    """Which of them must be forgotten, and which was never seen?"""
    with pytest.raises(InputError) as caught:
        as_records(kind({"train": TABLE, "test": TABLE}))
    assert str(caught.value) == (
        f"Wanted one split. Got a {kind.__name__} of train, test. "
        "Give one of them, such as data['train']."
    )


def test_a_cached_stream_is_served(tmp_path):
    """The remedy that the refusal names."""
    stream = TABLE.to_iterable_dataset()
    cached = datasets.Dataset.from_generator(lambda: iter(stream), cache_dir=str(tmp_path))
    assert as_records(cached, FeatureSpec({"x": {}})).x.tolist() == [[1.0], [2.0]]


def test_a_table_in_memory_needs_its_preprocessing():
    """Pixels alone are not inputs."""
    images = [Image.fromarray(np.full((2, 2), value, dtype=np.uint8)) for value in (0, 255)]
    table = datasets.Dataset.from_dict(
        {"image": images, "label": [1, 0], "id": ["a", "b"]},
        features=datasets.Features(
            image=datasets.Image(),
            label=datasets.ClassLabel(num_classes=2),
            id=datasets.Value("string"),
        ),
    )
    records = as_records(table.select([1, 0]).with_format("torch"), Preprocessing((0.5,), (0.5,)))
    assert records.ids == ("b", "a")
    assert records.x[:, 0, 0, 0].tolist() == [1, -1]
    assert records.high.flatten().tolist() == [1]
    with pytest.raises(InputError) as caught:
        as_records(table)
    assert str(caught.value) == (
        "Wanted the preprocessing that turns images or rows into inputs. Got none. "
        "Give preprocessing=Preprocessing(mean, std, size) or FeatureSpec(columns)."
    )


@pytest.mark.parametrize(
    ("given", "wanted", "came"),
    [
        (7, "records", "int"),
        ("train.parquet", "records", "str"),
        ((X.to(torch.uint8), Y), "inputs x as the model takes them", "torch.uint8 of shape"),
        ((X, torch.eye(10)), "labels y as integers, or values", "0 and 1 as floats"),
        ((X, (Y > 1).float()), "labels y as integers, or values", "0 and 1 as floats"),
        ((X, Y[:, None]), "multilabel y, each 0 or 1", "2"),
        ((X, X), "labels y: class ids (n,)", "torch.float32 of shape (10, 1, 2, 2)"),
        ((X, Y.to(torch.complex64)), "labels y: class ids (n,)", "torch.complex64 of shape (10,)"),
        (Items(lambda row: (X[row], Y[: 1 + row])), "as many labels in each record", "labels of"),
        ((X, Y[:9]), "as many labels and ids as inputs", "10 inputs, 9 labels, 0 ids"),
        ((X, Y, IDS[:9]), "as many labels and ids as inputs", "10 inputs, 10 labels, 9 ids"),
        ((X, Y, ["a"] * 10), "unique ids", "some that repeat"),
        ((X,), "items (x, y) or (x, y, id)", "tuple"),
        (Items(lambda row: X[row]), "items (x, y) or (x, y, id)", "Tensor"),
        (Items(lambda row: {"a": row}), "one of pixel_values, x, image, img", "the keys a"),
        (Items(lambda row: (X[row, :, :, : 1 + row % 2], 0)), "inputs of one shape", "(1, 2, "),
        (Items(lambda _: (Image.new("L", (2, 2)), 0)), "inputs and labels as tensors", "Image"),
        (Items(pair, rows=0), "at least one record", "none"),
    ],
    ids=lambda value: value if isinstance(value, str) else "given",
)
def test_what_does_not_fit_is_refused_in_words(given, wanted, came):
    """The next sentence of each says what to do."""
    with pytest.raises(InputError) as caught:
        as_records(given)
    assert caught.value.wanted.startswith(wanted)
    assert came in caught.value.came


def test_equal_inputs_have_equal_digests_and_others_do_not():
    """By these the forget records are taken out of --retain."""
    x = torch.stack([X[0], X[1], X[0], -X[0] - 0.0])
    one, two, again, minus = content_digests(Records(x, torch.zeros(4, dtype=torch.int64)))
    assert one == again
    assert len({one, two, minus}) == 3
    double = Records(x.double(), torch.zeros(4, dtype=torch.int64))
    assert set(content_digests(double)).isdisjoint({one, two})


def test_digests_do_not_depend_on_how_the_numbers_lie_in_memory():
    """Channels last is a layout, not another image."""
    x = torch.rand(3, 3, 4, 4)
    lying = x.contiguous(memory_format=torch.channels_last)
    y = torch.zeros(3, dtype=torch.int64)
    assert content_digests(Records(x, y)) == content_digests(Records(lying, y))
    assert content_digests(PLAIN.take([])) == ()
