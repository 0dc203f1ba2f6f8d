"""Layers of a baseline are found again by name, place and shape, as far as that goes."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gradcheck_cli.baseline import LayerMeasure
from gradcheck_cli.diagnose.baseline.matching import match


def layer(name: str, kind: str = "Linear", width: int = 8) -> LayerMeasure:
    return LayerMeasure(name, kind, ((width, width), (width,)), 0.0, 0.1, 1.0, 50)


def layers(*names: str, kind: str = "Linear", width: int = 8) -> list[LayerMeasure]:
    return [layer(name, kind, width) for name in names]


BLOCKS = [one for n in range(4) for one in layers(f"blocks.{n}.fc", f"blocks.{n}.proj")]


def test_layers_of_one_name_belong_together_whatever_their_shape() -> None:
    matching = match(layers("a", "b", "head"), [*layers("a", "b"), layer("head", width=16)])
    assert matching.names == {"a": "a", "b": "b", "head": "head"}
    assert (matching.added, matching.removed, matching.renamed) == ((), (), {})


def test_layers_of_another_type_belong_together_by_name_where_nothing_else_does() -> None:
    assert match(layers("head"), layers("head", kind="LoraLinear")).names == {"head": "head"}


def test_a_prefix_may_come_and_go() -> None:
    inside = [layer(f"backbone.encoder.{one.name}") for one in BLOCKS]
    for old, new in ((BLOCKS, inside), (inside, BLOCKS)):
        matching = match(old, new)
        assert matching.names == {a.name: b.name for a, b in zip(old, new, strict=True)}
        assert (matching.added, matching.removed) == ((), ())


def test_a_name_is_followed_by_shape_and_order() -> None:
    old = [layer("stem", width=4), *layers("first", "second")]
    new = [layer("entry", width=4), *layers("one", "two")]
    assert match(old, new).names == {"stem": "entry", "first": "one", "second": "two"}


def test_what_has_no_counterpart_is_listed() -> None:
    matching = match([*layers("a"), layer("gone", "Conv2d")], [*layers("a"), layer("new", "LSTM")])
    assert matching.names == {"a": "a"}
    assert (matching.added, matching.removed) == (("new",), ("gone",))


def test_numbers_are_places_where_a_sequence_has_other_members() -> None:
    plain = layers("0", "2", "4", "6")
    normed = [layer(str(n), "LayerNorm" if n % 3 == 1 else "Linear") for n in (0, 1, 3, 4, 6, 7, 9, 10)]
    assert match(plain, normed).names == {"0": "0", "2": "3", "4": "6", "6": "9"}
    back = match(normed, plain)
    assert back.names == {"0": "0", "3": "2", "6": "4", "9": "6"}
    assert back.removed == ("1", "4", "7", "10")


def test_a_block_that_is_appended_leaves_the_others_alone() -> None:
    longer = [*BLOCKS, *layers("blocks.4.fc", "blocks.4.proj")]
    matching = match(BLOCKS, longer)
    assert matching.renamed == {}
    assert matching.added == ("blocks.4.fc", "blocks.4.proj")


def test_modules_parameters_and_patterns_follow_their_layers() -> None:
    old = [*BLOCKS, layer("head")]
    matching = match(old, [layer(f"backbone.{one.name}") for one in old])
    for name in ("blocks.1.fc", "blocks.1", "blocks", "blocks.*.fc", "blocks.*", "head.weight", "blocks.1.fc.bias"):
        assert matching.translate(name) == f"backbone.{name}"
    for name in ("", "elsewhere", "all Linear layers"):
        assert matching.translate(name) == name


names = st.lists(st.sampled_from("abc012"), min_size=0, max_size=3).map(".".join)
models = st.lists(
    st.builds(layer, names, st.sampled_from(["Linear", "LayerNorm"]), st.sampled_from([4, 8])),
    max_size=8,
    unique_by=lambda one: one.name,
)


@given(old=models, new=models)
def test_nothing_is_lost_and_nothing_is_matched_twice(old: list[LayerMeasure], new: list[LayerMeasure]) -> None:
    matching = match(old, new)
    assert sorted([*matching.names, *matching.removed]) == sorted(one.name for one in old)
    assert sorted([*matching.names.values(), *matching.added]) == sorted(one.name for one in new)


@given(model=models)
def test_a_model_matches_itself(model: list[LayerMeasure]) -> None:
    matching = match(model, model)
    assert matching.names == {one.name: one.name for one in model}
