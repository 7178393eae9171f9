"""Profiles: what each model can do and what it costs.

The data is models.dev's with additions of ours (`data/profile_augmentations.toml`), one file a
provider, read when a model of that provider is first asked about. `streamfold profiles refresh`
writes newer data into a folder; the environment variable STREAMFOLD_PROFILES_DIR makes it count.
"""

from __future__ import annotations

from .keys import ModelProfile, PriceTier
from .lookup import profile
from .prices import usage_cost
from .store import provider_names

__all__ = ["ModelProfile", "PriceTier", "profile", "provider_names", "usage_cost"]
