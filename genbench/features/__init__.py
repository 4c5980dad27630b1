"""Features of images by registered extractors."""

from __future__ import annotations

from genbench.features.extractor import FeatureLayer, extract, feature_layer, finite, probe, register_extractors

__all__ = ["FeatureLayer", "extract", "feature_layer", "finite", "probe", "register_extractors"]
