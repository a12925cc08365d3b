import pytest
import torch

from training.models import ARCHITECTURES, Average, Finder, size
from training.preprocess import Preprocessing
from training.timm_import import import_timm


@pytest.fixture(scope="module")
def finders() -> dict[str, Finder]:
    torch.manual_seed(1)
    return {arch: Finder(arch, Preprocessing()) for arch in ARCHITECTURES}


def test_timm_imports_beside_whatever_torch_there_is():
    assert import_timm() is import_timm()
    assert import_timm().__name__ == "timm"


@pytest.mark.parametrize(
    ("arch", "parameters"),
    [
        ("resnet18", (11.1e6, 11.3e6)),
        ("convnext_tiny", (27e6, 29e6)),
        ("convnext_tiny_stride2", (27e6, 29e6)),
        ("efficientnetv2_s", (20e6, 21e6)),
        ("small_resnet", (190e3, 200e3)),
    ],
)
def test_networks_have_their_size(finders, arch, parameters):
    found = size(finders[arch])
    assert parameters[0] < found.parameters < parameters[1]
    assert found.flops > 1e7


def test_flops_count_two_for_each_multiplication_and_addition(finders):
    # by hand: 3x3 stem of 3 -> 64 channels on 64x64 pixels is the first of resnet18's convolutions
    stem = 2 * 3 * 9 * 64 * 64 * 64
    layer1 = 4 * 2 * 64 * 9 * 64 * 64 * 64
    assert size(finders["resnet18"]).flops > stem + layer1
    assert size(finders["resnet18"]).flops < 2 * (stem + 4 * layer1)


def test_generation_1_keeps_full_resolution_in_the_first_block(finders):
    shapes = []
    network = finders["resnet18"].backbone
    hook = network.layer1.register_forward_hook(
        lambda module, given, result: shapes.append(result.shape[-2:])
    )
    finders["resnet18"](torch.zeros(1, 3, 64, 64), torch.ones(1, 3))
    hook.remove()
    assert shapes == [(64, 64)]


@pytest.mark.parametrize("arch", ARCHITECTURES)
@pytest.mark.parametrize("bf16", [False, True])
def test_logits_are_float32_and_distinct_in_any_precision(finders, arch, bf16):
    model = finders[arch].eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        logit = model(0.01 * torch.randn(6, 3, 64, 64), torch.full((6, 3), 0.003))
    assert (logit.shape, logit.dtype) == ((6,), torch.float32)
    assert len(set(logit.tolist())) == 6


def test_metadata_reach_the_logit_and_are_required():
    how = Preprocessing(meta_cols=("psfsize_r",), meta_mean=(1.3,), meta_std=(0.2,))
    model = Finder("small_resnet", how).eval()
    stamps, sky = torch.randn(2, 3, 64, 64), torch.ones(2, 3)
    with torch.no_grad():
        a, b = (model(stamps, sky, torch.tensor([[v], [v]])) for v in (1.0, 1.6))
    assert (a != b).all()
    with pytest.raises(ValueError, match="psfsize_r"):
        model(stamps, sky)


def test_an_unknown_architecture_lists_those_there_are():
    with pytest.raises(KeyError, match="convnext_tiny"):
        Finder("resnet19", Preprocessing())


@pytest.mark.parametrize(("arch", "side"), [("convnext_tiny", 16), ("convnext_tiny_stride2", 32)])
def test_the_first_pixels_of_a_stem_are_as_wide_as_its_name_says(finders, arch, side):
    with torch.no_grad():
        assert finders[arch].backbone.stem(torch.zeros(1, 3, 64, 64)).shape[-2:] == (side, side)


def test_stride_2_costs_four_times_stride_4(finders):
    ratio = size(finders["convnext_tiny_stride2"]).flops / size(finders["convnext_tiny"]).flops
    assert ratio == pytest.approx(4, abs=0.2)


def test_the_average_is_the_running_mean_of_weights_and_statistics():
    model = Finder("small_resnet", Preprocessing())
    average = Average(model, 0.9)
    expected = {k: v.clone() for k, v in model.state_dict().items()}
    for step in range(1, 60):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(1)
        average.update(model, step)
        decay = 0.0 if step == 1 else min(0.9, 1 - step ** (-2 / 3))
        for name, value in model.state_dict().items():
            expected[name] = (
                decay * expected[name] + (1 - decay) * value if value.is_floating_point() else value
            )
    for name, value in average.module.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-4)
    assert not average.module.training
