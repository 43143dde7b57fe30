"""The categories that a boosted model learnt from its data frame, which its own type does not tell."""

import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any

from serin_server.failures import FatalError, Reason
from serin_server.protocol.categories import Categories

# XGBoost's numbers of the datatypes of categories; a data frame must have the same. Others it cannot write.
_INTEGERS = {9: "int8", 10: "uint8", 11: "int16", 13: "int32", 15: "int64"}


def categories_of(estimator: Any, names: Sequence[str]) -> Mapping[str, Categories] | None:
    """By feature, empty where all are numbers; None for an estimator of another package than these two.

    Raises FatalError when a model would mistake its own categories.
    """
    package = type(estimator).__module__.partition(".")[0]
    if package == "lightgbm":
        return dict(_of_lightgbm(estimator, names))
    if package == "xgboost":
        return dict(_of_xgboost(estimator, names))
    return None


def _of_lightgbm(estimator: Any, names: Sequence[str]) -> Iterator[tuple[str, Categories]]:
    """Those of the training data frame; what is not among them is missing for the model, by its own rule."""
    booster = estimator.booster_
    known = booster.pandas_categorical or ()
    places = booster.params.get("categorical_column") or ()
    if len(known) == len(places):
        for place, values in zip(places, known, strict=True):
            yield names[place], Categories(tuple(values), others=True)


def _of_xgboost(estimator: Any, names: Sequence[str]) -> Iterator[tuple[str, Categories]]:
    """Those that the file keeps. What is not among them must not reach the model. Raises FatalError.

    XGBoost (3.2) looks a category up by halving a sorted list, and takes one that is not there for its neighbour. Of
    texts it counts characters where it should count bytes, so those beyond ASCII are cut in the wrong places.
    """
    booster = estimator.get_booster()
    if "c" not in (booster.feature_types or ()):
        return
    trees = json.loads(bytes(booster.save_raw("json")))["learner"]["gradient_booster"]
    kept = trees.get("gbtree", trees)["model"].get("cats", {}).get("enc", ())
    for name, encoding in zip(names, kept, strict=False):  # a file of an older XGBoost has none
        if "offsets" not in encoding:
            yield name, Categories(tuple(encoding["values"]), others=False, dtype=_INTEGERS[encoding["type"]])
        elif len(encoding["offsets"]) > 1:
            if min(encoding["values"]) < 0:
                raise FatalError(
                    Reason.LOAD_FAILED,
                    f"the categories of {name} have other characters than ASCII's, which XGBoost writes wrongly into "
                    "its models, so that one would be taken for another: give them plain names and train again",
                )
            text = bytes(encoding["values"]).decode()
            values = (text[start:end] for start, end in pairwise(encoding["offsets"]))
            yield name, Categories(tuple(values), others=False)
