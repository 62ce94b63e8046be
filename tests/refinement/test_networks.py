from dataclasses import replace

import numpy as np
import pytest
import torch
from refinement_scenes import landmarks, make_view

from recon3d.errors import InputError, ModelError, ShapeError
from recon3d.refinement import losses
from recon3d.refinement.conditioning import CHANNELS, GUIDES, as_tensor, condition, landmark_map
from recon3d.refinement.networks import IN_CHANNELS, Discriminators, Generator, crop
from recon3d.refinement.weights import average_generators, load_generator, save_generator

SMALL = dict(widths=(8, 12, 16), blocks=1)


def test_a_new_generator_changes_next_to_nothing():
    inputs = torch.rand(2, IN_CHANNELS, 64, 96) * 2 - 1
    picture, log_variance = Generator(**SMALL)(inputs)
    assert picture.shape == (2, 3, 64, 96) and log_variance.shape == (2, 1, 64, 96)
    assert (picture - inputs[:, :3]).abs().max() < 0.05


def test_the_uncertainty_is_bounded():
    generator = Generator(**SMALL)
    with torch.no_grad():
        generator.exit.bias += 1e3
        _, high = generator(torch.zeros(1, IN_CHANNELS, 32, 32))
        generator.exit.bias -= 2e3
        _, low = generator(torch.zeros(1, IN_CHANNELS, 32, 32))
    assert 100 < float(torch.exp(0.5 * high).max() * 127.5) < 130
    assert float(torch.exp(0.5 * low).min() * 127.5) > 0.9


def test_wrong_channels_are_refused():
    with pytest.raises(ShapeError):
        Generator(**SMALL)(torch.zeros(1, 3, 32, 32))


def test_gradients_reach_every_weight():
    generator = Generator(**SMALL)
    # The blocks' second convolutions start at zero and hide those before them.
    for module in generator.modules():
        if hasattr(module, "second"):
            torch.nn.init.normal_(module.second.weight, std=0.1)
    picture, log_variance = generator(torch.rand(1, IN_CHANNELS, 32, 32))
    (picture.square().mean() + log_variance.mean()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in generator.parameters())


def test_critics_judge_eyes_mouth_and_nose_by_themselves():
    critics = Discriminators()
    picture = torch.rand(2, 3, 160, 160)
    places = torch.tensor([[[50.0, 40], [110, 40], [80, 126], [80, 90]]] * 2)
    fine, coarse, eye, mouth, nose = critics(picture, picture, places)
    assert fine[-1].shape[0] == coarse[-1].shape[0] == mouth[-1].shape[0] == 2
    assert nose[-1].shape[0] == 2
    assert eye[-1].shape[0] == 4
    # An eye's critic does not see the mouth.
    changed = picture.clone()
    changed[:, :, 115:, :] = 0
    judged = critics(changed, picture, places)
    torch.testing.assert_close(judged[2][-1], eye[-1])
    # Nor does the nose's, which sees what is between them.
    torch.testing.assert_close(judged[4][-1], nose[-1])
    assert not torch.equal(judged[3][-1], mouth[-1])


def test_crops_stay_inside():
    cut = crop(torch.rand(2, 3, 40, 40), torch.tensor([[0.0, 0.0], [39.0, 100.0]]), 16)
    assert cut.shape == (2, 3, 16, 16)


def test_losses_vanish_on_the_truth():
    a, weight = torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32)
    assert losses.charbonnier(a, a, weight) < 2e-3
    assert losses.gradient_difference(a, a, weight) == 0
    assert abs(losses.structure(a, a, weight)) < 1e-5
    assert losses.structure(a, a.flip(-1), weight) > 0.3
    assert abs(losses.structure_of_scales(a, a, weight)) < 1e-5
    assert losses.bands(a, a, weight) == 0
    assert losses.other_person([a[:, 0, 0]], [a[:, 0, 0]]) < 2e-3


def test_bands_weigh_coarse_detail_as_much_as_fine():
    """A picture that lacks all of one band costs the same, however weak that band is."""
    generator = torch.Generator().manual_seed(1)
    weight = torch.ones(1, 1, 64, 64)
    noise = torch.randn(1, 3, 8, 8, generator=generator)
    fine = torch.zeros(1, 3, 64, 64)
    for strength in (1.0, 0.02):
        band = strength * torch.nn.functional.interpolate(noise, scale_factor=8.0, mode="bicubic")
        lacking = losses.bands(fine, fine + band, weight)
        assert lacking == pytest.approx(1.0, abs=0.01)
    assert losses.charbonnier(fine, fine + band, weight) < 0.05


def test_the_likelihood_is_best_at_the_true_variance():
    error = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0)) * 0.3
    values = torch.linspace(-4, 0, 81)
    found = [losses.likelihood(error, torch.full((1, 1, 64, 64), v)) for v in values]
    assert abs(float(values[int(np.argmin(found))]) - 2 * np.log(0.3)) < 0.1


def test_r1_is_the_squared_gradient():
    picture = torch.rand(3, 3, 4, 4, requires_grad=True)
    verdict = [[(2 * picture).sum((1,), keepdim=True)]]
    # d mean over 16 pixels of sum over channels of 2x = 2/16 everywhere
    expected = 48 * (2 / 16) ** 2
    assert float(losses.r1_penalty(verdict, picture)) == pytest.approx(expected, rel=1e-5)


def test_condition_has_the_described_channels():
    view, _ = make_view(0)
    inputs = condition(view)
    assert {k: v.shape for k, v in inputs.items()} == {
        k: (256, 256, c) for k, c in CHANNELS.items()
    }
    tensor = as_tensor(inputs)
    assert tensor.shape == (1, IN_CHANNELS, 256, 256) and tensor.abs().max() <= 1.01
    alone = as_tensor(inputs, GUIDES)
    assert alone[:, 3:].abs().max() == 0 and torch.equal(alone[:, :3], tensor[:, :3])


def test_landmark_map_draws_eyes_where_they_are():
    image = landmark_map(landmarks(256))
    assert image[113, 92, 1] == 255 and image[113, 164, 1] == 255 and image[20, 20].max() == 0
    missing = landmark_map(np.full((478, 2), np.nan))
    assert missing.max() == 0


def test_weights_survive_the_disk(tmp_path):
    generator = Generator(**SMALL)
    path = tmp_path / "w.safetensors"
    save_generator(path, generator, {"steps": "7"})
    again, about = load_generator(path)
    assert about["steps"] == "7"
    inputs = torch.rand(1, IN_CHANNELS, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(again(inputs)[0], generator(inputs)[0], atol=2e-3, rtol=1e-2)


def test_the_mean_of_two_refiners(tmp_path):
    made = []
    for number in range(2):
        torch.manual_seed(number)
        generator = Generator((16, 24), 1)
        for weight in generator.parameters():
            torch.nn.init.normal_(weight, 0, 0.1)
        save_generator(tmp_path / f"{number}.safetensors", generator, {"steps": str(number)})
        made.append(load_generator(tmp_path / f"{number}.safetensors")[0].state_dict())
    paths = [tmp_path / f"{number}.safetensors" for number in range(2)]
    average_generators(paths, tmp_path / "mean.safetensors")
    mean, about = load_generator(tmp_path / "mean.safetensors")
    for key, value in mean.state_dict().items():
        torch.testing.assert_close(value, (made[0][key] + made[1][key]) / 2, atol=1e-3, rtol=1e-2)
    assert about["steps"] == "0" and '"steps": "1"' in about["mean_of"]
    save_generator(tmp_path / "other.safetensors", Generator((16, 32), 1), {})
    with pytest.raises(InputError, match="unlike size"):
        average_generators([paths[0], tmp_path / "other.safetensors"], tmp_path / "no.safetensors")
    assert not (tmp_path / "no.safetensors").exists()


def test_the_mean_with_a_smaller_refiner_is_that_with_what_it_grows_to(tmp_path):
    small, large = Generator((8, 12), 1), Generator((8, 12), (1, 2))
    for weight in (*small.parameters(), *large.parameters()):
        torch.nn.init.normal_(weight, 0, 0.1)
    grown = Generator((8, 12), (1, 2))
    grown.load_state_dict(large.state_dict())
    for name, weight in grown.named_parameters():
        if name.startswith("down.1.1.second"):
            torch.nn.init.zeros_(weight)
    grown.grow_from(small)
    for name, network in (("small", small), ("large", large), ("grown", grown)):
        save_generator(tmp_path / f"{name}.safetensors", network, {})
    means = []
    for name in ("small", "grown"):
        out = tmp_path / "mean.safetensors"
        average_generators([tmp_path / f"{name}.safetensors", tmp_path / "large.safetensors"], out)
        means.append(load_generator(out)[0])
    assert means[0].blocks == (1, 2)
    for key, value in means[1].state_dict().items():
        torch.testing.assert_close(means[0].state_dict()[key], value, atol=1e-3, rtol=1e-2)


def test_other_files_are_refused(tmp_path):
    from safetensors.torch import save_file

    with pytest.raises(ModelError, match="no such refiner"):
        load_generator(tmp_path / "none.safetensors")
    broken = tmp_path / "broken.safetensors"
    broken.write_bytes(b"not safetensors at all")
    with pytest.raises(ModelError, match="safetensors"):
        load_generator(broken)
    other = tmp_path / "other.safetensors"
    save_file({"x": torch.zeros(3)}, str(other))
    with pytest.raises(ModelError, match="expected format"):
        load_generator(other)
    path = tmp_path / "w.safetensors"
    save_generator(path, Generator(**SMALL), {"shape": '{"widths": [8, 12, 20], "blocks": 1}'})
    with pytest.raises(ModelError, match="do not fit"):
        load_generator(path)
    save_generator(path, Generator(**SMALL), {"shape": '{"widths": [8, 12, 16], "blocks": [1]}'})
    with pytest.raises(ModelError, match="does not describe a network"):
        load_generator(path)
    # One number for all levels, as headers had before levels could differ.
    save_generator(path, Generator(**SMALL), {"shape": '{"widths": [8, 12, 16], "blocks": 1}'})
    assert load_generator(path)[0].blocks == (1, 1, 1)


def test_support_that_few_pixels_confirm_is_shown_as_less():
    view, _ = make_view(0)
    whole = condition(view)["evidence"]
    half = condition(replace(view, confirmed=np.full((512, 512), 0.5, np.float32)))["evidence"]
    assert np.abs(2.0 * half[..., 0] - whole[..., 0]).max() <= 2
    assert (half[..., 1:] == whole[..., 1:]).all()
