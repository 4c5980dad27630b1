"""Features of images by registered extractors."""

from __future__ import annotations

from genbench.features.extractor import FeatureLayer, extract, feature_layer, finite, probe, register_extractors
from genbench.features.weights import read_weights

__all__ = ["FeatureLayer", "extract", "feature_layer", "finite", "probe", "read_weights", "register_extractors"]
