"""Options that check themselves: every mistake is one line that names the option."""

import dataclasses
from typing import Annotated, Literal

import pytest

from larvseg_jax import options
from larvseg_jax.errors import UserError
from larvseg_jax.options import Count, CountOrNone, Least


@dataclasses.dataclass(frozen=True)
class Oven:
    """A section inside a section."""

    degrees: Annotated[int, Least(50)] = 180
    fan: bool = False


@dataclasses.dataclass(frozen=True)
class Cake:
    """One option of each type."""

    name: str
    eggs: Count = 3
    nuts: CountOrNone = 0
    sugar: float = 0.5
    tin: Literal["round", "square"] = "round"
    sliced: bool = False
    layers: tuple[str, ...] = ("cream",)
    size: tuple[int, float] = (20, 5.0)
    rules: tuple[tuple[str, tuple[str | None, ...]], ...] = ()
    candles: Count | None = None
    oven: Oven = dataclasses.field(default_factory=Oven)

    def __post_init__(self) -> None:
        if self.eggs < self.nuts:
            raise UserError(f"nuts is {self.nuts}: use no more than eggs = {self.eggs}")


def problem(section, path="shop.cake", **given):
    """What reading a section complains of: one line."""
    with pytest.raises(UserError) as caught:
        options.read(Cake, {"name": "Sacher", **section}, path, **given)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_what_is_left_out_has_its_default():
    cake = options.read(Cake, {"name": "Sacher"}, "cake")
    assert cake == Cake("Sacher", 3, 0, 0.5, "round", False, ("cream",), (20, 5.0), (), None, Oven(180, False))


def test_values_get_the_types_of_the_dataclass():
    """Lists, as JSON has them, become tuples, and whole numbers floats, at any depth."""
    section = dict(
        name="Sacher",
        sugar=1,
        layers=["jam", "cream"],
        size=[24, 6],
        rules=[["a/.*", ["data", None]], ["b", []]],
        candles=7,
        oven={"degrees": 50, "fan": True},
    )
    cake = options.read(Cake, section, "cake")
    assert cake.layers == ("jam", "cream")
    assert cake.rules == (("a/.*", ("data", None)), ("b", ()))
    assert (cake.size, cake.candles, cake.oven) == ((24, 6.0), 7, Oven(50, True))
    assert [type(x) for x in (cake.sugar, *cake.size, cake.oven.degrees)] == [float, int, float, int]


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (dict(name=3), "shop.cake.name is 3: it must be a str"),
        (dict(eggs="3"), "shop.cake.eggs is '3': it must be a int"),
        (dict(eggs=2.0), "shop.cake.eggs is 2.0: it must be a int"),
        (dict(eggs=True), "shop.cake.eggs is True: it must be a int"),
        (dict(eggs=None), "shop.cake.eggs is None: it must be a int"),
        (dict(sugar="a\nlot"), r"shop.cake.sugar is 'a\nlot': it must be a float"),
        (dict(sugar=True), "shop.cake.sugar is True: it must be a float"),
        (dict(sliced=1), "shop.cake.sliced is 1: it must be a bool"),
        (dict(tin="oval"), "shop.cake.tin is 'oval': use 'round' or 'square'"),
        (dict(tin=["round"]), "shop.cake.tin is ['round']: use 'round' or 'square'"),
        (dict(candles="many"), "shop.cake.candles is 'many': it must be a int"),
    ],
)
def test_a_wrong_type_is_named(section, message):
    assert problem(section) == message


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (dict(eggs=0), "shop.cake.eggs is 0: use 1 or more"),
        (dict(nuts=-1), "shop.cake.nuts is -1: use 0 or more"),
        (dict(candles=0), "shop.cake.candles is 0: use 1 or more"),
        (dict(oven={"degrees": 49}), "shop.cake.oven.degrees is 49: use 50 or more"),
    ],
)
def test_a_bound_is_named(section, message):
    assert problem(section) == message
    assert options.read(Cake, dict(name="x", eggs=1, nuts=0, candles=1, oven={"degrees": 50})).eggs == 1


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (dict(layers="cream"), "shop.cake.layers is 'cream': it must be a tuple"),
        (dict(layers=("jam", 2)), "shop.cake.layers is 2: it must be a str"),
        (dict(size=20), "shop.cake.size is 20: it must be a tuple"),
        (dict(size=[20]), "shop.cake.size is (20,): it must have 2 values"),
        (dict(size=(20, 5, 1)), "shop.cake.size is (20, 5, 1): it must have 2 values"),
        (dict(size=(20.5, 5)), "shop.cake.size is 20.5: it must be a int"),
        (dict(rules=[["a", ["data", 3]]]), "shop.cake.rules is 3: it must be a str"),
        (dict(rules=[["a"]]), "shop.cake.rules is ('a',): it must have 2 values"),
    ],
)
def test_tuples_are_checked_value_by_value(section, message):
    assert problem(section) == message


def test_unknown_and_missing_options_are_named():
    listed = "name, eggs, nuts, sugar, tin, sliced, layers, size, rules, candles, oven"
    assert problem({"egs": 3}) == f"there is no option shop.cake.egs: shop.cake has {listed}"
    assert problem({"egs": 3}, "") == f"there is no option egs: a config has {listed}"
    assert problem({"oven": {"grill": 1}}) == "there is no option shop.cake.oven.grill: shop.cake.oven has degrees, fan"
    for path, name in (("shop.cake", "shop.cake.name"), ("", "name")):
        with pytest.raises(UserError) as caught:
            options.read(Cake, {"eggs": 3}, path)
        assert str(caught.value) == f"the option {name} is missing: give it a value"


def test_a_section_inside_must_be_one():
    assert problem({"oven": 180}) == "shop.cake.oven is 180: it must be a section with degrees, fan"


def test_options_that_do_not_go_together_are_told_with_their_section():
    assert problem({"eggs": 1, "nuts": 2}) == "shop.cake: nuts is 2: use no more than eggs = 1"
    assert problem({"eggs": 1, "nuts": 2}, "") == "nuts is 2: use no more than eggs = 1"
    # A message that names the section itself is left as it is.
    assert problem({"eggs": 1, "nuts": 2}, "nuts") == "nuts is 2: use no more than eggs = 1"


def test_given_fields_are_no_options_of_the_section():
    oven = Oven(200)
    assert options.read(Cake, {"name": "x"}, "cake", oven=oven).oven is oven
    assert problem({"oven": {}}, oven=oven).startswith("there is no option shop.cake.oven: shop.cake has name, eggs, ")


def test_defaults_are_plain_values_that_can_be_read_again():
    found = options.defaults(Oven, Cake)
    assert "name" not in found  # which has no default
    assert (found["degrees"], found["eggs"], found["oven"]) == (180, 3, {"degrees": 180, "fan": False})
    section = options.defaults(Cake)
    assert list(section) == [name for name in options.names(Cake) if name != "name"]
    assert options.read(Cake, {"name": "x", **section}, "cake") == Cake("x")
    # Every call makes its own: a config that changes a section changes no other.
    section["oven"]["degrees"] = 60
    assert options.defaults(Cake)["oven"]["degrees"] == 180


@pytest.mark.parametrize("value", [3, None, [], "x"])
def test_what_is_no_section_is_named(value):
    with pytest.raises(UserError, match="shop.cake is .*: it must be a section"):
        options.read(Cake, value, "shop.cake")


def test_numbers_beyond_all_floats_and_endless_texts_are_refused_in_a_short_line():
    assert problem({"sugar": 10**400}).endswith("it must be a float")
    for value in ("x" * 10**6, ["x"] * 10**6):
        assert len(problem({"eggs": value})) < 300
