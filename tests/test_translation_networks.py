"""Networks from image to image, and the discriminator of patches: published sizes, shapes, what they see and refuse."""

import pytest
import torch
from conftest import ganrun
from hydra.utils import instantiate
from test_configs import composed
from test_networks import count
from torch import nn

from ganrun.errors import UserError
from ganrun.networks import patchgan, resnet_translator, unet
from ganrun.networks.layers import NORMS, has_bias, norm_layers

IMAGES = {"channels": 3, "source_channels": 3, "value_range": [-1, 1]}
GENERATORS = [unet.Generator, resnet_translator.Generator]


def make(family, **settings):
    """A generator, small if nothing is said of its width."""
    return family(**IMAGES | {"resolution": 32, "width": 4} | settings)


class TestPublishedSizes:
    """Parameters of the authors' own PyTorch networks, junyanz/pytorch-CycleGAN-and-pix2pix."""

    @pytest.mark.parametrize(("resolution", "expected"), [(256, 54_413_955), (128, 41_828_995)])
    def test_unet(self, resolution, expected):
        with torch.device("meta"):
            assert count(make(unet.Generator, resolution=resolution, width=64)) == expected

    @pytest.mark.parametrize(("resolution", "expected"), [(256, 11_378_179), (128, 7_837_699)])
    def test_resnet_translator(self, resolution, expected):
        with torch.device("meta"):
            assert count(make(resnet_translator.Generator, resolution=resolution, width=64)) == expected

    @pytest.mark.parametrize(
        ("settings", "expected"),
        [
            ({"source_channels": 3}, 2_768_705),
            ({"norm": "instance-plain"}, 2_764_737),
            ({"norm": "instance-plain", "layers": 0}, 8_705),
            ({"norm": "instance-plain", "layers": 5, "width": 16}, 699_633),
        ],
    )
    def test_patchgan(self, settings, expected):
        with torch.device("meta"):
            assert count(patchgan.Discriminator(channels=3, resolution=256, **settings)) == expected


def test_unet_parameters_by_hand():
    w, k = 2, 4 * 4
    down = 1 * w * k + (w * 2 * w * k + 2 * 2 * w) + 2 * w * 4 * w * k  # the last one has no norm
    up = (4 * w * 2 * w * k + 2 * 2 * w) + (4 * w * w * k + 2 * w) + (2 * w * 3 * k + 3)
    assert count(make(unet.Generator, source_channels=1, resolution=8, width=w)) == down + up


def test_resnet_translator_parameters_by_hand():
    w = 2
    down = (1 * w * 49 + w) + (w * 2 * w * 9 + 2 * w) + (2 * w * 4 * w * 9 + 4 * w)
    block = 2 * (4 * w * 4 * w * 9 + 4 * w)
    up = (4 * w * 2 * w * 9 + 2 * w) + (2 * w * w * 9 + w) + (w * 3 * 49 + 3)
    assert count(make(resnet_translator.Generator, source_channels=1, width=w, blocks=3)) == down + 3 * block + up


class TestGenerators:
    @pytest.mark.parametrize("family", GENERATORS)
    @pytest.mark.parametrize(("source", "channels"), [(1, 3), (3, 1), (4, 2)])
    @pytest.mark.parametrize("resolution", [8, 32, [16, 64]], ids=str)
    def test_shapes_and_gradients(self, family, source, channels, resolution):
        size = (resolution, resolution) if isinstance(resolution, int) else resolution
        generator = make(family, source_channels=source, channels=channels, resolution=resolution)
        image = torch.randn(2, source, *size, requires_grad=True)
        output = generator(image)
        assert output.shape == (2, channels, *size) and output.abs().max() <= 1
        output.square().sum().backward()
        assert image.grad.abs().sum() > 0 and all(p.grad is not None for p in generator.parameters())

    @pytest.mark.parametrize("family", GENERATORS)
    @pytest.mark.parametrize(("source", "value_range"), [(1, [-1, 1]), (3, [0, 1]), (3, None)], ids=str)
    def test_a_residual_one_adds_to_the_source(self, family, source, value_range):
        generator = make(family, source_channels=source, value_range=value_range, residual=True, dropout=0.0).eval()
        image = 3 * torch.randn(2, source, 32, 32)
        change = []
        generator.to_image.register_forward_hook(lambda module, args, output: change.append(output))
        output = generator(image)
        (drawn,) = change
        low, high = value_range or (-torch.inf, torch.inf)
        assert torch.equal(output, (image + drawn).clamp(low, high)) and drawn.abs().max() > 0
        with torch.no_grad():
            generator.to_image[-1].weight.zero_()
        assert torch.equal(generator(image), image.expand(2, 3, 32, 32).clamp(low, high))

    @pytest.mark.parametrize("family", GENERATORS)
    @pytest.mark.parametrize("norm", NORMS)
    def test_norms(self, family, norm):
        generator = make(family, norm=norm)
        assert generator(torch.randn(1, 3, 32, 32)).shape == (1, 3, 32, 32)
        kinds = {type(layer) for layer in norm_layers(norm, 4)}
        assert kinds <= {type(module) for module in generator.modules()}
        first, last = (list(m for m in generator.modules() if hasattr(m, "kernel_size"))[i] for i in (0, -1))
        assert (first.bias is not None) == (norm in ("none", "instance-plain")) == has_bias(norm)
        assert last.bias is not None

    @pytest.mark.parametrize(
        ("family", "sizes"),
        [(unet.Generator, [(32, 64), (96, 32)]), (resnet_translator.Generator, [(8, 8), (12, 20), (100, 36)])],
    )
    def test_other_sizes_than_the_one_in_training(self, family, sizes):
        generator = make(family)
        for size in sizes:
            assert generator(torch.randn(1, 3, *size)).shape == (1, 3, *size)
            assert all(side % generator.multiple == 0 and side >= generator.least for side in size)

    @pytest.mark.parametrize(
        ("family", "size", "valid"),
        [
            (unet.Generator, (48, 32), "this unet takes no image of 48x32 pixels; valid sides: 32, 64, 96, ..., mul"),
            (resnet_translator.Generator, (32, 30), "this resnet-translator takes no image of 32x30 pixels; valid sid"),
            (resnet_translator.Generator, (4, 8), "valid sides: 8, 12, 16, ..., multiples of 4"),
        ],
    )
    def test_a_size_that_does_not_fit_is_refused(self, family, size, valid):
        with pytest.raises(UserError, match=valid) as refused:
            make(family)(torch.randn(1, 3, *size))
        assert "\n" not in str(refused.value)

    @pytest.mark.parametrize("family", GENERATORS)
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"resolution": None}, "is for images, but this dataset has vectors"),
            ({"width": 0}, "width=0; expected at least 1"),
            ({"source_channels": 0}, "source_channels=0; expected at least 1"),
            ({"norm": "instnace"}, "norm=instnace; did you mean instance"),
            ({"value_range": [0, 255]}, r"value_range=\[0, 255\]"),
            ({"value_range": [0, 255], "residual": True}, r"value_range=\[0, 255\]"),
            ({"source_channels": 4, "residual": True}, "generator.residual=true with 4 source channels and 3 of the "),
        ],
    )
    def test_refuses_settings(self, family, settings, message):
        with pytest.raises(UserError, match=message):
            make(family, **settings)

    @pytest.mark.parametrize("family", GENERATORS)
    def test_initial_weights(self, family):
        generator = make(family, width=32, norm="batch")
        kernels = torch.cat([m.weight.flatten() for m in generator.modules() if hasattr(m, "kernel_size")])
        scales = torch.cat([m.weight for m in generator.modules() if isinstance(m, nn.BatchNorm2d)])
        assert kernels.std().item() == pytest.approx(0.02, rel=0.01) and abs(kernels.mean()) < 1e-4
        assert scales.mean().item() == pytest.approx(1, abs=0.005) and scales.std().item() == pytest.approx(
            0.02, rel=0.2
        )
        assert not generator.to_image[-1].bias.any()


class TestUnet:
    @pytest.mark.parametrize(
        ("resolution", "depth"),
        [(2, 1), (32, 5), (64, 6), (128, 7), (256, 8), (512, 8), (768, 8), ([32, 96], 5)],
        ids=str,
    )
    def test_depth(self, resolution, depth):
        with torch.device("meta"):
            generator = make(unet.Generator, resolution=resolution)
        assert len(generator.encoder) == depth and generator.multiple == 2**depth

    @pytest.mark.parametrize(
        ("resolution", "message"),
        [
            (48, "resolution=48x48: .* valid: 32, 64, 128, 256, multiples of 256; or try generator.depth=4"),
            ([64, 48], "resolution=64x48: .*generator.depth=4"),
            (33, "resolution=33x33: .*try dataset.resolution=32"),
        ],
        ids=str,
    )
    def test_sides_that_are_no_powers_of_two(self, resolution, message):
        with pytest.raises(UserError, match=message):
            make(unet.Generator, resolution=resolution)

    def test_a_depth_that_fits_is_taken(self):
        generator = make(unet.Generator, resolution=48, depth=4)
        assert generator(torch.randn(2, 3, 48, 48)).shape == (2, 3, 48, 48)
        with pytest.raises(
            UserError, match="unet with depth=5 takes no image of 48x48 pixels; valid sides: 32, 64, 96"
        ):
            make(unet.Generator, resolution=48, depth=5)
        for depth, wrong in ((0, "at least 1"), (10**9, "at most 14")):
            with pytest.raises(UserError, match=f"depth={depth}; expected {wrong}"):
                make(unet.Generator, depth=depth)

    def test_widths_norms_and_dropout_as_published(self):
        """C64-C128-C256-C512-C512-C512-C512-C512, CD512-CD1024-CD1024-C1024-C1024-C512-C256-C128."""
        with torch.device("meta"):
            generator = make(unet.Generator, resolution=256, width=64)
        down = [next(m for m in block if isinstance(m, nn.Conv2d)) for block in generator.encoder]
        up = [block[1] for block in generator.decoder] + [generator.to_image[1]]
        assert [c.out_channels for c in down] == [64, 128, 256, 512, 512, 512, 512, 512]
        assert [c.out_channels for c in up] == [512, 512, 512, 512, 256, 128, 64, 3]
        assert [c.in_channels for c in up] == [512, 1024, 1024, 1024, 1024, 512, 256, 128]
        normalised = [any(isinstance(m, nn.BatchNorm2d) for m in block) for block in generator.encoder]
        assert normalised == [False, *[True] * 6, False]
        assert [isinstance(block[-1], nn.Dropout) for block in generator.decoder] == [True] * 3 + [False] * 4

    @pytest.mark.parametrize(("resolution", "dropped"), [(32, 1), (64, 2), (128, 3), (256, 3), (16, 0)])
    def test_dropout_is_in_the_innermost_wide_blocks_and_acts_in_training_only(self, resolution, dropped):
        with torch.device("meta"):
            generator = make(unet.Generator, resolution=resolution)
            none = make(unet.Generator, resolution=resolution, dropout=0.0)
        drops = [isinstance(block[-1], nn.Dropout) for block in generator.decoder]
        assert drops == [True] * dropped + [False] * (len(drops) - dropped)
        assert not any(isinstance(m, nn.Dropout) for m in none.modules())

    def test_dropout_draws_in_training_only(self):
        generator, image = make(unet.Generator, norm="none", width=16), torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            assert not torch.equal(generator(image), generator(image))
            generator.eval()
            assert torch.equal(generator(image), generator(image))

    def test_skip_connections_carry(self):
        """Without its bottleneck the output still depends on every pixel, by way of what is handed over."""
        generator = make(unet.Generator, norm="none", dropout=0.0).eval()
        image = torch.randn(1, 3, 32, 32, requires_grad=True)
        with torch.no_grad():
            generator.encoder[-1][1].weight.zero_()
        (gradient,) = torch.autograd.grad(generator(image).abs().sum(), image)
        assert (gradient != 0).all()

    @pytest.mark.parametrize("level", range(4))
    def test_each_size_is_handed_to_the_decoder_block_of_that_size(self, level):
        """What the decoder makes of its own is left out everywhere, and all that is handed over but one size."""
        generator = make(unet.Generator, norm="none", dropout=0.0).eval()
        image = torch.randn(1, 3, 32, 32)
        takers = [block[1] for block in generator.decoder[1:]] + [generator.to_image[1]]  # of levels 3, 2, 1, 0
        with torch.no_grad():
            for other, taker in zip((3, 2, 1, 0), takers, strict=True):
                if other > level:
                    taker.weight.zero_()
                elif other == level:
                    taker.weight[len(taker.weight) // 2 :] = 0  # its own; what is handed over stands first
                else:
                    taker.weight[: len(taker.weight) // 2] = 0
            output = generator(image)
            generator.encoder[level][-1 if level == 0 else 1].weight.mul_(2)
            assert not torch.equal(generator(image), output)


class TestResnetTranslator:
    @pytest.mark.parametrize(
        ("resolution", "blocks"), [(8, 6), (128, 6), (252, 6), ([128, 256], 6), (256, 9), (512, 9)]
    )
    def test_blocks(self, resolution, blocks):
        with torch.device("meta"):
            generator = make(resnet_translator.Generator, resolution=resolution)
        assert len(generator.blocks) == blocks

    def test_blocks_without_weight_change_nothing(self):
        generator = make(resnet_translator.Generator, norm="none").eval()
        image = torch.randn(1, 3, 32, 32)
        with torch.no_grad():
            for block in generator.blocks:
                block.change[-1].weight.zero_()
            drawn = generator.to_image(generator.decoder(generator.encoder(image)))
            assert torch.equal(generator(image), generator.output(drawn, image))

    def test_margins_are_reflected(self):
        """A constant image stays constant, which zeros at its border would not leave it."""
        convolution = nn.Sequential(*make(resnet_translator.Generator).encoder[:2])
        output = convolution(torch.ones(1, 3, 16, 16))
        assert (output - output[..., :1, :1]).abs().max() < 1e-6
        assert all(
            c.padding == (0, 0) for block in make(resnet_translator.Generator).blocks for c in convolutions(block)
        )

    def test_dropout(self):
        generator, image = make(resnet_translator.Generator, dropout=0.5), torch.randn(1, 3, 32, 32)
        assert sum(isinstance(module, nn.Dropout) for module in generator.modules()) == 6
        assert not torch.equal(generator(image), generator(image))
        generator.eval()
        assert torch.equal(generator(image), generator(image))

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"resolution": 30}, "resnet-translator takes no image of 30x30 pixels"),
            ({"resolution": 4}, "resnet-translator takes no image of 4x4 pixels"),
            ({"blocks": -1}, "blocks=-1; expected at least 0"),
            ({"blocks": 10**9}, "blocks=1000000000; expected at most 1000"),
        ],
    )
    def test_refuses_settings(self, settings, message):
        with pytest.raises(UserError, match=message):
            make(resnet_translator.Generator, **settings)


def convolutions(network: nn.Module) -> list[nn.Conv2d]:
    return [module for module in network.modules() if isinstance(module, nn.Conv2d)]


def judge(**settings) -> patchgan.Discriminator:
    return patchgan.Discriminator(**{"channels": 3, "resolution": 64, "width": 4} | settings)


class TestPatchgan:
    @pytest.mark.parametrize(("layers", "pixels"), [(0, 1), (1, 16), (2, 34), (3, 70), (4, 142), (5, 286)])
    def test_receptive_field(self, layers, pixels):
        """Section 6.1.2: 1, 16, 70 and 286 pixels. The gradient of one logit is not zero there and nowhere else."""
        side = 2 * pixels + 2 ** (layers + 2)
        discriminator = judge(layers=layers, width=2, norm="none", resolution=side)
        image = torch.randn(1, 3, side, side, requires_grad=True)
        logits = discriminator(image).logits[0]
        (gradient,) = torch.autograd.grad(logits[len(logits) // 2, len(logits) // 2], image)
        for axis in (2, 3):
            (seen,) = gradient.abs().amax(dim=[d for d in range(4) if d != axis]).nonzero(as_tuple=True)
            assert seen[0] > 0 and seen[-1] < side - 1, "the patch lies inside"
            assert seen[-1] - seen[0] + 1 == pixels

    @pytest.mark.parametrize(
        ("layers", "size", "patches"),
        [(3, (256, 256), (30, 30)), (3, (32, 64), (2, 6)), (1, (16, 16), (6, 6)), (0, (8, 12), (8, 12))],
    )
    @pytest.mark.parametrize("source_channels", [0, 1])
    def test_shapes(self, layers, size, patches, source_channels):
        discriminator = judge(layers=layers, resolution=size, source_channels=source_channels)
        condition = torch.randn(2, source_channels, *size) if source_channels else None
        verdict = discriminator(torch.randn(2, 3, *size), condition)
        assert verdict.logits.shape == (2, *patches)
        assert verdict.features.shape == (2, discriminator.head.in_channels) and verdict.classes is None

    def test_the_condition_stands_before_the_image(self):
        discriminator = judge(source_channels=2)
        x, condition = torch.randn(2, 3, 64, 64), torch.randn(2, 2, 64, 64)
        joined = discriminator.head(discriminator.blocks(torch.cat([condition, x], 1)))
        assert torch.equal(discriminator(x, condition).logits, joined[:, 0])

    def test_features_are_means_over_patches_before_the_last_layer(self):
        discriminator, x = judge(norm="none"), torch.randn(2, 3, 64, 64)
        verdict, before = discriminator(x), discriminator.blocks(x)
        assert before.shape == (2, 32, 7, 7)
        assert torch.allclose(verdict.features, before.flatten(2).sum(2) / 49, atol=1e-6)
        assert torch.equal(verdict.logits, discriminator.head(before)[:, 0])

    @pytest.mark.parametrize(
        ("source_channels", "shape", "message"),
        [
            (3, None, r"source_channels=3 was given a condition of shape None; expected \[2, 3, 64, 64\]"),
            (0, (2, 3, 64, 64), r"source_channels=0 was given a condition of shape \[2, 3, 64, 64\]; expected None"),
            (3, (2, 1, 64, 64), r"of shape \[2, 1, 64, 64\]; expected \[2, 3, 64, 64\]"),
            (3, (2, 3, 32, 64), r"of shape \[2, 3, 32, 64\]; expected \[2, 3, 64, 64\]"),
            (3, (2,), r"of shape \[2\]; expected \[2, 3, 64, 64\]"),
        ],
    )
    def test_a_condition_that_does_not_fit_is_refused(self, source_channels, shape, message):
        condition = None if shape is None else torch.zeros(shape)
        with pytest.raises(ValueError, match=message):
            judge(source_channels=source_channels)(torch.zeros(2, 3, 64, 64), condition)

    @pytest.mark.parametrize("norm", NORMS)
    def test_norms_are_after_all_convolutions_but_the_first_and_last(self, norm):
        discriminator = judge(norm=norm)
        kinds = [type(layer) for layer in discriminator.blocks]
        inner = [type(layer) for layer in norm_layers(norm, 4)]
        assert kinds == [nn.Conv2d, nn.LeakyReLU] + 3 * [nn.Conv2d, *inner, nn.LeakyReLU]
        biases = [c.bias is not None for c in convolutions(discriminator)]
        assert biases == [True, *[has_bias(norm)] * 3, True]

    @pytest.mark.parametrize("norm", ["batch", "instance-plain"])
    @pytest.mark.parametrize("kernel", [3, 4, 5])
    @pytest.mark.parametrize("size", [(4, 4), (8, 8), (16, 16), (23, 40), (24, 24), (32, 32)], ids=str)
    def test_what_is_not_refused_runs(self, size, kernel, norm):
        for layers in range(8):
            settings = {"layers": layers, "kernel": kernel, "norm": norm, "resolution": size}
            try:
                discriminator = judge(**settings)
            except UserError as error:
                assert str(error).startswith(f"discriminator.layers={layers}: ") and "\n" not in str(error)
                fit = int(str(error).rpartition(" ")[2])
                assert fit < layers and judge(**settings | {"layers": fit})
                continue
            assert discriminator(torch.randn(2, 3, *size)).logits[0].numel() > 0

    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            (
                {"resolution": 16},
                "discriminator.layers=3: they leave no patch of an image of 16x16 pixels; expected at most 2",
            ),
            ({"resolution": None}, "patchgan is for images, but this dataset has vectors"),
            ({"layers": -1}, "layers=-1; expected at least 0"),
            ({"layers": 10**9}, "discriminator.layers=1000000000; expected at most 16"),
            ({"kernel": 2}, "kernel=2; expected at least 3"),
            ({"width": 0}, "width=0; expected at least 1"),
            ({"source_channels": -1}, "source_channels=-1; expected at least 0"),
            ({"norm": "bacth"}, "norm=bacth; did you mean batch"),
        ],
    )
    def test_refuses_settings(self, settings, message):
        with pytest.raises(UserError, match=message):
            judge(**settings)


def test_instance_plain_has_no_parameters_and_normalises():
    (norm,) = norm_layers("instance-plain", 3)
    assert not list(norm.parameters()) and not list(norm.buffers())
    x = 5 + 3 * torch.randn(2, 3, 16, 16)
    for mode in (True, False):
        y = norm.train(mode)(x)
        assert y.mean((2, 3)).abs().max() < 1e-5 and (y.std((2, 3), correction=0) - 1).abs().max() < 1e-4


class TestConfigs:
    @pytest.mark.parametrize("name", ["unet", "resnet-translator"])
    def test_source_channels_are_those_of_the_pairs_else_the_data_sets(self, name):
        def built(*words):
            cfg = composed(f"generator={name}", "generator.width=4", "dataset.resolution=32", "noise.z_dim=1", *words)[
                0
            ]
            return convolutions(instantiate(cfg.generator, _convert_="all"))[0].in_channels

        assert built() == 1 and built("dataset.channels=3") == 3
        assert built("pairs=none", "dataset.channels=3") == 3 and built("pairs=edges", "dataset.channels=3") == 1
        assert built("pairs=super-resolution", "dataset.channels=3") == 3

    def test_patchgan_in_an_unconditional_gan(self, tmp_path):
        words = ["discriminator=patchgan", "discriminator.layers=1", "batch_size=4", "steps=2", "num_samples=4"]
        ganrun(
            *words, "generator.width=4", "discriminator.width=4", "evaluate.num_samples=4", "run_dir=run", cwd=tmp_path
        )
        done = ganrun(*words, "discriminator.layers=5", "run_dir=no", cwd=tmp_path, check=2)
        assert "discriminator.layers=5: they leave no patch of an image of" in done.stderr
        assert done.stderr.count("\n") == 1 and not (tmp_path / "no").exists()
