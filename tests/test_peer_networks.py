"""mimicry's, StudioGAN's and R3GAN's own networks and losses: with copied weights, ganrun's give the same numbers.

What differs by design is said where it is set right:
- Their ReLUs overwrite what the shortcut of a discriminator's block is given, so that it adds relu(x) instead of x.
  SNGAN's own code adds x, and BigGAN-PyTorch warns of this.
- mimicry enlarges bilinearly, SNGAN's own code by the nearest pixel.
- torch's newer spectral norm, which ganrun uses, takes the two halves of a step of the power method in the other order.
  Both begin here where a further step changes nothing.
- mimicry's SAGAN leaves conditional batch norm's own layers without spectral norm; StudioGAN and BigGAN do not.
- StudioGAN's D2D-CE takes the largest similarity off the exponents of the other samples, but not off the own class's.
"""

import importlib
import os
import sys
from collections.abc import Callable

import pytest
import torch
from conftest import ROOT
from hydra.utils import instantiate
from test_configs import composed
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.parametrize import is_parametrized, remove_parametrizations

from ganrun import conditioning
from ganrun.game import Verdict
from ganrun.networks.layers import ConditionalBatchNorm

CLASSES = 10
VECTORS = ("weight_u", "weight_v")  # of spectral norm
INTERLEAVED = [*range(0, 2 * CLASSES, 2), *range(1, 2 * CLASSES, 2)]  # ADC: StudioGAN's fake class beside its real one


def opened(variable: str):
    """The checkout that an environment variable names, imported."""
    if variable not in os.environ:
        pytest.skip(f"set {variable} to a checkout")
    sys.path.insert(0, str(ROOT / "scripts"))
    try:
        return importlib.import_module("peers").open_peer(os.environ[variable]).module
    finally:
        sys.path.remove(str(ROOT / "scripts"))


def layers(network: nn.Module, *inputs: Tensor) -> list[nn.Module]:
    """Those with numbers of their own, in the order in which they are called; then the others."""
    seen, ours = [], []
    for name, layer in network.named_modules():
        inside = any(kind(network.get_submodule(name[:i])) for i, at in enumerate(name) if at == ".")
        if kind(layer) or (numbers(layer) and not inside and "parametrizations" not in name):
            ours.append(layer)
    hooks = [layer.register_forward_pre_hook(lambda layer, _: seen.append(layer)) for layer in ours]
    network(*inputs)
    for hook in hooks:
        hook.remove()
    return seen + [layer for layer in ours if not any(layer is other for other in seen)]


def kind(layer: nn.Module) -> bool:
    return type(layer).__name__ in ("ConditionalBatchNorm", "ConditionalBatchNorm2d")


def numbers(layer: nn.Module) -> dict[str, Tensor]:
    """A layer's own parameters and buffers, by the names of torch's older spectral norm."""
    own = dict(layer.named_parameters(recurse=False)) | dict(layer.named_buffers(recurse=False))
    if "sn_u" in own:  # mimicry's own spectral norm
        own = {
            "weight_orig": own["weight"],
            "weight_u": own["sn_u"][0],
            "weight_v": torch.empty(own["weight"][0].numel()),
        }
        own |= {} if getattr(layer, "bias", None) is None else {"bias": layer.bias}
    if is_parametrized(layer):
        norm = layer.parametrizations.weight
        own |= {"weight_orig": norm.original, "weight_u": norm[0]._u, "weight_v": norm[0]._v}
    return own


def pairs(mine: nn.Module, theirs: nn.Module, mixed: list[int] | None) -> list[tuple[Tensor, Tensor]]:
    """Numbers of two layers that correspond. mixed: the order of features where that is another."""
    if isinstance(mine, ConditionalBatchNorm) and hasattr(theirs, "embed"):  # mimicry: one table of scales and shifts
        scale, shift = theirs.embed.weight.detach().T.chunk(2)
        return [(mine.scale.weight, scale - 1), (mine.shift.weight, shift), *pairs(mine.norm, theirs.bn, None)]
    if isinstance(mine, ConditionalBatchNorm):
        own = zip((mine.scale, mine.shift, mine.norm), (theirs.gain, theirs.bias, theirs.bn), strict=True)
        return [pair for layers in own for pair in pairs(*layers, None)]
    one, other = numbers(mine), numbers(theirs)
    if len(one) == 1 == len(other):  # attention's scale has another name; an embedding is a linear layer here
        ((a, b),) = zip(one.values(), other.values(), strict=True)
        b = b.T if a.dim() == 2 and a.shape != b.shape else b.reshape(a.shape)
        return [(a, in_order(b, mixed))]
    assert one.keys() == other.keys(), (mine, theirs)
    return [(one[name], in_order(other[name], mixed)) for name in one if name not in VECTORS]


def in_order(x: Tensor, mixed: list[int] | None) -> Tensor:
    for dim in range(x.dim()):
        x = x.index_select(dim, torch.tensor(mixed)) if mixed and x.shape[dim] == len(mixed) else x
    return x


def settle(network: nn.Module) -> None:
    """Puts spectral norm where a further step of the power method changes nothing."""
    for layer in network.modules():
        own = numbers(layer)
        if "weight_u" in own:
            dim = 1 if isinstance(layer, nn.ConvTranspose2d) else 0
            left, _, right = torch.linalg.svd(own["weight_orig"].transpose(0, dim).flatten(1), full_matrices=False)
            own["weight_u"].copy_(left[:, 0])
            own["weight_v"].copy_(right[0])


def copy_weights(mine: nn.Module, theirs: nn.Module, *given: Tensor, mixed: list[int] | None) -> list:
    """Draws their weights further, so that none is 0, and copies them; returns the layers that correspond."""
    torch.manual_seed(0)
    for network in (mine, theirs):
        network.to(given[0].dtype)
    for p in theirs.parameters():
        p.add_(0.05 * torch.randn_like(p))
    found = list(zip(layers(mine, *given), layers(theirs, *given), strict=True))
    for each in found:
        for a, b in pairs(*each, mixed):
            assert a.shape == b.shape, each
            a.copy_(b)
    settle(mine)
    settle(theirs)
    return found


@torch.no_grad()
def assert_alike(mine: nn.Module, theirs: nn.Module, read: Callable, *given: Tensor, mixed=None) -> None:
    """With copied weights: what both give in training, the statistics that this leaves, what they give in eval mode.

    read: both outputs -> pairs of tensors. given: inputs of both. mixed: see pairs
    """
    for layer in theirs.modules():
        if isinstance(layer, nn.ReLU | nn.LeakyReLU):
            layer.inplace = False
    copied = copy_weights(mine, theirs, *given, mixed=mixed)
    for training in (True, True, False):
        for a, b in read(*(network.train(training)(*given) for network in (mine, theirs))):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)
            assert a.std() > 1e-3
    for a, b in (pair for each in copied for pair in pairs(*each, mixed)):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-5)


def networks(words: list[str]) -> tuple[nn.Module, nn.Module]:
    cfg = composed("dataset=cifar10", *words)[0]
    return tuple(instantiate(cfg[key], _convert_="all") for key in ("generator", "discriminator"))


def inputs(size: int, z_dim: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """Images, latents and labels."""
    torch.manual_seed(1)
    num = 3 if size == 128 else 6
    contrast = torch.linspace(0.2, 1, num)[:, None, None, None]
    x = (torch.rand(num, 3, size, size) * 2 - 1) * contrast
    return x.to(dtype), torch.randn(num, z_dim, dtype=dtype), torch.tensor([3, 0, 9, 3, 5, 0])[:num]


MIMICRY = {  # package, class, size, its widths, ganrun's settings
    "SNGAN 32": ("sngan", "SNGAN", 32, (32, 16), ["experiment=sngan"]),
    "SNGAN 48": ("sngan", "SNGAN", 48, (64, 128), ["experiment=sngan", "discriminator.hidden=in"]),
    "SNGAN 64": ("sngan", "SNGAN", 64, (128, 128), ["experiment=sngan", "discriminator.hidden=in"]),
    "SNGAN 128": ("sngan", "SNGAN", 128, (128, 128), ["experiment=sngan", "discriminator.hidden=in"]),
    "cGAN-PD 32": ("cgan_pd", "CGANPD", 32, (32, 16), ["experiment=sngan-conditional"]),
    "cGAN-PD 128": ("cgan_pd", "CGANPD", 128, (128, 128), ["experiment=sngan-conditional", "discriminator.hidden=in"]),
    "SAGAN 32": ("sagan", "SAGAN", 32, (32, 16), ["model=sagan", "conditional=projection",
                 "discriminator.attention=8"]),
    "SAGAN 128": ("sagan", "SAGAN", 128, (128, 128), ["model=sagan", "conditional=projection",
                  "discriminator.hidden=in", "generator.attention=32", "discriminator.attention=32"]),
    "WGAN-GP 32": ("wgan_gp", "WGANGP", 32, (32, 16), ["experiment=wgan-gp"]),
    "WGAN-GP 64": ("wgan_gp", "WGANGP", 64, (128, 128), ["experiment=wgan-gp", "discriminator.hidden=in"]),
    "DCGAN 48": ("dcgan", "DCGAN", 48, (64, 128), ["model=resnet", "critic.norm=none", "discriminator.hidden=in"]),
}  # fmt: skip

LABELLED = ("cgan_pd", "sagan")


@pytest.mark.parametrize("name", MIMICRY)
def test_mimicry(name, monkeypatch):
    package, prefix, size, (ngf, ndf), words = MIMICRY[name]
    opened("GANRUN_MIMICRY")
    nets, labelled = importlib.import_module(f"torch_mimicry.nets.{package}.{package}_{size}"), package in LABELLED
    blocks = sys.modules["torch_mimicry.modules.resblocks"].F
    nearest = type("Functional", (), {**vars(blocks), "interpolate": lambda x, **_: interpolate(x, scale_factor=2)})
    monkeypatch.setattr(sys.modules["torch_mimicry.modules.resblocks"], "F", nearest)
    made = [vars(nets)[f"{prefix}{player}{size}"] for player in ("Generator", "Discriminator")]
    classes = {"num_classes": CLASSES} if labelled else {}
    theirs = made[0](nz=12, ngf=ngf, **classes), made[1](ndf=ndf, **classes)
    sizes = [f"dataset.resolution={size}", "generator.width=8", "discriminator.width=8", "generator.z_dim=12"]
    mine = networks([*words, *sizes, "generator.eps=1e-5"])
    if package == "sagan":
        for norm in (m for m in mine[0].modules() if isinstance(m, ConditionalBatchNorm)):
            remove_parametrizations(norm.scale, "weight")
            remove_parametrizations(norm.shift, "weight")
    x, z, label = inputs(size, 12, torch.float64)
    label = (label,) if labelled else ()
    assert_alike(mine[0], theirs[0], lambda a, b: [(a, b)], z, *label)
    assert_alike(mine[1], theirs[1], lambda a, b: [(a.logits, b[:, 0])], x, *label)


SMALL = ["generator.width=8", "discriminator.width=8"]
BIG = ["discriminator.embedding=24", "generator.embedding=9", "generator.z_dim=16"]
STUDIOGAN = {  # config file, what is set otherwise in it, ganrun's settings
    "DCGAN": ("DCGAN", {}, ["experiment=dcgan", "generator.width=64", "discriminator.width=64"]),
    "DCGAN, spectral norm": ("DCGAN", {"apply_d_sn": True}, ["experiment=dcgan", "critic.norm=spectral",
                             "generator.width=64", "discriminator.width=64"]),
    "WGAN-GP": ("WGAN-GP", {}, ["experiment=wgan"]),
    "SNGAN": ("SNGAN", {}, ["experiment=sagan", "generator.spectral=false", "generator.attention=null",
              "discriminator.attention=null"]),
    "SAGAN": ("SAGAN", {}, ["experiment=sagan"]),
    "ACGAN": ("ACGAN-Mod", {}, ["experiment=acgan"]),
    "ACGAN, TAC": ("ACGAN-Mod-TAC", {}, ["experiment=acgan", "conditional=twin"]),
    "ACGAN, ADC": ("ACGAN-Mod-ADC", {}, ["experiment=acgan", "conditional=adc"]),
    "ProjGAN": ("ProjGAN", {}, ["experiment=projgan"]),
    "SNGAN 64": ("SNGAN", {"img_size": 64}, ["experiment=sagan", "generator.spectral=false", "discriminator.downs=4",
                 "generator.attention=null", "discriminator.attention=null"]),
    "BigGAN": ("BigGAN", {}, ["experiment=biggan"]),
    "BigGAN, unconditional": ("BigGAN-Uncond", {}, ["experiment=biggan", "conditional=none"]),
    "BigGAN 64": ("BigGAN", {"img_size": 64, "z_dim": 20, "attn_g_loc": [3]},
                  ["experiment=biggan", "generator.z_dim=20", "generator.plan=sngan"]),
    "BigGAN 128": ("BigGAN", {"img_size": 128, "z_dim": 24, "attn_g_loc": [4]},
                   ["experiment=biggan", "generator.z_dim=24"]),
    "BigGAN, TAC": ("ACGAN-Mod-Big-TAC", {}, ["experiment=biggan", "conditional=twin"]),
    "BigGAN, ADC": ("ACGAN-Mod-Big-ADC", {}, ["experiment=biggan", "conditional=adc"]),
    "MHGAN": ("MHGAN", {}, ["experiment=biggan", "conditional=multi-hinge"]),
    "ContraGAN": ("ContraGAN", {}, ["experiment=biggan", "conditional=2c"]),
    "ReACGAN": ("ReACGAN", {}, ["experiment=reacgan"]),
    "BigGAN-deep": ("BigGAN-Deep", {}, ["experiment=sagan", "model=biggan-deep"]),
    "ReACGAN-deep": ("ReACGAN-Deep", {}, ["experiment=reacgan", "model=biggan-deep"]),
    "BigGAN-deep 64": ("BigGAN-Deep", {"img_size": 64, "attn_g_loc": [3]}, ["experiment=sagan", "model=biggan-deep",
                        "generator.plan=sngan"]),
}  # fmt: skip


def studiogan(config: str, otherwise: dict) -> tuple[nn.Module, nn.Module]:
    """The networks of one of its config files, small."""
    main = opened("GANRUN_STUDIOGAN")
    folder = os.path.join(os.environ["GANRUN_STUDIOGAN"], "src", "configs", "CIFAR10")
    cfgs = main.config.Configurations(os.path.join(folder, f"{config}.yaml"))
    big = {"z_dim": 16, "g_shared_dim": 9, "g_conv_dim": 8, "d_conv_dim": 8, "d_embed_dim": 24}
    for key, value in (big | otherwise).items():
        setattr(cfgs.DATA if key == "img_size" else cfgs.MODEL, key, value)
    cfgs.define_modules()
    model = importlib.import_module(f"models.{cfgs.MODEL.backbone}")
    given = {"MODULES": cfgs.MODULES, "MODEL": cfgs.MODEL, "mixed_precision": False}
    given |= vars(cfgs.DATA) | vars(cfgs.MODEL)
    made = []
    for network in (model.Generator, model.Discriminator):
        wanted = network.__init__.__code__.co_varnames[1 : network.__init__.__code__.co_argcount]
        made.append(network(**{name: given[name] for name in wanted}))
    return tuple(made)


def outputs(verdict: Verdict, theirs: dict) -> list[tuple[Tensor, Tensor]]:
    """What both discriminators say."""
    if theirs["adv_output"].dim() == 2:  # MHGAN
        return [(verdict.classes, theirs["adv_output"])]
    found = [(verdict.logits, theirs["adv_output"])]
    if theirs["mi_cls_output"] is not None:
        found.append((verdict.classes, torch.cat([theirs["cls_output"], theirs["mi_cls_output"]], 1)))
    elif theirs["cls_output"] is not None:
        classes = theirs["cls_output"]
        found.append((verdict.classes, classes[:, INTERLEAVED] if classes.shape[1] > CLASSES else classes))
    if theirs["embed"] is not None:
        found.append((verdict.embedding, theirs["embed"]))
        own = verdict.classes.gather(1, theirs["label"][:, None]).squeeze(1)
        found.append((own, (theirs["embed"] * theirs["proxy"]).sum(1)))
    return found


@pytest.mark.parametrize("name", STUDIOGAN)
def test_studiogan(name):
    config, otherwise, words = STUDIOGAN[name]
    theirs = studiogan(config, otherwise)
    size = otherwise.get("img_size", 32)
    chosen = words if "generator.width=64" in words else [*SMALL, *words]
    big = BIG if any("big" in word or "reacgan" in word for word in words) else ["generator.z_dim=16"]
    mine = networks([*big, *chosen, f"dataset.resolution={size}"])
    dtype = torch.float64 if "big" in type(theirs[0]).__module__ else torch.float32  # in which the others put labels
    x, z, label = inputs(size, otherwise.get("z_dim", 16), dtype)
    behind = (
        [*range(9, 25), *range(9)] if "deep" in name else None
    )  # the first layer is given (y, z) there, (z, y) here
    assert_alike(mine[0], theirs[0], lambda a, b: [(a, b)], z, label, mixed=behind)
    assert_alike(mine[1], theirs[1], outputs, x, label, mixed=INTERLEAVED if "ADC" in name else None)


@pytest.fixture
def told():
    """Logits of 4 classes twice over and of 5, cosines with 4 classes, embeddings, and labels."""
    torch.manual_seed(3)
    y, embedded = torch.tensor([1, 0, 1, 3, 2, 1]), nn.functional.normalize(torch.randn(2, 6, 5), dim=2)
    proxies = nn.functional.normalize(torch.randn(4, 5), dim=1)
    return torch.randn(2, 6, 8), embedded, proxies, y


def of(classes: Tensor, embedding: Tensor | None = None) -> Verdict:
    return Verdict(classes[:, 0], classes, classes, embedding)


def test_studiogan_losses_of_classifiers(told):
    opened("GANRUN_STUDIOGAN")
    losses, ((real, fake), _, _, y) = sys.modules["utils.losses"], told
    ce = losses.CrossEntropyLoss()
    loss = conditioning.Auxiliary()
    same(loss.discriminator(of(real[:, :4]), of(fake[:, :4]), y), ce(real[:, :4], y))
    same(loss.generator(of(fake[:, :4]), y), ce(fake[:, :4], y))
    loss = conditioning.TwinAuxiliary()
    same(loss.discriminator(of(real), of(fake), y), ce(real[:, :4], y) + ce(fake[:, 4:], y))
    same(loss.generator(of(fake), y), ce(fake[:, :4], y) - ce(fake[:, 4:], y))
    loss, apart = conditioning.AuxiliaryDiscriminative(), [0, 4, 1, 5, 2, 6, 3, 7]
    same(loss.discriminator(of(real), of(fake), y), ce(real[:, apart], 2 * y) + ce(fake[:, apart], 2 * y + 1))
    same(loss.generator(of(fake), y), ce(fake[:, apart], 2 * y) - ce(fake[:, apart], 2 * y + 1))
    loss, hinge = conditioning.MultiHinge(generator_weight=0.05), losses.crammer_singer_loss
    expected = hinge(real[:, :5], y, DDP=False) + hinge(fake[:, :5], torch.full_like(y, 4), DDP=False)
    same(loss.discriminator(of(real[:, :5]), of(fake[:, :5]), y), expected)
    same(loss.generator(of(fake[:, :5]), y), 0.05 * hinge(fake[:, :5], y, DDP=False))


def test_studiogan_losses_of_embeddings(told, monkeypatch):
    opened("GANRUN_STUDIOGAN")
    losses, (_, (embedded, _), proxies, y) = sys.modules["utils.losses"], told
    verdict = of(embedded @ proxies.T, embedded)
    theirs = losses.ConditionalContrastiveLoss(4, 0.7, "cpu", DDP=False)
    same(conditioning.Contrastive(temperature=0.7).generator(verdict, y), theirs(embedded, proxies[y], y))
    theirs, mine = losses.Data2DataCrossEntropyLoss(4, 0.5, 0.98, "cpu", DDP=False), conditioning.DataToData()
    assert abs(theirs(embedded, proxies[y], y) - mine.generator(verdict, y)) > 0.1  # it is not the paper's equation 10
    monkeypatch.setattr(torch, "max", lambda x, dim, keepdim: (torch.zeros(len(x), 1), None))  # what it takes off
    same(mine.generator(verdict, y), theirs(embedded, proxies[y], y))
    same(mine.discriminator(verdict, None, y), theirs(embedded, proxies[y], y))


def same(mine: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(mine, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("classes", [0, CLASSES])
@pytest.mark.parametrize("size", [8, 32, 64])
def test_r3gan(size, classes, monkeypatch):
    opened("GANRUN_R3GAN")
    words = [f"dataset.resolution={size}", "generator.width=32", "discriminator.width=32", "generator.z_dim=12"]
    generator, discriminator = networks(["model=r3gan", f"conditional={'projection' if classes else 'none'}", *words])
    for parameter in [*generator.parameters(), *discriminator.parameters()]:
        nn.init.normal_(parameter, std=parameter[0].numel() ** -0.5)  # as made, blocks are the identity
    monkeypatch.syspath_prepend(ROOT / "scripts")
    theirs = importlib.import_module("r3gan_peer").r3gan_networks(generator, discriminator)
    x, z, label = inputs(size, 12, torch.float32)  # its filters know no other
    label = label if classes else None
    one_hot = None if label is None else torch.eye(CLASSES)[label]
    torch.testing.assert_close(generator(z, label), theirs[0](z, one_hot), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(discriminator(x, label).logits, theirs[1](x, one_hot), rtol=1e-5, atol=1e-5)
