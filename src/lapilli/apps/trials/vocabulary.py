"""The closed lists of words that records of interventions use."""

from __future__ import annotations

from typing import Literal

InterventionType = Literal[
    "Drug",
    "Device",
    "Biological",
    "Procedure",
    "Radiation",
    "Behavioral",
    "Genetic",
    "Dietary Supplement",
    "Combination Product",
    "Diagnostic Test",
    "Other",
]
Role = Literal["experimental", "comparator", "placebo", "background"]
Basis = Literal[
    "experimental_arm",
    "investigational_code_name",
    "stated_new_use",
    "comparator_or_background",
    "not_stated",
]
Alignment = Literal["exact", "normalised", "fuzzy", "none"]
Status = Literal["ok", "none", "partial", "failed"]
Origin = Literal["stated", "model", "rules", ""]
