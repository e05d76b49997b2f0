"""Encoders, the corpus and the projection: what near means, held to plain twins where a kernel does the work."""

from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.content import corpus as corpora
from pipeline.content.corpus import SAMPLE, Corpus
from pipeline.content.encoders.labels import Labels
from pipeline.content.encoders.numbers import Numbers
from pipeline.content.encoders.text import Text, ngrams, plain
from pipeline.content.encoders.vectors import Vectors
from pipeline.content.encoding import SPARSITY, Encoding, project
from pipeline.content.item import Content, Features, Given
from pipeline.recipe import ENCODING
from pipeline.types import F32, hash_id

_64 = (1 << 64) - 1
names = st.text(min_size=1, max_size=12)
facts: Any = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.floats(width=32),
    names,
    st.tuples(names, names),
)
given_vectors = st.builds(
    lambda model, values: Given(model, np.array(values, np.float32)),
    names,
    st.lists(st.floats(-(2.0**100), 2.0**100, width=32), min_size=1, max_size=9),
)
contents = st.builds(
    Content,
    hash=st.integers(1, _64),
    title=st.text(max_size=40),
    text=st.text(max_size=200),
    categories=st.lists(names, max_size=4).map(tuple),
    tags=st.lists(names, max_size=6).map(tuple),
    creator_id=st.one_of(st.just(""), names),
    price=st.one_of(st.none(), st.floats(0, 1e30)),
    currency=st.sampled_from(["", "EUR"]),
    published_at=st.integers(0, 1 << 41),
    attributes=st.dictionaries(names, facts, max_size=4),
    vectors=st.dictionaries(names, given_vectors, max_size=2),
)


def item(number: int, **says: Any) -> Content:
    return Content(hash_id(f"item {number}"), **says)


def encoded(*items: Content, encoding: Encoding = ENCODING) -> F32:
    return encoding.all(items, Corpus())


# ---------------------------------------------------------------- the whole way


@settings(max_examples=60, deadline=None)
@given(st.lists(contents, min_size=1, max_size=5))
def test_a_vector_has_length_one_or_is_nothing(items: list[Content]) -> None:
    corpus = Corpus()
    vectors = ENCODING.all(items, corpus)
    assert vectors.shape == (len(items), ENCODING.dimension)
    assert vectors.dtype == np.float32
    lengths = np.linalg.norm(vectors, axis=1)
    assert np.all((abs(lengths - 1) < 1e-5) | (lengths == 0))
    again = np.array([ENCODING(one, corpus) for one in items])
    np.testing.assert_array_equal(again, vectors)


@settings(max_examples=40, deadline=None)
@given(contents, st.randoms(use_true_random=False))
def test_sets_have_no_order_and_no_repetition(one: Content, dice: random.Random) -> None:
    def shuffled(names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(dice.sample([*names, *names[:2]], len(names) + len(names[:2])))

    other = replace(
        one,
        categories=shuffled(one.categories),
        tags=shuffled(one.tags),
        attributes=dict(reversed(list(one.attributes.items()))),
        vectors=dict(reversed(list(one.vectors.items()))),
    )
    np.testing.assert_array_equal(encoded(one), encoded(other))


def test_who_says_nothing_is_nowhere() -> None:
    assert not encoded(item(1), item(2, title=" - "), item(3, vectors={"v": Given("m", np.zeros(3, np.float32))})).any()


def test_items_are_near_by_what_they_share() -> None:
    """Each side of an item alone brings it near: words, pieces of words, labels, creator, numbers, vectors."""
    image = np.random.default_rng(1).standard_normal((3, 64)).astype(np.float32)
    looks = [{"i": Given("m", values)} for values in (image[0], image[0] + 0.3 * image[2], image[1])]
    sides: list[tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = [
        ({"title": "Silent Orbit"}, {"title": "orbit, SILENT?"}, {"title": "Beef Casserole"}),
        ({"text": "a hiking boot"}, {"text": "the hiking boots"}, {"text": "wooden spoons"}),
        ({"categories": ("a", "b")}, {"categories": ("b", "c")}, {"categories": ("d",)}),
        ({"tags": ("a", "b")}, {"tags": ("b", "c")}, {"tags": ("d",)}),
        ({"creator_id": "ann"}, {"creator_id": "ann"}, {"creator_id": "bob"}),
        ({"price": 90.0}, {"price": 110.0}, {"price": 400.0}),
        ({"published_at": 90}, {"published_at": 110}, {"published_at": 400}),
        ({"attributes": {"brand": "x"}}, {"attributes": {"brand": ("x", "y")}}, {"attributes": {"maker": "x"}}),
        ({"vectors": looks[0]}, {"vectors": looks[1]}, {"vectors": looks[2]}),
    ]  # fmt: skip
    crowd = [item(10 + at, price=float(5 * at), published_at=5 * at) for at in range(1, 100)]
    for number, (one, alike, other) in enumerate(sides):
        a, b, c = encoded(item(1, **one), item(2, **alike), item(3, **other), *crowd)[:3]
        assert a @ b > a @ c + 0.15, number


def test_vectors_of_different_models_are_not_compared() -> None:
    values = np.arange(1, 33, dtype=np.float32)
    same, other = ({"i": Given(model, values)} for model in ("clip", "dino"))
    a, b, c = encoded(item(1, vectors=same), item(2, vectors=same), item(3, vectors=other))
    assert a @ b > 0.999
    assert abs(a @ c) < 0.5


def test_a_rare_word_weighs_more_than_a_common_one() -> None:
    crowd = [item(number, title=f"the thing{number}") for number in range(60)]
    first, rare, common = item(100, title="the zeppelin"), item(101, title="a zeppelin"), item(102, title="the kettle")
    a, b, c = encoded(first, rare, common, *crowd)[:3]
    assert a @ b > a @ c + 0.3


def test_two_encodings_have_different_codes() -> None:
    words = Encoding(((Text("title"), 1.0),))
    others = [
        replace(words, seed=2), replace(words, dimension=64), replace(words, encoders=((Text("title"), 0.5),)),
        replace(words, encoders=((Text("title", pairs=False), 1.0),)),
    ]  # fmt: skip
    assert len({words.code, *(other.code for other in others)}) == 1 + len(others)
    assert words.code == Encoding(((Text("title"), 1.0),)).code


@pytest.mark.parametrize("dimension", [0, 4, 100])
def test_a_dimension_that_cannot_be_is_refused(dimension: int) -> None:
    with pytest.raises(ValueError, match="divides"):
        Encoding((), dimension)


def test_a_part_of_ones_own_is_one_line() -> None:
    class Length:
        name, rare = "length", False

        def __call__(self, content: Content, corpus: Corpus) -> Features:
            return Features.of(np.array([len(content.title)], np.uint64), np.ones(1, np.float32))

    a, b, c = encoded(
        item(1, title="one"), item(2, title="two"), item(3, title="three"), encoding=Encoding(((Length(), 1.0),))
    )
    assert a @ b > 0.999 > a @ c


# ---------------------------------------------------------------- projection


def mix(x: int) -> int:
    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9 & _64
    x = (x ^ (x >> 27)) * 0x94D049BB133111EB & _64
    return x ^ (x >> 31)


def twin_projection(keys: list[int], values: list[float], seed: int, dimension: int) -> list[float]:
    out = [0.0] * dimension
    width = dimension // SPARSITY
    for key, value in zip(keys, values, strict=True):
        generator = mix((key + seed) & _64)
        for part in range(SPARSITY):
            bits = mix((generator + (part + 1) * 0x9E3779B97F4A7C15) & _64)
            out[part * width + (bits >> 1) % width] += (1 if bits & 1 else -1) * value / math.sqrt(SPARSITY)
    return out


@settings(max_examples=80, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, _64), st.floats(-10, 10, width=32)), max_size=20),
    st.integers(0, _64),
    st.sampled_from([8, 24, 128]),
)
def test_the_projection_is_its_twin(features: list[tuple[int, float]], seed: int, dimension: int) -> None:
    keys, values = [key for key, _ in features], [value for _, value in features]
    out = np.zeros(dimension, np.float32)
    project(np.array(keys, np.uint64), np.array(values, np.float32), np.uint64(seed), out)
    np.testing.assert_allclose(out, twin_projection(keys, values, seed, dimension), atol=1e-4)


def test_the_projection_keeps_products() -> None:
    """Johnson-Lindenstrauss: the error of a product of unit vectors has a deviation of about 1/sqrt(d)."""
    rng = np.random.default_rng(5)
    errors = []
    for seed in range(200):
        keys = rng.integers(0, 1 << 63, 60).astype(np.uint64)
        one, other = np.zeros((2, 128), np.float32)
        values = rng.standard_normal((2, 40)).astype(np.float32)
        values /= np.linalg.norm(values, axis=1, keepdims=True)
        project(keys[:40], values[0], np.uint64(seed), one)
        project(keys[20:], values[1], np.uint64(seed), other)
        errors.append(one @ other - values[0, 20:] @ values[1, :20])
    assert abs(np.mean(errors)) < 0.03
    assert 0.04 < np.std(errors) < 0.13


# ---------------------------------------------------------------- text


def twin_ngrams(text: str, seed: int, pairs: bool, shortest: int, longest: int) -> list[tuple[int, bool]]:
    def fold(begin: int, codes: str) -> int:
        for code in codes:
            begin = (begin ^ ord(code)) * 0x100000001B3 & _64
        return begin

    found: list[tuple[int, bool]] = []
    last = 0
    for word in text.split():
        key = fold(mix((seed + 1) & _64), word)
        found.append((mix(key), True))
        if pairs and last:
            found.append((mix(mix((seed + 2) & _64) ^ (last * 0x100000001B3 & _64) ^ key), True))
        last = key
        padded = f" {word} "
        for length in range(shortest, min(longest, len(padded) - 1) + 1):
            begin = mix((seed + 3 + length) & _64)
            found += [(mix(fold(begin, padded[at : at + length])), False) for at in range(len(padded) - length + 1)]
    return found


@settings(max_examples=80, deadline=None)
@given(st.text(max_size=60), st.integers(0, _64), st.booleans(), st.integers(2, 4), st.integers(2, 6))
def test_ngrams_are_their_twin(text: str, seed: int, pairs: bool, shortest: int, longest: int) -> None:
    codes = plain(text, 50)
    words = codes.tobytes().decode("utf-32-le", "surrogatepass")
    room = len(codes) * (2 + max(longest - shortest + 1, 0))
    keys, whole = np.zeros(room, np.uint64), np.zeros(room, np.bool_)
    n = ngrams(codes, np.uint64(seed), pairs, shortest, longest, keys, whole)
    found = list(zip(keys[:n].tolist(), whole[:n].tolist(), strict=True))
    assert Counter(found) == Counter(twin_ngrams(words, seed, pairs, shortest, longest))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", ""), (" .,!", ""), ("Trail-Shoe", " trail shoe "), ("ＦＵＬＬ Größe", " full grösse "),
        ("a\ud800b", " a b "), ("東京タワー 2", " 東京タワー 2 "), ("x" * 99, f" {'x' * 10} "),
    ],
)  # fmt: skip
def test_plain(text: str, words: str) -> None:
    assert plain(text, 10).tobytes().decode("utf-32-le", "surrogatepass") == words


def test_a_long_text_is_read_to_its_limit() -> None:
    many = Text("text")(item(1, text=" ".join(f"word{n}" for n in range(20_000))), Corpus())
    assert 1000 < len(many) < 4000 * 5
    assert np.isfinite(many.values).all()


# ---------------------------------------------------------------- labels, numbers, vectors


def test_labels_of_one_name_differ_by_field() -> None:
    says = item(1, categories=("a",), tags=("a",), attributes={"a": "a"})
    keys = [Labels(field)(says, Corpus()).keys.tolist() for field in ("categories", "tags", "attributes")]
    assert len({key for found in keys for key in found}) == 3


def test_attributes_are_labels_but_for_numbers_and_long_texts() -> None:
    says = item(1, attributes={"a": "x", "b": True, "c": 3, "d": 0.5, "e": None, "f": ("x", "y"), "g": "z" * 200})
    assert len(Labels("attributes")(says, Corpus())) == 4


@settings(max_examples=50, deadline=None)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.floats(-1e6, 1e6))
def test_a_quantile_is_the_share_below(numbers: list[float], asked: float) -> None:
    corpus = Corpus()
    for at, number in enumerate(numbers):
        corpus.meet(item(at, price=number))
        corpus.meet(item(at, price=number))  # an item counts once
    assert corpus.items == len(numbers)
    for number in (*numbers, asked):
        below, same = sum(one < number for one in numbers), numbers.count(number)
        assert math.isclose(corpus.quantile("price ", number), (below + same / 2) / len(numbers))


def test_numbers_code_their_place() -> None:
    corpus = Corpus()
    for at in range(100):
        corpus.meet(item(at, price=float(at)))
    rows = [Numbers(knots=(5,))(item(0, price=price), corpus) for price in (-1.0, 24.5, 49.5, 37.0, 1000.0)]
    dense = [dict(zip(row.keys.tolist(), row.values.tolist(), strict=True)) for row in rows]
    lowest, quarter, middle, between, highest = dense
    assert sorted(lowest.values()) == sorted(highest.values()) == [0, 1]
    assert math.isclose(max(quarter.values()), 1)
    shared = sum(value * middle.get(key, 0) for key, value in between.items())
    assert math.isclose(shared, 0.5, abs_tol=0.02)
    assert not {key for key, value in lowest.items() if value} & {key for key, value in highest.items() if value}


def test_numbers_without_a_neighbour_are_in_the_middle() -> None:
    assert Corpus().quantile("price ", 7) == 0.5
    numbers = item(1, price=math.inf, attributes={"a": math.nan, "b": True, "c": "7", "d": 3})
    assert numbers.numbers() == {"attribute d": 3.0}


@pytest.mark.parametrize(
    ("title", "year"), [("Toy Story (1995)", 1995), ("Blade (2) (2002) x", 2002), ("1984", None), ("A (12345)", None)]
)
def test_a_title_may_name_a_year(title: str, year: int | None) -> None:
    assert item(1, title=title).numbers() == ({} if year is None else {"year": year})


def test_the_sample_is_bounded_and_the_same_in_any_order() -> None:
    items = [item(at, price=float(at % 777)) for at in range(3 * SAMPLE)]
    one, other = Corpus(), Corpus()
    for content in items:
        one.meet(content)
    for content in reversed(items):
        other.meet(content)
    asked = [one.quantile("price ", number) for number in range(0, 777, 50)]
    assert asked == [other.quantile("price ", number) for number in range(0, 777, 50)]
    assert np.allclose(asked, np.arange(0, 777, 50) / 777, atol=0.06)
    assert len(one._samples["price "]._kept) == len(one._samples["price "]._sorted) == SAMPLE


def test_names_of_numbers_are_bounded() -> None:
    corpus = Corpus()
    for at in range(corpora.NAMES + 10):
        corpus.meet(item(at, attributes={f"n{at}": at}))
    assert len(corpus._samples) == corpora.NAMES
    assert corpus.quantile(f"attribute n{corpora.NAMES + 5}", 1) == 0.5


def test_rarity_falls_with_frequency() -> None:
    corpus, keys = Corpus(), np.array([5, 6, 7], np.uint64)
    for at in range(8):
        corpus.meet(item(at))
        corpus.count(Features(keys[: 1 + (at < 2)], np.ones(1 + (at < 2), np.float32)))
    expected = [math.log(9 / (1 + times)) + 1 for times in (8, 2, 0)]
    np.testing.assert_allclose(corpus.rarity(keys), expected, rtol=1e-6)


def test_a_vector_of_any_size_is_at_length_one() -> None:
    for values in ([1e30, 1e30], [1e-30, 0], [3.0, 4.0]):
        features = Vectors()(item(1, vectors={"i": Given("m", np.array(values, np.float32))}), Corpus())
        assert math.isclose(np.linalg.norm(features.values), 1, rel_tol=1e-5)


def test_keys_of_features_are_distinct() -> None:
    features = Features.of(np.array([7, 3, 7], np.uint64), np.array([1, 2, 3], np.float32))
    assert features.keys.tolist() == [3, 7]
    assert features.values.tolist() == [2, 4]
    for encoder, _ in ENCODING.encoders:
        found = encoder(item(1, title="a b a b", text="a b", categories=("a", "a"), tags=("b", "b")), Corpus())
        assert all(low < high for low, high in itertools.pairwise(found.keys.tolist()))
