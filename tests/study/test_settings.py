from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import pytest
from pydantic import ConfigDict

from study.settings import CHECKED, build, flatten, merge, parse_assignment


@dataclass(frozen=True, kw_only=True)
class Inner:
    lr: float = 0.1
    epochs: int = 2
    loss: Literal["mse", "huber"] = "mse"
    quick: bool = False
    widths: tuple[int, ...] = (1, 2)

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise ValueError(f"epochs is {self.epochs}; it must be at least 1")


@dataclass(frozen=True, kw_only=True)
class Outer:
    __pydantic_config__: ClassVar[ConfigDict] = CHECKED

    name: str
    training: Inner = field(default_factory=Inner)


def test_nested_dictionaries_become_dataclasses_and_yaml_spellings_of_numbers_become_numbers() -> None:
    built = build(Outer, {"name": 0, "training": {"lr": "1e-4", "epochs": 3.0, "widths": [4]}})
    assert built == Outer(name="0", training=Inner(lr=1e-4, epochs=3, widths=(4,)))
    assert type(built.training) is Inner
    assert type(built.training.epochs) is int


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"lr": "abc"}, "training.lr is 'abc'; it must be a number"),
        ({"lr": None}, "training.lr is None; it must be a number"),
        ({"lr": True}, "training.lr is true; it must be a number"),
        ({"lr": {"x": 1}}, "training.lr is {'x': 1}; it must be a number"),
        ({"epochs": 2.5}, "training.epochs is 2.5; it must be a whole number"),
        ({"epochs": True}, "training.epochs is true; it must be a whole number"),
        ({"epochs": 0}, "training: epochs is 0; it must be at least 1"),
        ({"loss": "mae"}, "training.loss is 'mae'; it must be 'mse' or 'huber'"),
        ({"quick": "maybe"}, "training.quick is 'maybe'; it must be true or false"),
        ({"widths": 3}, "training.widths is 3; it must be a list"),
        ({"widths": [1, "x"]}, "training.widths.1 is 'x'; it must be a whole number"),
        ({"lrr": 1}, "unknown setting training.lrr; training has lr, epochs, loss, quick, widths"),
        (3, "training is 3; it must be a group of settings"),
    ],
)
def test_a_wrong_value_is_one_line_that_quotes_it_and_says_what_is_allowed(training: object, message: str) -> None:
    with pytest.raises(ValueError) as raised:  # noqa: PT011 (the whole message is compared)
        build(Outer, {"name": "x", "training": training})
    assert str(raised.value) == message


def test_an_unknown_group_and_a_missing_setting_are_named() -> None:
    with pytest.raises(ValueError, match=r"^unknown setting trainin; there are name, training$"):
        build(Outer, {"name": "x", "trainin": {"lr": 1}})
    with pytest.raises(ValueError, match=r"^name is missing$"):
        build(Outer, {})


def test_a_later_layer_wins_setting_by_setting_and_no_layer_is_changed() -> None:
    base = {"a": {"x": 1, "y": 2}, "b": 3}
    assert merge(base, {"a": {"y": 5}}, {"a.z": 6}) == {"a": {"x": 1, "y": 5, "z": 6}, "b": 3}
    assert base == {"a": {"x": 1, "y": 2}, "b": 3}
    assert flatten(merge(base)) == {"a.x": 1, "a.y": 2, "b": 3}


def test_assignments_are_read_as_yaml() -> None:
    assert parse_assignment("a.b=0.5") == {"a.b": 0.5}
    assert parse_assignment("a=[1, 2]") == {"a": [1, 2]}
    assert parse_assignment("a={b: x}") == {"a.b": "x"}
    assert parse_assignment("a=b=c") == {"a": "b=c"}


@pytest.mark.parametrize("text", ["training.lr", "=3", "a=[1"])
def test_what_is_no_assignment_is_quoted(text: str) -> None:
    with pytest.raises(ValueError, match=r"(is no setting; write it as name=value|which is not YAML)"):
        parse_assignment(text)
