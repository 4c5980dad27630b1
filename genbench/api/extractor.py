"""The extractor: a fixed network whose layers are features of images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn


class Extractor(ABC):
    """A fixed feature network, for every metric on features alike.

    Its factory is cheap and reads no file, since a plan only asks for the names of layers. A factory that takes
    the option `weights` accepts a file of weights.

    Attributes:
        layers: The names of the layers.
        default_layer: The layer that distances between features use.
        logits_layer: The layer of class logits; "" where there is none.
        classes: The meaning of each logit, as in `DatasetInfo.class_names`; empty where it is not known.
        implementation: The network's name in protocols; "" where it is the extractor's own.
        resize: What the network does to an image that does not have its size.
        cpu_batch: Count of images at once on a CPU.
    """

    layers: ClassVar[tuple[str, ...]]
    default_layer: ClassVar[str]
    logits_layer: ClassVar[str] = ""
    classes: ClassVar[tuple[str, ...]] = ()
    implementation: ClassVar[str] = ""
    resize: ClassVar[str] = "none"
    cpu_batch: ClassVar[int] = 100

    @property
    @abstractmethod
    def weights_label(self) -> str:
        """The weights in protocols: "shipped" or "standard" or "custom", and the start of their SHA-256.

        Raises:
            DataError: The weights are missing.
        """

    @abstractmethod
    def network(self, layer: str) -> nn.Module:
        """The network up to a layer: images `(n, 3, h, w)` uint8, grey repeated, to features `(n, f)` float32.

        Raises:
            DataError: The weights are missing, damaged or of another network.
        """
